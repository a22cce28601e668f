"""The response to a completion request: text → chunks, or text → one object."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.request import Token
from server.api import chunks
from server.api.logprobs import completion_lists, prompt_entries
from server.api.shared_fields import View
from server.dialogue.begin import Begun
from server.dialogue.choices import Choice, in_order_of_arrival
from server.dialogue.continuation import TextReader
from server.logs import Figures
from server.service import Service
from server.sse import event, quote
from server.streaming import OpenAIStream

if TYPE_CHECKING:
    from engine.worker import TokenStream

TextChoice = Choice[TextReader]


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    choices     number of answers to each prompt
    candidates  number of answers that are computed, of which the best are returned
    echo        whether the text of the prompt comes first
    answer      False: only the prompt is wanted
    """

    choices: int = 1
    candidates: int = 1
    echo: bool = False
    answer: bool = True


class CompletionAnswer(OpenAIStream):
    """All choices of all prompts of a request, those of the first prompt first."""

    def __init__(
        self,
        id: str,
        begun: Sequence[Begun],
        view: View,
        wanted: Wanted,
        service: Service,
        figures: Figures,
    ):
        self.streams: Sequence[TokenStream] = [stream for each in begun for stream in each.streams]
        self.figures = figures
        self._prompt_tokens = sum(len(each.prompt) for each in begun)
        self._view, self._wanted, self._tokenizer = view, wanted, service.tokenizer
        readers = [
            TextReader(each.turn, each.prompt, service.tokenizer, echo=wanted.echo, answers=wanted.answer)
            for each in begun
            for _ in each.streams
        ]
        self._choices = [
            Choice(i, stream, reader, figures, service.metrics)
            for i, (stream, reader) in enumerate(zip(self.streams, readers, strict=True))
        ]
        self._texts: list[list[str]] = [[] for _ in self._choices]
        self._head = {
            "id": id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.model_id,
            "system_fingerprint": service.fingerprint,
        }

    async def events(self) -> AsyncIterator[bytes]:
        writers = [
            ChunkWriter(choice, self._head, self._view, self.usage, self._logprobs)
            for choice in self._choices
        ]
        async for choice, tokens in in_order_of_arrival(self._choices):
            for text in choice.reader.echo(tokens[0]):
                yield writers[choice.index].write_echo(text)
                await asyncio.sleep(0)
            if news := writers[choice.index].write(tokens):
                yield news
        if self._view.usage:
            yield event({**self._head, "choices": [], "usage": self.usage()})

    async def gather(self) -> None:
        async for choice, tokens in in_order_of_arrival(self._choices):
            for text in choice.reader.echo(tokens[0]):
                self._texts[choice.index].append(text)
                await asyncio.sleep(0)
            self._texts[choice.index] += choice.feed(tokens)

    def whole(self) -> dict[str, Any]:
        choices = [
            self._whole_choice(index, choice, "".join(self._texts[choice.index]))
            for index, choice in enumerate(self._best())
        ]
        return {**self._head, "choices": choices, "usage": self.usage()}

    def _best(self) -> list[TextChoice]:
        """For each prompt, the candidates with the most likely tokens."""
        best: list[TextChoice] = []
        for first in range(0, len(self._choices), self._wanted.candidates):
            candidates = self._choices[first : first + self._wanted.candidates]
            if self._wanted.candidates > self._wanted.choices:
                candidates.sort(key=lambda choice: choice.reader.mean_logprob, reverse=True)
            best += candidates[: self._wanted.choices]
        return best

    def _whole_choice(self, index: int, choice: TextChoice, text: str) -> dict[str, Any]:
        whole = {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(choice) if self._view.logprobs else None,
            "finish_reason": choice.finish,
        }
        if self._view.token_ids:
            whole |= {"token_ids": choice.reader.token_ids, "prompt_token_ids": choice.reader.prompt}
        if self._view.prompt_logprobs:
            reader = choice.reader
            whole["prompt_logprobs"] = prompt_entries(self._tokenizer, reader.prompt, reader.prompt_logprobs)
        return whole

    def _logprobs(self, choice: TextChoice) -> dict[str, Any]:
        return completion_lists(self._tokenizer, choice.reader.new_logprobs(), self._view.ids_as_tokens)

    def usage(self) -> dict[str, Any]:
        readers = [choice.reader for choice in self._choices]
        return chunks.usage(
            prompt=self._prompt_tokens,
            cached=sum(reader.cached_tokens for reader in readers[:: self._wanted.candidates]),
            completion=sum(len(reader.token_ids) for reader in readers) if self._wanted.answer else 0,
        )


class ChunkWriter:
    """The chunks of one choice.

    count     returns the usage so far
    logprobs  returns a choice's log-probabilities since the last call
    """

    def __init__(
        self,
        choice: TextChoice,
        head: Mapping[str, Any],
        view: View,
        count: Callable[[], dict[str, Any]],
        logprobs: Callable[[TextChoice], dict[str, Any]],
    ):
        self._choice, self._view, self._count, self._logprobs = choice, view, count, logprobs
        self._chunks = chunks.Chunks(head, choice.index, view.usage)
        self._sent_ids: int | None = None

    def write_echo(self, text: str) -> bytes:
        """The event of a part of the prompt."""
        if self._view.text_only:
            return self._chunks.unfinished(f'"text":{quote(text)}')
        return self._full(text)

    def write(self, tokens: Sequence[Token]) -> bytes:
        """The events of these tokens, the last of them with the finish reason."""
        events = []
        if self._view.text_only:
            if text := "".join(self._choice.feed(tokens)):
                events.append(self._chunks.unfinished(f'"text":{quote(text)}'))
        else:
            for token in tokens:
                if self._choice.finish is None and (text := "".join(self._choice.feed([token]))):
                    events.append(self._full(text))
        if self._choice.finish is not None:
            events.append(self._full("", self._choice.finish))
        return b"".join(events)

    def _full(self, text: str, finish: str | None = None) -> bytes:
        more: dict[str, Any] = {}
        if self._view.logprobs and (new := self._logprobs(self._choice))["tokens"]:
            more["logprobs"] = new
        if self._view.token_ids:
            more |= self._new_ids()
        usage = {"usage": self._count()} if self._view.running_usage else {}
        return self._chunks.full(f'"text":{quote(text)}', finish, more, usage)

    def _new_ids(self) -> dict[str, Any]:
        """The tokens since the last chunk; in the first chunk also those of the prompt."""
        reader = self._choice.reader
        first = {"prompt_token_ids": reader.prompt} if self._sent_ids is None else {}
        sent = self._sent_ids or 0
        self._sent_ids = len(reader.token_ids)
        return {"token_ids": reader.token_ids[sent:], **first}
