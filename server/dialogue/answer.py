"""Turns the tokens of a chat answer into deltas: reasoning, content and calls, as the client may see them.

Knows no JSON: each API writes the deltas in its own format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal
from uuid import uuid4

from engine.request import Finish, Logprob, Token
from language.harmony.messages import Conversation
from language.harmony.reader import CallDelta, CallStart, ContentDelta, Delta, Reader, ReasoningDelta
from language.harmony.render import Renderer
from language.stops import StopStrings
from server.dialogue.logprobs import HeldUntilShown
from server.dialogue.turn import Turn

Keep = Callable[[str, Sequence[int]], None]
"""Called with the id of a call and all tokens that were sampled up to it."""


class AnswerReader:
    """One answer: tokens → deltas, up to a stop string.

    token_ids         all sampled tokens
    cached_tokens     prompt tokens that were in the prefix cache
    prompt_logprobs   log-probabilities of the prompt's tokens, if they were requested
    finish            OpenAI's finish reason; None until the answer has ended
    calls             ids of the calls so far
    reasoning_tokens  number of tokens in chains of thought
    thoughts          the tokens of each complete chain of thought: consecutive harmony messages that were
                      shown as reasoning, without the first `<|start|>assistant`
    """

    def __init__(
        self, turn: Turn, renderer: Renderer, keep: Keep | None = None, *, shows_reasoning: bool = True
    ):
        tokenizer = renderer.tokenizer
        tools = turn.prompt.tools if isinstance(turn.prompt, Conversation) else ()
        self._reader = Reader(tokenizer, turn.prefilled_channel, tools)
        self._stops = StopStrings(turn.stop, keep=turn.keep_stop)
        self._stop_tokens = renderer.stop_tokens
        self._call = tokenizer.special("<|call|>")
        self._start = tokenizer.special("<|start|>")
        self._special = frozenset(tokenizer.specials.values())
        self._names, self._keep, self._shows_reasoning = turn.names, keep, shows_reasoning
        self._logprobs: HeldUntilShown[tuple[int, Logprob]] = HeldUntilShown()
        self._channel: Literal["commentary", "final"] = "final"  # channel of the latest content
        self._content_length = self._shown_length = 0
        self.token_ids: list[int] = []
        self.cached_tokens = 0
        self.prompt_logprobs: Sequence[Logprob | None] | None = None
        self.finish: str | None = None
        self.calls: list[str] = []
        self.reasoning_tokens = 0
        self.thoughts: list[Sequence[int]] = []
        self._message_at = 0  # index in `token_ids` of the current harmony message
        self._thought_at: int | None = None  # index of the incomplete chain of thought

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer, if one did."""
        return self._stops.found

    @property
    def recoveries(self) -> int:
        """Number of deviations from the harmony format that were repaired."""
        return self._reader.recoveries

    def feed(self, tokens: Sequence[Token]) -> list[Delta]:
        """The deltas of these tokens, adjacent ones of one kind joined.  Sets `finish` if the answer ends."""
        news: list[Delta] = []
        for token in tokens:
            self.add(token, news)
            if self.finish is not None:
                break
        return news

    def add(self, token: Token, news: list[Delta]) -> None:
        """Append the deltas of `token` to `news`.  Sets `finish` if the answer ends."""
        if token.id == self._start:
            self._message_at = len(self.token_ids)
        self.token_ids.append(token.id)
        if token.prefill is not None:
            self.cached_tokens = token.prefill.cached_tokens
            self.prompt_logprobs = token.prefill.logprobs
        for delta in self._read(token):
            self._show(delta, news)
            if self._stops.stopped:
                self._end("stop")
                return
        if token.finish is not None:
            self._append(self._held_back(), news)
            calls = self.calls and token.finish is Finish.STOP
            self._end("tool_calls" if calls else token.finish.value)

    def new_logprobs(self) -> list[tuple[int, Logprob]]:
        """Token ids and log-probabilities of the visible text since the last call."""
        return self._logprobs.take(self._shown_length)

    def _end(self, reason: str) -> None:
        self.finish = reason
        self._end_thought(len(self.token_ids))
        if self._keep is not None and len(self.calls) == 1 and self.token_ids[-1] == self._call:
            self._keep(self.calls[0], self.token_ids)

    def _read(self, token: Token) -> list[Delta]:
        """The deltas of one token; for the last token also those that the reader held back.

        A stop token of the client ends the answer and is not part of it.
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
                self._logprobs.add(self._content_length, (token.id, token.logprob))
            self._content_length += sum(len(each.text) for each in deltas if isinstance(each, ContentDelta))
        return deltas

    def _show(self, delta: Delta, news: list[Delta]) -> None:
        """Append to `news` what the client may see of `delta` now."""
        if isinstance(delta, ContentDelta):
            if delta.channel != self._channel:
                self._append(self._held_back(), news)
                self._channel = delta.channel
            self._append(replace(delta, text=self._stops.feed(delta.text)), news)
            return
        self._append(self._held_back(), news)  # a stop string does not span a call
        if isinstance(delta, CallStart):
            name = self._names.to_client(delta.name)
            delta = CallStart(delta.index, name.name, name.namespace)
            self.calls.append(f"call_{uuid4().hex}")
        if self._shows_reasoning or not isinstance(delta, ReasoningDelta):
            self._append(delta, news)

    def _held_back(self) -> ContentDelta:
        return ContentDelta(self._stops.flush(), self._channel)

    def _end_thought(self, end: int) -> None:
        if self._thought_at is not None:
            self.thoughts.append(self.token_ids[self._thought_at : end])
            self._thought_at = None

    def _append(self, delta: Delta, news: list[Delta]) -> None:
        last = news[-1] if news else None
        if isinstance(delta, ReasoningDelta):
            if self._thought_at is None:
                self._thought_at = self._message_at
        elif not isinstance(delta, ContentDelta) or delta.text:
            self._end_thought(self._message_at)
        if isinstance(delta, ContentDelta):
            self._shown_length += len(delta.text)
            if isinstance(last, ContentDelta) and last.channel == delta.channel:
                news[-1] = ContentDelta(last.text + delta.text, last.channel)
            elif delta.text:
                news.append(delta)
        elif isinstance(delta, ReasoningDelta) and isinstance(last, ReasoningDelta):
            news[-1] = ReasoningDelta(last.text + delta.text)
        elif isinstance(delta, CallDelta) and isinstance(last, CallDelta) and last.index == delta.index:
            news[-1] = CallDelta(delta.index, last.arguments + delta.arguments)
        else:
            news.append(delta)
