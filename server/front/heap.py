"""Gives memory that requests have left behind back to the system.

A parsed body or a whole answer is many small objects.  When they are gone, the C library keeps their memory
for the next ones; after a flood that is hundreds of megabytes.  So a while after a request it is asked to
give back what is free, if the process has grown: some 30 ms of a thread, which nobody waits for.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WAIT_SECONDS = 5.0
"""From the end of a request; while more come, memory is given back so often at most."""

GROWN_BYTES = 32 * 2**20
"""Resident memory that must have been added since the last time."""


class Heap:
    """For one event loop.

    trim      gives free memory back; called on a thread.  None: the C library cannot do it
    resident  the memory of this process, bytes
    """

    def __init__(
        self, trim: Callable[[], object] | None = None, resident: Callable[[], int] | None = None
    ) -> None:
        self._trim = trim or _malloc_trim()
        self._resident = resident or resident_bytes
        self._after = 0  # resident when memory was given back
        self._timer: asyncio.TimerHandle | None = None

    def was_used(self) -> None:
        """A request has ended."""
        if self._timer is None and self._trim is not None:
            self._timer = asyncio.get_running_loop().call_later(WAIT_SECONDS, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._resident() >= self._after + GROWN_BYTES:
            asyncio.get_running_loop().run_in_executor(None, self._give_back)

    def _give_back(self) -> None:
        assert self._trim is not None
        self._trim()
        self._after = self._resident()


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _malloc_trim() -> Callable[[], object] | None:
    """glibc's; other C libraries have none."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    return lambda: trim(0)
