"""The threads in which constraints are compiled, apart from those that `asyncio.to_thread` shares.

familiar  every schema has been tried before: 2-15 ms each
strange   a schema meets the rehearsal first: up to a second of CPU each, and one at a time, since there they
          take turns anyway

So a flood of hostile schemas delays schemas that are new here, and nothing else.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from engine.errors import QueueFull
from language.constraints import AnswerConstraint, AnswerSpec, Constraints, Untried

FAMILIAR_THREADS = 2
"""More would take the cores from the model: most of what they do is native code."""


class CompilerThreads:
    """max_waiting  strange specs that may wait; more are refused"""

    def __init__(self, constraints: Constraints, max_waiting: int) -> None:
        self._constraints, self._max_waiting = constraints, max_waiting
        self._familiar = ThreadPoolExecutor(FAMILIAR_THREADS, "gptoss-constraints")
        self._strange = ThreadPoolExecutor(1, "gptoss-new-schemas")
        self._waiting = 0

    async def compile(self, spec: AnswerSpec) -> AnswerConstraint | None:
        """As `Constraints.compile`.  Raises SchemaError, and QueueFull."""
        loop = asyncio.get_running_loop()
        familiar = partial(self._constraints.compile, spec, rehearse=False)
        try:
            return await loop.run_in_executor(self._familiar, familiar)
        except Untried:
            pass
        if self._waiting >= self._max_waiting:
            raise QueueFull(self._waiting)
        self._waiting += 1
        try:
            return await loop.run_in_executor(self._strange, self._constraints.compile, spec)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """What is being compiled ends by itself; what waits is cancelled."""
        for pool in (self._familiar, self._strange):
            pool.shutdown(wait=False, cancel_futures=True)
