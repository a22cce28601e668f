"""From the tokens of a completion to what the client reads: text → chunks, or text → one object."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.request import Finish, Logprob, Prefill, Token
from language.tokenizer import Detokenizer
from server import wire
from server.dialogue.choices import Choice, Shape, as_they_come
from server.dialogue.logprobs import UntilShown, completion_lists
from server.logs import Figures
from server.service import Service
from server.wire import quote

if TYPE_CHECKING:
    from engine.worker import TokenStream


@dataclass(frozen=True, slots=True)
class CompletionShape(Shape):
    """
    choices     answers to each prompt
    candidates  of which the best are chosen
    answer      False: only the prompt is of interest
    """

    choices: int = 1
    candidates: int = 1
    echo: bool = False
    answer: bool = True


class CompletionAnswer:
    """The answer to one request: all choices of all prompts, those of the first prompt first."""

    def __init__(
        self,
        id: str,
        prompts: Sequence[list[int]],
        streams: Sequence[TokenStream],
        shape: CompletionShape,
        service: Service,
        figures: Figures,
    ):
        self.streams, self.figures = streams, figures
        self._prompts, self._shape = prompts, shape
        self._choices = [
            TextChoice(i, stream, prompts[i // shape.candidates], shape, service, figures)
            for i, stream in enumerate(streams)
        ]
        self._head = {
            "id": id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.model_id,
            "system_fingerprint": service.fingerprint,
        }

    async def events(self) -> AsyncIterator[bytes]:
        writers = [ChunkWriter(choice, self._head, self._shape, self.usage) for choice in self._choices]
        async for choice, tokens in as_they_come(self._choices):
            if news := writers[choice.index].write(tokens):
                yield news
        if self._shape.usage:
            yield wire.event({**self._head, "choices": [], "usage": self.usage()})

    async def whole(self) -> dict[str, Any]:
        texts = [""] * len(self._choices)
        async for choice, tokens in as_they_come(self._choices):
            texts[choice.index] += choice.feed(tokens)
        choices = [
            self._whole_choice(index, choice, texts[choice.index])
            for index, choice in enumerate(self._best())
        ]
        return {**self._head, "choices": choices, "usage": self.usage()}

    def _best(self) -> list[TextChoice]:
        """Of each prompt's candidates, those with the likeliest tokens."""
        best: list[TextChoice] = []
        for first in range(0, len(self._choices), self._shape.candidates):
            candidates = self._choices[first : first + self._shape.candidates]
            if self._shape.candidates > self._shape.choices:
                candidates.sort(key=lambda choice: choice.mean_logprob, reverse=True)
            best += candidates[: self._shape.choices]
        return best

    def _whole_choice(self, index: int, choice: TextChoice, text: str) -> dict[str, Any]:
        whole = {
            "index": index,
            "text": text,
            "logprobs": choice.new_logprobs() if self._shape.logprobs else None,
            "finish_reason": choice.finish,
        }
        if self._shape.token_ids:
            whole |= {"token_ids": choice.token_ids, "prompt_token_ids": choice.prompt}
        return whole

    def usage(self) -> dict[str, Any]:
        answered = self._shape.answer
        return wire.usage(
            prompt=sum(map(len, self._prompts)),
            cached=sum(choice.cached_tokens for choice in self._choices[:: self._shape.candidates]),
            completion=sum(len(choice.token_ids) for choice in self._choices) if answered else 0,
        )


