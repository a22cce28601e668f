"""The choices of an answer: each reads the tokens of one stream; all are merged in order of arrival."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from engine.request import Token
from server.logs import Figures
from server.metrics import Metrics

if TYPE_CHECKING:
    from engine.worker import TokenStream


class TokenReader(Protocol):
    """Reads the tokens of one answer: AnswerReader (answer.py) or TextReader (continuation.py)."""

    token_ids: list[int]
    cached_tokens: int
    finish: str | None

    @property
    def recoveries(self) -> int: ...

    def add(self, token: Token, news: list[Any], /) -> None: ...


R = TypeVar("R", bound=TokenReader)


class Choice(Generic[R]):
    """A stream and its reader.  Counts tokens and times in the request's figures and in the metrics."""

    def __init__(self, index: int, stream: TokenStream, reader: R, figures: Figures, metrics: Metrics):
        self.index, self.stream, self.reader = index, stream, reader
        self.arriving = aiter(stream)
        self._figures, self._metrics = figures, metrics
        self._last_token_at: float | None = None

    @property
    def finish(self) -> str | None:
        """OpenAI's finish reason; None until the answer has ended."""
        return self.reader.finish

    def feed(self, tokens: Sequence[Token]) -> list[Any]:
        """The reader's output for these tokens.  Closes the stream if the answer ends."""
        news: list[Any] = []
        for token in tokens:
            self._count(token)
            self.reader.add(token, news)
            if (reason := self.reader.finish) is not None:
                self._figures.finish.append(reason)
                self._figures.recoveries += self.reader.recoveries
                self.stream.close()
                break
        return news

    def _count(self, token: Token) -> None:
        self._figures.completion_tokens += 1
        now = time.perf_counter()
        if self._last_token_at is not None:
            self._metrics.between_tokens.observe(now - self._last_token_at)
        self._last_token_at = now
        if token.prefill is not None:
            self._figures.cached_tokens += token.prefill.cached_tokens
            self._figures.computed_tokens += token.prefill.computed_tokens
            self._figures.prompt_seconds += token.prefill.seconds
            self._figures.first_token_at = self._figures.first_token_at or now


async def in_order_of_arrival(choices: Sequence[Choice[R]]) -> AsyncIterator[tuple[Choice[R], list[Token]]]:
    """The tokens of all choices, until each has ended."""
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


def _next(choice: Choice[R]) -> asyncio.Task[list[Token] | None]:
    async def tokens() -> list[Token] | None:
        return await anext(choice.arriving, None)

    return asyncio.ensure_future(tokens())
