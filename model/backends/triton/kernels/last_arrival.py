"""The last program of several to be done sees what all of them have stored, and goes on with it: what would
otherwise be one more kernel.

Each program stores its part, and then counts itself among the arrivals.  The count is an atomic operation
that releases what its program has stored to those who count later, and acquires what those before have
stored.  Who is last depends on the device, what it reads does not: sums are added up in a fixed order, so
bits stay the same.  The last one sets the count back to zero, for the next launch.

CUDA programming guide, "Memory fence functions", has the same sum over blocks as its example; PTX manual,
"Memory consistency model"."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def arrives_last(arrivals, programs):
    """Whether this program is the last of `programs` that count at the pointer `arrivals`: there is 0 before
    the first and after the last."""
    tl.debug_barrier()  # one thread counts, and what all threads have stored must come before
    last = tl.atomic_add(arrivals, 1, sem="acq_rel") == programs - 1
    if last:
        tl.atomic_xchg(arrivals, 0, sem="relaxed")
    return last
