"""How the device's memory is divided: weights, KV cache, and workspace for a step.

Full layers keep every page of a sequence, banded (sliding-window) layers only those of the last `window`
positions.  So a token of context takes half of the memory that it would take if all layers kept everything.
The banded pages add a constant for each running sequence.

If the pages of both kinds of layer have the same size, they share one pool.  Otherwise (with an 8-bit cache,
banded layers stay in bfloat16) a fixed number of banded pages is reserved: those that each running sequence
needs for its window, and as many again for prefixes in the cache, but at most an eighth of the memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from engine.pages import Pages
from model.batch import BANDED, FULL, PerKind, bytes_of
from model.byte_sizes import format_bytes

GIB = 2**30

BANDED_SHARE = 8
"""If banded pages have their own pool, it gets at most the memory divided by this number."""


class TooLittleMemory(Exception):
    """The model, or the requested KV cache, does not fit.  The message is one line with the sizes."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How the memory is divided, and how much fits.

    num_pages        pages of the KV cache; two numbers if each kind has its own pool: banded, full
    page_bytes       bytes of one page: `page_size` positions in all layers of one kind; one number or two
    weights          bytes of weights, loaded or not
    workspace        bytes for the intermediate results of a step
    available        bytes before weights, cache and workspace are taken
    context_tokens   length of one sequence that has the whole cache
    """

    num_pages: PerKind
    page_size: int
    page_bytes: PerKind
    weights: int
    workspace: int
    available: int
    context_tokens: int

    @property
    def keys_and_values(self) -> int:
        return bytes_of(self.num_pages, self.page_bytes)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token of context, in the full layers."""
        full = self.page_bytes if isinstance(self.page_bytes, int) else self.page_bytes[FULL]
        return full // self.page_size

    def __str__(self) -> str:
        pages = f"{self.num_pages} pages of {self.page_size} positions"
        if isinstance(self.num_pages, tuple):
            banded, full = self.num_pages
            pages = f"{full} pages of {self.page_size} positions for full layers, {banded} for banded ones"
        cache = f"{pages}, {self.context_tokens} tokens of context"
        return (
            f"memory: {format_bytes(self.weights)} weights"
            f" + {format_bytes(self.keys_and_values)} keys and values"
            f" + {format_bytes(self.workspace)} workspace, of {format_bytes(self.available)} available\n"
            f"cache: {cache} at {format_bytes(self.bytes_per_token)} each"
        )


def plan(
    weights: int,
    page_bytes: PerKind,
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
    page_bytes       of one page: page_size positions in all the layers of one kind; two numbers if the kinds
                     differ: banded, full
    window           positions that banded layers keep
    available_bytes  of the device, or what is left of them
    kv_bytes         size of the KV cache; None: `fraction` of what weights and workspace leave, but no more
                     than `max_running` sequences of `max_context` tokens could use
    """
    left = available_bytes - weights - workspace_bytes
    budget = int(max(0, left) * fraction) if kv_bytes is None else kv_bytes
    one = Pages(0, page_size, window).needed_of_each(max_context)
    num_pages = _num_pages(budget, page_bytes, one, max_running, cap_to_running=kv_bytes is None)
    if num_pages is None or bytes_of(num_pages, page_bytes) > left:
        least = 2 * page_bytes if isinstance(page_bytes, int) else bytes_of((one[BANDED], 1), page_bytes)
        asked = least if kv_bytes is None else kv_bytes
        raise TooLittleMemory(
            f"{format_bytes(available_bytes)} of memory are available,"
            f" but {format_bytes(weights)} are needed for weights,"
            f" {format_bytes(workspace_bytes)} for workspace and {format_bytes(asked)} for keys and values"
        )
    context_tokens = min(max_context, Pages(num_pages, page_size, window).capacity)
    return MemoryPlan(
        num_pages, page_size, page_bytes, weights, workspace_bytes, available_bytes, context_tokens
    )


def _num_pages(
    budget: int, page_bytes: PerKind, one: tuple[int, int], max_running: int, cap_to_running: bool
) -> PerKind | None:
    """As many pages as `budget` bytes hold; None if they do not hold one of each kind.

    one             what one sequence needs of each kind
    cap_to_running  take no more than `max_running` sequences could use
    """
    most = max_running * one[FULL]
    if isinstance(page_bytes, int):
        fit = budget // page_bytes
        if cap_to_running:
            fit = min(fit, most + max_running * one[BANDED])
        return fit if fit >= 2 else None
    banded_bytes, full_bytes = page_bytes
    banded = max(one[BANDED], budget // BANDED_SHARE // banded_bytes)
    banded = min(banded, 2 * max_running * one[BANDED])
    fit = (budget - banded * banded_bytes) // full_bytes
    return None if fit < 1 else (banded, min(fit, most) if cap_to_running else fit)


def free_host_bytes() -> int:
    """Memory this process can still take without swapping, on this machine and in its control group.

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
