"""The choices of an answer: what the client wants to see of them, and their token streams as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from engine.request import Token
from language.stops import StopStrings
from server.logs import Figures
from server.metrics import Metrics

if TYPE_CHECKING:
    from engine.worker import TokenStream


@dataclass(frozen=True, slots=True)
class Shape:
    """What the client wants to see of an answer.

    running_usage  counts on every chunk, not only at the end
    """

    stop: tuple[str, ...] = ()
    logprobs: bool = False
    token_ids: bool = False
    usage: bool = False
    running_usage: bool = False

    @property
    def plain(self) -> bool:
        """Whether chunks carry only what was said, so that tokens that arrived together may share one."""
        return not (self.logprobs or self.token_ids or self.running_usage)


class Choice:
    """What is known of one choice while it grows.

    finish  why it ended, in OpenAI's words; None while it has not
    """

    def __init__(
        self, index: int, stream: TokenStream, stop: Sequence[str], figures: Figures, metrics: Metrics
    ):
        self.index, self.stream, self.stops = index, stream, StopStrings(stop)
        self.arriving = aiter(stream)
        self.token_ids: list[int] = []
        self.cached_tokens = 0
        self.finish: str | None = None
        self._figures, self._metrics = figures, metrics
        self._last_token_at: float | None = None

    def count(self, token: Token) -> None:
        """Take note of a token: of its number, not of its meaning."""
        self.token_ids.append(token.id)
        self._figures.completion_tokens += 1
        now = time.perf_counter()
        if self._last_token_at is not None:
            self._metrics.between_tokens.observe(now - self._last_token_at)
        self._last_token_at = now
        if token.prefill is not None:
            self.cached_tokens = token.prefill.cached_tokens
            self._figures.cached_tokens += self.cached_tokens
            self._figures.first_token_at = self._figures.first_token_at or now

    def end(self, reason: str) -> None:
        self.finish = reason
        self._figures.finish.append(reason)
        self.stream.close()


AnyChoice = TypeVar("AnyChoice", bound=Choice)


async def as_they_come(choices: Sequence[AnyChoice]) -> AsyncIterator[tuple[AnyChoice, list[Token]]]:
    """The tokens of all choices, in order of arrival, until each has ended."""
    if len(choices) == 1:
        async for tokens in choices[0].arriving:
            yield choices[0], tokens
            if choices[0].finish is not None:
                return
        return
    waiting = {_next(choice): choice for choice in choices}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                choice = waiting.pop(task)
                arrived = task.result()
                if arrived is None:
                    continue
                yield choice, arrived
                if choice.finish is None:
                    waiting[_next(choice)] = choice
    finally:
        for task in waiting:
            task.cancel()


def _next(choice: Choice) -> asyncio.Task[list[Token] | None]:
    async def tokens() -> list[Token] | None:
        return await anext(choice.arriving, None)

    return asyncio.ensure_future(tokens())
