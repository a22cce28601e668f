"""Keys and values in eight bits: float8 e4m3fn (arXiv:2209.05433), the format of `--kv-cache-dtype fp8` for
full layers.

    s eeee mmm      (-1) ** s * 1.mmm * 2 ** (eeee - 7), subnormal if eeee is 0; no infinities;
                    largest 448, smallest 2 ** -9; s 1111 111 is NaN

A number has three bits after its first, so the relative error is up to 1/16, and 2.6% on average (root mean
square).  There is no scale: numbers beyond 448 become 448, numbers below 2 ** -10 become zero.

GPUs convert such numbers from compute capability 8.9 on.  There the cache has this type.  Elsewhere, and in
Triton's interpreter, it has bytes, which are converted with integer arithmetic, with bit-identical results.
Numbers are written only once for each token, so writing always uses integer arithmetic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST = 448.0
NATIVE = (8, 9)
"""Minimum compute capability whose hardware has this type."""

_LARGEST = tl.constexpr(LARGEST)
_TYPES = (torch.uint8, torch.float8_e4m3fn)


def storage(device: torch.device) -> torch.dtype:
    """The type of a cache on `device`; the bits are the same with both types."""
    return storage_on(torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0))


def storage_on(capability: tuple[int, int]) -> torch.dtype:
    """The type of a cache on a GPU of this compute capability."""
    return torch.float8_e4m3fn if capability >= NATIVE else torch.uint8


@triton.jit
def _encoded(x):
    """The codes of x, a tensor of any float, as uint8: to nearest, halves to even, at most 448."""
    wide = x.to(tl.float32)
    magnitude = tl.minimum(tl.abs(wide), _LARGEST)
    bits = magnitude.to(tl.uint32, bitcast=True)
    # Normal: of 23 bits of mantissa three are kept; the exponent's bias changes from 127 to 7.
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    # Subnormal, in units of 2 ** -9: added to 2 ** 14, whose last bit is this unit, so the hardware rounds.
    tiny = (magnitude + 16384.0).to(tl.uint32, bitcast=True) - 0x46800000
    code = tl.where(magnitude < 0.015625, tiny, normal)
    code = tl.where(wide != wide, 0x7F, code)
    return (code | ((wide.to(tl.uint32, bitcast=True) >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def stored(x, dtype: tl.constexpr):
    """x as a cache of type `dtype` stores it."""
    if dtype == tl.uint8:
        return _encoded(x)
    elif dtype == tl.float8e4nv:
        return _encoded(x).to(tl.float8e4nv, bitcast=True)
    else:
        return x.to(dtype)


@triton.jit
def numbers(kept, dtype: tl.constexpr):
    """Numbers from a cache, converted exactly to `dtype`, a float of 16 bits or more."""
    if kept.dtype == tl.uint8:
        code = kept.to(tl.uint32)
        bits = ((code & 0x7F) << 20) | ((code & 0x80) << 24)
        number = bits.to(tl.float32, bitcast=True) * 1.329227995784916e36  # 2 ** 120: the other bias
        return tl.where((code & 0x7F) == 0x7F, float("nan"), number).to(dtype)
    else:
        return kept.to(dtype)


def plain_stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype not in _TYPES:
        return x.to(dtype)
    return x.float().clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).view(dtype)


def plain_numbers(kept: Tensor) -> Tensor:
    """Codes as float32; other types are returned unchanged."""
    return kept.view(torch.float8_e4m3fn).float() if kept.dtype in _TYPES else kept
