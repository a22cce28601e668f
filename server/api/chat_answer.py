"""From the tokens of a chat's answer to what the client reads: deltas → chunks, or deltas → one object.

Both are made of the same deltas, so a stream joined is the whole answer.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from engine.request import Finish, Token
from language.harmony.reader import CallDelta, CallStart, ContentDelta, Delta, Reader, ReasoningDelta
from language.names import FunctionNames
from server import wire
from server.dialogue.choices import Choice, Shape, as_they_come
from server.dialogue.logprobs import UntilShown, chat_entry
from server.logs import Figures
from server.service import Service
from server.wire import quote

if TYPE_CHECKING:
    from engine.worker import TokenStream


@dataclass(frozen=True, slots=True)
class ChatShape(Shape):
    """
    prefilled_channel  the channel that the prompt has already opened
    names              of functions, as the client knows them
    """

    prefilled_channel: str | None = None
    names: FunctionNames = field(default_factory=lambda: FunctionNames(()))
    reasoning: bool = True


class ChatAnswer:
    """The answer to one request: all of its choices."""

    def __init__(
        self,
        id: str,
        prompt: list[int],
        streams: Sequence[TokenStream],
        shape: ChatShape,
        service: Service,
        figures: Figures,
    ):
        self.streams, self.figures = streams, figures
        self._prompt, self._shape = prompt, shape
        self._choices = [ChatChoice(i, s, shape, service, figures) for i, s in enumerate(streams)]
        self._head = {
            "id": id,
            "created": int(time.time()),
            "model": service.model_id,
            "system_fingerprint": service.fingerprint,
        }

    async def events(self) -> AsyncIterator[bytes]:
        head = {**self._head, "object": "chat.completion.chunk"}
        first = {"prompt_token_ids": self._prompt} if self._shape.token_ids else {}
        writers = [ChunkWriter(choice, head, self._shape, first, self.usage) for choice in self._choices]
        async for choice, tokens in as_they_come(self._choices):
            if news := writers[choice.index].write(tokens):
                yield news
        if self._shape.usage:
            yield wire.event({**head, "choices": [], "usage": self.usage()})

    async def whole(self) -> dict[str, Any]:
        messages = [WholeMessage() for _ in self._choices]
        async for choice, tokens in as_they_come(self._choices):
            messages[choice.index].add(choice.feed(tokens))
        choices = [
            message.choice(choice, self._shape)
            for choice, message in zip(self._choices, messages, strict=True)
        ]
        answer = {**self._head, "object": "chat.completion", "choices": choices, "usage": self.usage()}
        return {**answer, "prompt_token_ids": self._prompt} if self._shape.token_ids else answer

    def usage(self) -> dict[str, Any]:
        return wire.usage(
            prompt=len(self._prompt),
            cached=max(choice.cached_tokens for choice in self._choices),
            completion=sum(len(choice.token_ids) for choice in self._choices),
            reasoning=sum(choice.reasoning_tokens for choice in self._choices),
        )


class ChatChoice(Choice):
    """One choice: tokens → deltas, less stop strings.

    calls  the ids of its calls so far
    """

    def __init__(self, index: int, stream: TokenStream, shape: ChatShape, service: Service, figures: Figures):
        super().__init__(index, stream, shape.stop, figures, service.metrics)
        self._reader = Reader(service.tokenizer, shape.prefilled_channel)
        self._stop_tokens = service.renderer.stop_tokens
        self._call = service.tokenizer.special("<|call|>")
        self._names, self._recall = shape.names, service.recall
        self._shows_reasoning = shape.reasoning
        self._tokenizer = service.tokenizer
        self._special = frozenset(service.tokenizer.specials.values())
        self._logprobs: UntilShown[dict[str, Any]] = UntilShown()
        self._content_length = self._shown_length = 0
        self.calls: list[str] = []
        self.reasoning_tokens = 0

    def feed(self, tokens: Sequence[Token]) -> list[Delta]:
        """What these tokens add, neighbours of one kind joined.  Sets `finish` if they end the answer."""
        news: list[Delta] = []
        for token in tokens:
            self.count(token)
            for delta in self._read(token):
                self._show(delta, news)
                if self.stops.stopped:
                    self.end("stop")
                    return news
            if token.finish is not None:
                self._append(ContentDelta(self.stops.flush()), news)
                calls = self.calls and token.finish is Finish.STOP
                self.end("tool_calls" if calls else token.finish.value)
        return news

    def end(self, reason: str) -> None:
        super().end(reason)
        self._figures.recoveries += self._reader.recoveries
        if len(self.calls) == 1 and self.token_ids[-1] == self._call:
            self._recall.keep(self.calls[0], self.token_ids)

    def _read(self, token: Token) -> list[Delta]:
        """The deltas of one token, and at the end what the reader still holds.

        A token that the client named as a stop ends the answer and is no part of it.
        """
        if token.finish is Finish.STOP and token.id not in self._stop_tokens:
            return self._reader.finish()
        deltas = self._reader.feed(token.id)
        place = self._reader.place
        if place == "reasoning":
            self.reasoning_tokens += 1
        if token.finish is not None:
            deltas = [*deltas, *self._reader.finish()]
        if token.logprob is not None:
            if place == "content" and token.id not in self._special:
                entry = chat_entry(self._tokenizer, token.id, token.logprob)
                self._logprobs.add(self._content_length, entry)
            self._content_length += sum(len(each.text) for each in deltas if isinstance(each, ContentDelta))
        return deltas

    def _show(self, delta: Delta, news: list[Delta]) -> None:
        """Put `delta` among the news, as far as the client may see it now."""
        if isinstance(delta, ContentDelta):
            self._append(ContentDelta(self.stops.feed(delta.text)), news)
            return
        self._append(ContentDelta(self.stops.flush()), news)  # a stop string does not reach over a call
        if isinstance(delta, CallStart):
            delta = CallStart(delta.index, self._names.outside(delta.name))
            self.calls.append(f"call_{uuid4().hex}")
        if self._shows_reasoning or not isinstance(delta, ReasoningDelta):
            self._append(delta, news)

    def _append(self, delta: Delta, news: list[Delta]) -> None:
        last = news[-1] if news else None
        if isinstance(delta, ContentDelta):
            self._shown_length += len(delta.text)
            if isinstance(last, ContentDelta):
                news[-1] = ContentDelta(last.text + delta.text)
            elif delta.text:
                news.append(delta)
        elif isinstance(delta, ReasoningDelta) and isinstance(last, ReasoningDelta):
            news[-1] = ReasoningDelta(last.text + delta.text)
        elif isinstance(delta, CallDelta) and isinstance(last, CallDelta) and last.index == delta.index:
            news[-1] = CallDelta(delta.index, last.arguments + delta.arguments)
        else:
            news.append(delta)

    def new_logprobs(self) -> list[dict[str, Any]]:
        """Of the visible text since the last time."""
        return self._logprobs.take(self._shown_length)


class ChunkWriter:
    """The chunks of one choice.

    first  fields of the answer's first chunk only
    count  the usage so far
    """

    def __init__(
        self,
        choice: ChatChoice,
        head: Mapping[str, Any],
        shape: Shape,
        first: Mapping[str, Any],
        count: Callable[[], dict[str, Any]],
    ):
        self._choice, self._shape, self._count = choice, shape, count
        self._chunks = wire.Chunks(head, choice.index, shape.usage)
        self._first = first if choice.index == 0 else {}
        self._begun = False
        self._sent_ids = 0

    def write(self, tokens: Sequence[Token]) -> bytes:
        """The events of these tokens, the last of them with the finish reason."""
        if self._shape.plain:
            events = [self._chunks.plain(_delta_json(d, self._choice)) for d in self._choice.feed(tokens)]
        else:
            events = []
            for token in tokens:
                if self._choice.finish is None:
                    events += [self._full(delta) for delta in self._choice.feed([token])]
        if not self._begun:
            self._begun = True
            events.insert(0, self._chunks.full('"delta":{"role":"assistant","content":""}', top=self._first))
        if self._choice.finish is not None:
            events.append(self._end(self._choice.finish))
        return b"".join(events)

    def _full(self, delta: Delta) -> bytes:
        more = self._new_ids()
        if isinstance(delta, ContentDelta) and self._shape.logprobs:
            more["logprobs"] = {"content": self._choice.new_logprobs()}
        return self._chunks.full(_delta_json(delta, self._choice), more=more, top=self._running_usage())

    def _end(self, finish: str) -> bytes:
        return self._chunks.full('"delta":{}', finish, self._new_ids(), self._running_usage())

    def _new_ids(self) -> dict[str, Any]:
        if not self._shape.token_ids:
            return {}
        ids = self._choice.token_ids[self._sent_ids :]
        self._sent_ids += len(ids)
        return {"token_ids": ids}

    def _running_usage(self) -> dict[str, Any]:
        return {"usage": self._count()} if self._shape.running_usage else {}


def _delta_json(delta: Delta, choice: ChatChoice) -> str:
    match delta:
        case ContentDelta(text):
            return f'"delta":{{"content":{quote(text)}}}'
        case ReasoningDelta(text):
            text = quote(text)
            return f'"delta":{{"reasoning":{text},"reasoning_content":{text}}}'
        case CallStart(index, name):
            call = f'"id":"{choice.calls[index]}","type":"function"'
            function = f'{{"name":{quote(name)},"arguments":""}}'
            return f'"delta":{{"tool_calls":[{{"index":{index},{call},"function":{function}}}]}}'
        case CallDelta(index, arguments):
            function = f'{{"arguments":{quote(arguments)}}}'
            return f'"delta":{{"tool_calls":[{{"index":{index},"function":{function}}}]}}'


@dataclass(slots=True)
class WholeMessage:
    """Deltas, put together."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    arguments: list[list[str]] = field(default_factory=list)

    def add(self, news: Sequence[Delta]) -> None:
        for delta in news:
            match delta:
                case ContentDelta(text):
                    self.content.append(text)
                case ReasoningDelta(text):
                    self.reasoning.append(text)
                case CallStart(_, name):
                    self.names.append(name)
                    self.arguments.append([])
                case CallDelta(index, arguments):
                    self.arguments[index].append(arguments)

    def choice(self, choice: ChatChoice, shape: Shape) -> dict[str, Any]:
        reasoning = "".join(self.reasoning) or None
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self.content) or (None if self.names else ""),
            "refusal": None,
            "reasoning": reasoning,
            "reasoning_content": reasoning,
        }
        if self.names:
            message["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": name, "arguments": "".join(arguments)}}
                for id, name, arguments in zip(choice.calls, self.names, self.arguments, strict=True)
            ]
        whole = {
            "index": choice.index,
            "message": message,
            "logprobs": {"content": choice.new_logprobs()} if shape.logprobs else None,
            "finish_reason": choice.finish,
        }
        return {**whole, "token_ids": choice.token_ids} if shape.token_ids else whole
