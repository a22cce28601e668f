"""Returns memory that requests have used to the system.

A parsed body or a whole answer consists of many small objects.  When they are freed, the C library keeps
their memory for later ones; after many large requests that is hundreds of megabytes.  So, some time after a
request, if more memory is resident that nothing uses, another thread has the C library return it, which takes
about 30 ms.
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
"""Minimum growth, since the last trim, of resident memory that malloc has not given out."""


class Heap:
    """For one event loop.  Both functions are called on a thread.

    trim    returns free memory to the system.  None: malloc_trim, if there is one
    unused  returns the resident memory that malloc has not given out, in bytes
    """

    def __init__(
        self, trim: Callable[[], object] | None = None, unused: Callable[[], int] | None = None
    ) -> None:
        self._trim = trim or _malloc_trim()
        self._unused = unused or unused_bytes
        self._least: int | None = None  # unused memory after the last trim, or the least that was seen since
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
        asyncio.get_running_loop().run_in_executor(None, self._give_back)

    def _give_back(self) -> None:
        assert self._trim is not None
        unused = self._unused()
        if self._least is None or unused >= self._least + GROWN_BYTES:
            self._trim()
            self._least = self._unused()
        else:
            self._least = min(self._least, unused)


def unused_bytes() -> int:
    """Resident memory less what malloc has given out.  May be negative: what was given out but never written
    is not resident.
    """
    return resident_bytes() - allocated_bytes()


def resident_bytes() -> int:
    """Resident memory of this process; 0 if unknown."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


class _Mallinfo2(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


def allocated_bytes() -> int:
    """Bytes that malloc has given out; 0 with other C libraries, and glibc before 2.33."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)  # in its arenas, and mapped alone


def _malloc_trim() -> Callable[[], object] | None:
    """malloc_trim of glibc; None with other C libraries."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    return lambda: trim(0)
