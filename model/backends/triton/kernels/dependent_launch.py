"""Programmatic dependent launch: the programs of a kernel begin while those of the kernel before it end.

A decode step of one token is some hundred and fifty kernels of a few microseconds.  Between two the device
drains, launches, and has to fill its memory's pipes again.  From compute capability 9.0 on a kernel can be
launched before the one before is over: its programs take the places that come free, and have their first
weights on the way when they may begin.

So that this is right, every program of a kernel that can be launched so

    calls `launch_next` and then `await_previous`, whatever else it has to do: only so is a kernel that comes
    after this one also after all before it;
    until then reads weights alone, and the step's `Batch`, which was there before the step's first kernel,
    and writes nothing.

CUDA programming guide, "Programmatic Dependent Launch and Synchronization"."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

OLDEST = (9, 0)
"""Compute capability: older ones have no such launches."""


@triton.jit
def launch_next(PDL: tl.constexpr):
    """The kernel after this one may be launched, once all programs of this one have said so."""
    if PDL:
        gdc_launch_dependents()


@triton.jit
def await_previous(PDL: tl.constexpr):
    """Until all kernels before are over, and what they wrote can be read."""
    if PDL:
        gdc_wait()
