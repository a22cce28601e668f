"""How the device's memory is shared out: weights, keys and values, and room to work in.

Full layers keep every page of a sequence, banded ones only those of the last `window` positions.  So a token
of context costs its share of one page, half of what it would if all layers kept everything; the banded pages
add a constant for each running sequence.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from engine.pages import Pages

GIB = 2**30


class TooLittleMemory(Exception):
    """The model does not fit, or has no room to work in.  One line that says what would."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What the memory is for, in bytes, and what fits into it.

    num_pages        of the KV cache
    page_bytes       of one page: `page_size` positions in all the layers of one kind
    weights          held already, or about to be
    workspace        left for the intermediate results of a step
    available        before any of this
    context_tokens   of one sequence, if it had the whole cache
    """

    num_pages: int
    page_size: int
    page_bytes: int
    weights: int
    workspace: int
    available: int
    context_tokens: int

    @property
    def keys_and_values(self) -> int:
        return self.num_pages * self.page_bytes

    @property
    def bytes_per_token(self) -> int:
        """Of context: what the full layers keep."""
        return self.page_bytes // self.page_size

    def __str__(self) -> str:
        cache = (
            f"{self.num_pages} pages of {self.page_size} positions, {self.context_tokens} tokens of context"
        )
        return (
            f"memory: {_size(self.weights)} weights + {_size(self.keys_and_values)} keys and values"
            f" + {_size(self.workspace)} workspace, of {_size(self.available)} available\n"
            f"cache: {cache} at {self.bytes_per_token / 1000:.1f} kB each"
        )


def plan(
    weights: int,
    page_bytes: int,
    page_size: int,
    window: int,
    available_bytes: int,
    *,
    max_context: int,
    max_running: int,
    workspace_bytes: int = GIB,
    kv_bytes: int | None = None,
    fraction: float = 0.9,
) -> MemoryPlan:
    """Choose the size of the KV cache.  Raises TooLittleMemory if not even one page of each kind fits.

    weights          bytes still to be taken from what is available: 0 if they are loaded
    page_bytes       of one page, which holds page_size positions in all the layers of one kind
    window           positions that banded layers keep
    available_bytes  of the device, or what is left of them
    kv_bytes         for keys and values; None: `fraction` of what weights and workspace leave, but no more
                     than `max_running` sequences of `max_context` tokens could use
    """
    left = available_bytes - weights - workspace_bytes
    if kv_bytes is None:
        most = max_running * Pages(0, page_size, window).needed(max_context)
        num_pages = min(most, int(max(0, left) * fraction) // page_bytes)
    else:
        num_pages = kv_bytes // page_bytes
    if num_pages < 2 or num_pages * page_bytes > left:
        asked = 2 * page_bytes if kv_bytes is None else kv_bytes
        raise TooLittleMemory(
            f"{_size(available_bytes)} of memory are available, but {_size(weights)} are needed for weights,"
            f" {_size(workspace_bytes)} for workspace and {_size(asked)} for keys and values"
        )
    context_tokens = min(max_context, Pages(num_pages, page_size, window).capacity)
    return MemoryPlan(
        num_pages, page_size, page_bytes, weights, workspace_bytes, available_bytes, context_tokens
    )


def free_host_bytes() -> int:
    """Memory this process can still take without swapping: what the machine has, or its control group allows.

    Linux: MemAvailable of /proc/meminfo, and cgroup v2's memory.max less memory.current; elsewhere all of it.
    """
    try:
        with open("/proc/meminfo") as lines:
            facts = dict(line.split(":", 1) for line in lines)
        free = int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            return min(free, int(limit.read()) - int(used.read()))
    except (OSError, ValueError):  # no control group, or no limit: "max"
        return free


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
