"""Returns memory that requests have used to the system.

A parsed body or a whole answer consists of many small objects.  When they are freed, the C library keeps
their memory for later ones; after many large requests that is hundreds of megabytes.  So, some time after a
request, if the process has grown, another thread has the C library return free memory, which takes about 30
ms.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WAIT_SECONDS = 5.0
"""Wait after the end of a request; also the minimum time between two trims."""

GROWN_BYTES = 32 * 2**20
"""Minimum growth of resident memory since the last trim."""


class Heap:
    """For one event loop.

    trim      returns free memory to the system; called on a thread.  None: malloc_trim, if there is one
    resident  returns the resident memory of this process, in bytes
    """

    def __init__(
        self, trim: Callable[[], object] | None = None, resident: Callable[[], int] | None = None
    ) -> None:
        self._trim = trim or _malloc_trim()
        self._resident = resident or resident_bytes
        self._after = 0  # resident memory after the last trim
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
    """Resident memory of this process; 0 if unknown."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _malloc_trim() -> Callable[[], object] | None:
    """malloc_trim of glibc; None with other C libraries."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    return lambda: trim(0)
