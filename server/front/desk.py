"""Where large bodies become prompts: a few at a time, each caller in turn, and the rest waits outside.

A large body is parsed, rendered and tokenised at a seat.  So never more than SEATS of them are in memory as
objects, which take many times their bytes, and never more than SEATS threads tokenise.  The tokenizer
computes without the GIL, so the event loop goes on meanwhile.

    async with desk.seat(caller):            # QueueFull if too many wait; who leaves while waiting is skipped
        desk.sit_down()
        prompt = await desk.run(tokenizer.encode, text)
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from engine.errors import QueueFull
from engine.fairness import Rounds, Shares

SEATS = 2

P = ParamSpec("P")
T = TypeVar("T")

_seated: ContextVar[bool] = ContextVar("seated", default=False)


@dataclass(order=True, slots=True)
class _Waiter:
    round: int
    number: int
    called: asyncio.Future[None] = field(compare=False)


class Desk:
    """For one event loop."""

    def __init__(self, max_waiting: int, callers: int = 1):
        """
        max_waiting  who may wait for a seat
        callers      how many there can be
        """
        self._pool = ThreadPoolExecutor(SEATS, "gptoss-texts")
        self._free = SEATS
        self._waiting: list[_Waiter] = []
        self._rounds, self._shares = Rounds(), Shares(max_waiting, callers)
        self._number = 0

    @property
    def waiting(self) -> int:
        """How many wait for a seat."""
        return len(self._waiting)

    @property
    def seated(self) -> bool:
        """Whether this task has said that it is at a seat."""
        return _seated.get()

    @staticmethod
    def sit_down() -> None:
        """Say so: until its end, what this task has run is run at the seat that it, or its parent, has."""
        _seated.set(True)

    @asynccontextmanager
    async def seat(self, caller: str = "") -> AsyncIterator[None]:
        """Wait for a seat and have it.  Raises QueueFull."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(caller)
        try:
            yield
        finally:
            self._next()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, computed by a thread; at a seat of its own unless this task has one.

        It ends only with the function, which cannot be interrupted: its seat is not given away before.
        """
        if not self.seated:
            async with self.seat():
                return await self._run(function, *args, **kwargs)
        return await self._run(function, *args, **kwargs)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        computing = loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))
        try:
            return await asyncio.shield(computing)
        except asyncio.CancelledError:
            await asyncio.wait([computing])
            raise

    def close(self) -> None:
        """What is being computed ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _wait(self, caller: str) -> None:
        if self._shares.refuses(caller):
            raise QueueFull(len(self._waiting))
        self._number += 1
        called = asyncio.get_running_loop().create_future()
        waiter = _Waiter(self._rounds.join(caller), self._number, called)
        insort(self._waiting, waiter)
        self._shares.take(caller)
        try:
            await called
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not called.cancelled():
                self._next()  # it had been called, and does not come
            raise
        finally:
            self._shares.give_back(caller)

    def _next(self) -> None:
        """Give a seat that has become free to who is next."""
        while self._waiting:
            waiter = self._waiting.pop(0)
            if not waiter.called.done():  # else it is leaving just now
                self._rounds.serve(waiter.round)
                waiter.called.set_result(None)
                return
        self._free += 1
