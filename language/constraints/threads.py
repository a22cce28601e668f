"""The threads in which constraints are compiled, apart from those that `asyncio.to_thread` shares.

known  specs whose schemas were all checked before: 2 to 15 ms each
new    specs with a schema that must be checked in the sandbox first: up to a second of CPU time each, one at
       a time, because the sandbox checks one schema at a time.  Those of large requests have a thread of
       their own, so that they wait for at most one other: they hold a slot of the preprocessing pool
       meanwhile

So many hostile schemas delay only other new schemas.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from engine.errors import QueueFull
from language.constraints import AnswerConstraint, AnswerSpec, Constraints, NotCheckedYet

KNOWN_THREADS = 2
"""More threads would take cores from the model: they run native code without the GIL."""


class CompilerThreads:
    """max_waiting  specs with new schemas that may wait; more are refused"""

    def __init__(self, constraints: Constraints, max_waiting: int) -> None:
        self._constraints, self._max_waiting = constraints, max_waiting
        self._known = ThreadPoolExecutor(KNOWN_THREADS, "gptoss-constraints")
        self._new = ThreadPoolExecutor(1, "gptoss-new-schemas")
        self._new_of_large = ThreadPoolExecutor(1, "gptoss-large-schemas")
        self._waiting = 0

    async def compile(self, spec: AnswerSpec, *, large: bool = False) -> AnswerConstraint | None:
        """Like `Constraints.compile`.  Raises SchemaError, and QueueFull.

        large  whether the request is large, so that it holds a slot of the preprocessing pool
        """
        loop = asyncio.get_running_loop()
        known = partial(self._constraints.compile, spec, check_new=False)
        try:
            return await loop.run_in_executor(self._known, known)
        except NotCheckedYet:
            pass
        if self._waiting >= self._max_waiting:
            raise QueueFull(self._waiting)
        self._waiting += 1
        try:
            threads = self._new_of_large if large else self._new
            return await loop.run_in_executor(threads, self._constraints.compile, spec)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Running compilations finish; waiting ones are cancelled."""
        for pool in (self._known, self._new, self._new_of_large):
            pool.shutdown(wait=False, cancel_futures=True)