class TextChoice(Choice):
    """One choice: tokens → text, less stop strings."""

    def __init__(
        self,
        index: int,
        stream: TokenStream,
        prompt: list[int],
        shape: CompletionShape,
        service: Service,
        figures: Figures,
    ):
        super().__init__(index, stream, shape.stop, figures, service.metrics)
        self.prompt = prompt
        self._shape = shape
        self._tokenizer = service.tokenizer
        self._detokenizer = Detokenizer(service.tokenizer)
        self._length = self._shown_length = 0
        self._logprobs: UntilShown[tuple[int, int, Logprob | None]] = UntilShown()
        self._sum_of_logprobs = 0.0

    def feed(self, tokens: Sequence[Token]) -> str:
        """The text that these tokens add, after the prompt if it is echoed.  Sets `finish` if they end the
        answer.
        """
        shown: list[str] = []
        for token in tokens:
            if not self.token_ids and self._shape.echo:
                shown.append(self._echo(token.prefill or Prefill()))
            self.count(token)
            if self._shape.answer:
                shown.append(self._feed(token))
            if self.stops.stopped:
                self.end("stop")
                break
            if token.finish is not None:
                self.end(token.finish.value if self._shape.answer else Finish.LENGTH.value)
                break
        return "".join(shown)

    def _feed(self, token: Token) -> str:
        """The text of one token; a stop token has none."""
        if token.logprob is not None:
            self._sum_of_logprobs += token.logprob.logprob
            self._logprobs.add(self._length, (self._length, token.id, token.logprob))
        text = "" if token.finish is Finish.STOP else self._detokenizer.feed(token.id)
        if token.finish is not None:
            text += self._detokenizer.flush()
        self._length += len(text)
        text = self.stops.feed(text)
        if token.finish is not None and not self.stops.stopped:
            text += self.stops.flush()
        self._shown_length += len(text)
        return text

    def _echo(self, prefill: Prefill) -> str:
        """The prompt's text, and its log-probabilities if they were asked for."""
        text = Detokenizer(self._tokenizer)
        pieces = []
        for id, logprob in zip(self.prompt, prefill.logprobs or [None] * len(self.prompt), strict=True):
            self._logprobs.add(self._length, (self._length, id, logprob))
            pieces.append(text.feed(id))
            self._length += len(pieces[-1])
        pieces.append(text.flush())
        self._length += len(pieces[-1])
        self._shown_length = self._length
        return "".join(pieces)

    @property
    def mean_logprob(self) -> float:
        return self._sum_of_logprobs / max(len(self.token_ids), 1)

    def new_logprobs(self) -> dict[str, Any]:
        """Of the text since the last time, and at the end of the token that stopped it: there is an entry for
        each token that was sampled, and programs that score a prompt count on it.
        """
        complete = self.finish is not None and not self.stops.stopped
        shown = math.inf if complete else self._shown_length
        return completion_lists(self._tokenizer, self._logprobs.take(shown))


class ChunkWriter:
    """The chunks of one choice.  `count` tells the usage so far."""

    def __init__(
        self,
        choice: TextChoice,
        head: Mapping[str, Any],
        shape: Shape,
        count: Callable[[], dict[str, Any]],
    ):
        self._choice, self._shape, self._count = choice, shape, count
        self._chunks = wire.Chunks(head, choice.index, shape.usage)
        self._sent_ids: int | None = None

    def write(self, tokens: Sequence[Token]) -> bytes:
        """The events of these tokens, the last of them with the finish reason."""
        events = []
        if self._shape.plain:
            if text := self._choice.feed(tokens):
                events.append(self._chunks.plain(f'"text":{quote(text)}'))
        else:
            for token in tokens:
                if self._choice.finish is None and (text := self._choice.feed([token])):
                    events.append(self._full(text))
        if self._choice.finish is not None:
            events.append(self._full("", self._choice.finish))
        return b"".join(events)

    def _full(self, text: str, finish: str | None = None) -> bytes:
        more: dict[str, Any] = {}
        if self._shape.logprobs and (new := self._choice.new_logprobs())["tokens"]:
            more["logprobs"] = new
        if self._shape.token_ids:
            more |= self._new_ids()
        usage = {"usage": self._count()} if self._shape.running_usage else {}
        return self._chunks.full(f'"text":{quote(text)}', finish, more, usage)

    def _new_ids(self) -> dict[str, Any]:
        """What was sampled since the last chunk; on the first one also the prompt."""
        first = {"prompt_token_ids": self._choice.prompt} if self._sent_ids is None else {}
        sent = self._sent_ids or 0
        self._sent_ids = len(self._choice.token_ids)
        return {"token_ids": self._choice.token_ids[sent:], **first}
