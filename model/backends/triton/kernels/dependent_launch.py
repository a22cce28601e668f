"""Programmatic dependent launch: the programs of a kernel begin while those of the previous kernel end.

A decode step of one token has about 150 kernels of a few microseconds.  Between two of them the device
becomes idle, launches, and must start loading from memory again.  From compute capability 9.0 on, a kernel
can be launched before the previous one has ended: its programs start as resources become free, and load their
first weights meanwhile.

For correct results, every program of a kernel that can be launched in this way

    1. before `await_previous`, reads only weights and the step's `Batch`, which is complete before the step's
       first kernel, and writes nothing;
    2. calls `launch_next` and then `await_previous`, in every case: otherwise a later kernel could begin
       before an earlier one has ended.

CUDA programming guide, "Programmatic Dependent Launch and Synchronization".
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

OLDEST = (9, 0)
"""Minimum compute capability for such launches."""


@triton.jit
def launch_next(PDL: tl.constexpr):
    """Allows the next kernel to be launched, as soon as all programs of this one have called this."""
    if PDL:
        gdc_launch_dependents()


@triton.jit
def await_previous(PDL: tl.constexpr):
    """Waits until all previous kernels have ended, and their results can be read."""
    if PDL:
        gdc_wait()
