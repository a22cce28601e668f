"""The response to a chat request: deltas → chunks, or deltas → one object.

Both are made from the same deltas, so the chunks of a stream add up to the whole answer.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.request import Token
from language.harmony.reader import CallDelta, CallStart, ContentDelta, Delta, ReasoningDelta
from server.api import chunks
from server.api.logprobs import chat_entry, prompt_entries
from server.api.shared_fields import View
from server.dialogue.answer import AnswerReader
from server.dialogue.begin import Begun
from server.dialogue.choices import Choice, in_order_of_arrival
from server.logs import Figures
from server.service import Service
from server.sse import event, quote
from server.streaming import OpenAIStream

if TYPE_CHECKING:
    from engine.worker import TokenStream

ChatChoice = Choice[AnswerReader]

REASONING_FIELDS = {
    "both": ("reasoning", "reasoning_content"),
    "reasoning": ("reasoning",),
    "reasoning_content": ("reasoning_content",),
}
"""Setting `reasoning_field` → names of the field for the chain of thought."""


class ChatAnswer(OpenAIStream):
    """All choices of the answer to a request.

    echoed  text that the content of each choice begins with
    """

    def __init__(
        self,
        id: str,
        begun: Begun,
        view: View,
        shows_reasoning: bool,
        service: Service,
        figures: Figures,
        echoed: str = "",
    ):
        self.streams: Sequence[TokenStream] = begun.streams
        self._echoed = echoed
        self._reasoning = REASONING_FIELDS[service.settings.reasoning_field]
        self.figures = figures
        self._prompt, self._view, self._tokenizer = begun.prompt, view, service.tokenizer
        self._choices = [
            Choice(
                i,
                stream,
                AnswerReader(
                    begun.turn,
                    service.renderer,
                    partial(service.reasoning_cache.keep, begun.caller),
                    shows_reasoning=shows_reasoning,
                ),
                figures,
                service.metrics,
            )
            for i, stream in enumerate(begun.streams)
        ]
        self._messages = [WholeMessage([self._echoed] if self._echoed else []) for _ in self._choices]
        self._head = {
            "id": id,
            "created": int(time.time()),
            "model": service.model_id,
            "system_fingerprint": service.fingerprint,
        }

    async def events(self) -> AsyncIterator[bytes]:
        head = {**self._head, "object": "chat.completion.chunk"}
        first = {"prompt_token_ids": self._prompt} if self._view.token_ids else {}
        writers = [
            ChunkWriter(
                choice,
                head,
                self._view,
                first,
                self.usage,
                self._logprobs,
                echoed=self._echoed,
                reasoning=self._reasoning,
            )
            for choice in self._choices
        ]
        async for choice, tokens in in_order_of_arrival(self._choices):
            if news := writers[choice.index].write(tokens):
                yield news
        if self._view.usage:
            yield event({**head, "choices": [], "usage": self.usage()})

    async def gather(self) -> None:
        async for choice, tokens in in_order_of_arrival(self._choices):
            self._messages[choice.index].add(choice.feed(tokens))

    def whole(self) -> dict[str, Any]:
        choices = [
            self._whole_choice(choice, message)
            for choice, message in zip(self._choices, self._messages, strict=True)
        ]
        answer = {**self._head, "object": "chat.completion", "choices": choices, "usage": self.usage()}
        if self._view.prompt_logprobs:
            prompt_logprobs = self._choices[0].reader.prompt_logprobs
            answer["prompt_logprobs"] = prompt_entries(self._tokenizer, self._prompt, prompt_logprobs)
        return {**answer, "prompt_token_ids": self._prompt} if self._view.token_ids else answer

    def usage(self) -> dict[str, Any]:
        readers = [choice.reader for choice in self._choices]
        return chunks.usage(
            prompt=len(self._prompt),
            cached=max(reader.cached_tokens for reader in readers),
            completion=sum(len(reader.token_ids) for reader in readers),
            reasoning=sum(reader.reasoning_tokens for reader in readers),
        )

    def _whole_choice(self, choice: ChatChoice, message: WholeMessage) -> dict[str, Any]:
        whole = {
            "index": choice.index,
            "message": message.json(choice.reader.calls, self._reasoning),
            "logprobs": {"content": self._logprobs(choice)} if self._view.logprobs else None,
            "finish_reason": choice.finish,
        }
        return {**whole, "token_ids": choice.reader.token_ids} if self._view.token_ids else whole

    def _logprobs(self, choice: ChatChoice) -> list[dict[str, Any]]:
        """Log-probabilities of the visible text since the last call."""
        new = choice.reader.new_logprobs()
        return [chat_entry(self._tokenizer, id, each, self._view.ids_as_tokens) for id, each in new]


class ChunkWriter:
    """The chunks of one choice.

    first     fields of the first chunk of the answer
    count     returns the usage so far
    logprobs  returns a choice's log-probabilities since the last call
    echoed     text that the content begins with
    reasoning  names of the field for the chain of thought
    """

    def __init__(
        self,
        choice: ChatChoice,
        head: Mapping[str, Any],
        view: View,
        first: Mapping[str, Any],
        count: Callable[[], dict[str, Any]],
        logprobs: Callable[[ChatChoice], list[dict[str, Any]]],
        *,
        echoed: str = "",
        reasoning: Sequence[str] = REASONING_FIELDS["both"],
    ):
        self._choice, self._view, self._count, self._logprobs = choice, view, count, logprobs
        self._chunks = chunks.Chunks(head, choice.index, view.usage)
        self._first = first if choice.index == 0 else {}
        self._begun = False
        self._echoed, self._reasoning = echoed, reasoning
        self._sent_ids = 0

    def write(self, tokens: Sequence[Token]) -> bytes:
        """The events of these tokens, the last of them with the finish reason."""
        calls = self._choice.reader.calls
        if self._view.text_only:
            events = [
                self._chunks.unfinished(_delta_json(each, calls, self._reasoning))
                for each in self._choice.feed(tokens)
            ]
        else:
            events = []
            for token in tokens:
                if self._choice.finish is None:
                    events += [self._full(delta) for delta in self._choice.feed([token])]
        if not self._begun:
            self._begun = True
            events.insert(0, self._chunks.full('"delta":{"role":"assistant","content":""}', top=self._first))
            if self._echoed:
                events.insert(1, self._chunks.unfinished(_delta_json(ContentDelta(self._echoed), calls, ())))
        if self._choice.finish is not None:
            events.append(self._end(self._choice.finish))
        return b"".join(events)

    def _full(self, delta: Delta) -> bytes:
        more = self._new_ids()
        if isinstance(delta, ContentDelta) and self._view.logprobs:
            more["logprobs"] = {"content": self._logprobs(self._choice)}
        news = _delta_json(delta, self._choice.reader.calls, self._reasoning)
        return self._chunks.full(news, more=more, top=self._running_usage())

    def _end(self, finish: str) -> bytes:
        return self._chunks.full('"delta":{}', finish, self._new_ids(), self._running_usage())

    def _new_ids(self) -> dict[str, Any]:
        if not self._view.token_ids:
            return {}
        ids = self._choice.reader.token_ids[self._sent_ids :]
        self._sent_ids += len(ids)
        return {"token_ids": ids}

    def _running_usage(self) -> dict[str, Any]:
        return {"usage": self._count()} if self._view.running_usage else {}


def _delta_json(delta: Delta, calls: Sequence[str], reasoning: Sequence[str]) -> str:
    """
    calls      ids of the calls so far, including this one
    reasoning  names of the field for the chain of thought
    """
    match delta:
        case ContentDelta(text):
            return f'"delta":{{"content":{quote(text)}}}'
        case ReasoningDelta(text):
            text = quote(text)
            return f'"delta":{{{",".join(f"{chr(34)}{name}{chr(34)}:{text}" for name in reasoning)}}}'
        case CallStart(index, name):
            call = f'"id":"{calls[index]}","type":"function"'
            function = f'{{"name":{quote(name)},"arguments":""}}'
            return f'"delta":{{"tool_calls":[{{"index":{index},{call},"function":{function}}}]}}'
        case CallDelta(index, arguments):
            function = f'{{"arguments":{quote(arguments)}}}'
            return f'"delta":{{"tool_calls":[{{"index":{index},"function":{function}}}]}}'


@dataclass(slots=True)
class WholeMessage:
    """Collects deltas into a complete message."""

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

    def json(self, calls: Sequence[str], reasoning: Sequence[str]) -> dict[str, Any]:
        """
        calls      ids of the calls
        reasoning  names of the field for the chain of thought
        """
        thought = "".join(self.reasoning) or None
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self.content) or (None if self.names else ""),
            "refusal": None,
            **dict.fromkeys(reasoning, thought),
        }
        if self.names:
            message["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": name, "arguments": "".join(arguments)}}
                for id, name, arguments in zip(calls, self.names, self.arguments, strict=True)
            ]
        return message
