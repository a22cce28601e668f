"""Parses, renders and tokenises large bodies: a few at a time, callers in turn; the others wait unparsed.

At most SLOTS large bodies are in memory as objects at once (a parsed body takes many times its bytes), and at
most SLOTS threads tokenise.  The tokenizer computes without the GIL, so the event loop continues meanwhile.

    async with pool.slot(caller):            # QueueFull if too many wait; a client that left is skipped
        pool.mark_slot_held()
        prompt = await pool.run(tokenizer.encode, text)
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from engine.errors import QueueFull
from engine.fairness import Rounds, Shares
from model.device import physical_cores

MAX_SLOTS = 2
SLOTS = max(1, min(MAX_SLOTS, physical_cores() - 1))
"""Large bodies that are preprocessed at the same time: one on two cores, which the engine needs too."""

REST = 3
"""After a body its slot stays empty for so many times as long as threads worked on it.  Much of that work
holds the GIL: without a rest, a queue of large bodies would take most of the interpreter from the streams."""

SHORTEST_REST, LONGEST_REST = 0.01, 1.0
"""Seconds.  A shorter rest is left out, and a longer one ends then."""

P = ParamSpec("P")
T = TypeVar("T")

_slot_held: ContextVar[bool] = ContextVar("holds_slot", default=False)


@dataclass(order=True, slots=True)
class _Waiting:
    round: int
    number: int
    granted: asyncio.Future[None] = field(compare=False)


class PreprocessingPool:
    """For one event loop."""

    def __init__(self, max_waiting: int, callers: int = 1):
        """
        max_waiting  requests that may wait for a slot
        callers      how many different callers there can be, who share the places in the queue
        """
        self._pool = ThreadPoolExecutor(SLOTS, "gptoss-preprocess")
        self._free = SLOTS
        self._worked = 0.0  # seconds of threads since a slot became free
        self._waiting: list[_Waiting] = []
        self._rounds, self._shares = Rounds(), Shares(max_waiting, callers)
        self._number = 0

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a slot."""
        return len(self._waiting)

    @property
    def holds_slot(self) -> bool:
        """Whether this task, or its parent, holds a slot."""
        return _slot_held.get()

    @staticmethod
    def mark_slot_held() -> None:
        """From now on `run` uses the slot that this task holds, instead of waiting for one."""
        _slot_held.set(True)

    @staticmethod
    @contextmanager
    def slot_held() -> Iterator[None]:
        """The same, for the length of the block."""
        token = _slot_held.set(True)
        try:
            yield
        finally:
            _slot_held.reset(token)

    @asynccontextmanager
    async def slot(self, caller: str = "") -> AsyncIterator[None]:
        """Wait for a slot, and hold it for the length of the block.  Raises QueueFull."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(caller)
        try:
            yield
        finally:
            rest, self._worked = min(REST * self._worked, LONGEST_REST), 0.0
            if rest > SHORTEST_REST:
                asyncio.get_running_loop().call_later(rest, self._next)
            else:
                self._next()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, computed on a thread.  Waits for a slot unless this task holds one.

        A running function cannot be interrupted: if cancelled, this waits for it before it frees the slot.
        """
        if not self.holds_slot:
            async with self.slot():
                return await self._run(function, *args, **kwargs)
        return await self._run(function, *args, **kwargs)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()

        def work() -> T:
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._worked += time.thread_time() - began

        computing = loop.run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(computing)
        except asyncio.CancelledError:
            await asyncio.wait([computing])
            if not computing.cancelled():
                computing.exception()  # retrieved, so that asyncio does not log it: the caller has gone
            raise

    def close(self) -> None:
        """Running functions finish; waiting ones are cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _wait(self, caller: str) -> None:
        if self._shares.refuses(caller):
            raise QueueFull(len(self._waiting))
        self._number += 1
        granted = asyncio.get_running_loop().create_future()
        waiter = _Waiting(self._rounds.join(caller), self._number, granted)
        insort(self._waiting, waiter)
        self._shares.take(caller)
        try:
            await granted
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not granted.cancelled():
                self._next()  # the slot was granted to this request, which does not use it
            raise
        finally:
            self._shares.give_back(caller)

    def _next(self) -> None:
        """Give the slot that became free to the next waiting request."""
        while self._waiting:
            waiter = self._waiting.pop(0)
            if not waiter.granted.done():  # otherwise it has been cancelled
                self._rounds.serve(waiter.round)
                waiter.granted.set_result(None)
                return
        self._free += 1
