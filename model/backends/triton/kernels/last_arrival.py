"""The last of several programs to finish continues with the results of all of them, which saves another
kernel.

Each program stores its result, and then increments a counter.  The increment is an atomic operation with
release and acquire semantics: the program that counts last can read what all others have stored.  Which
program is last depends on the device, but the result does not: it adds in a fixed order, so the sum is
bit-identical.  The last program sets the counter back to zero for the next launch.

CUDA programming guide, "Memory fence functions", has such a sum over blocks as its example; PTX manual,
"Memory consistency model".
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def arrives_last(arrivals, programs):
    """Whether this program is the last of `programs` that increment the counter at the pointer `arrivals`,
    which is 0 before the first and after the last.
    """
    tl.debug_barrier()  # one thread increments, and only after the stores of all threads
    last = tl.atomic_add(arrivals, 1, sem="acq_rel") == programs - 1
    if last:
        tl.atomic_xchg(arrivals, 0, sem="relaxed")
    return last
