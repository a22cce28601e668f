"""RMSNorm by itself, for steps of many tokens: in the order of columns, and in planes as experts want their
rows (see codes.py)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.codes import planes
from model.layers import rms_norm


@triton.jit
def _norm_kernel(
    x, norm, out, out_planes, eps, K: tl.constexpr, OUT: tl.constexpr, PLANES: tl.constexpr, BK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * K
    k = tl.arange(0, BK)
    values = tl.load(x + row + k, k < K, 0.0).to(tl.float32)
    values *= 1.0 / tl.sqrt(tl.sum(values * values, 0) / K + eps)
    values *= tl.load(norm + k, k < K, 0.0).to(tl.float32)
    values = values.to(x.dtype.element_ty)
    if OUT:
        tl.store(out + row + k, values, k < K)
    if PLANES:
        tl.store(out_planes + row + (k % 8) * (K // 8) + k // 8, values, k < K)


def normalise(
    x: Tensor, norm: Tensor, eps: float, out: Tensor | None = None, out_planes: Tensor | None = None
) -> None:
    """RMSNorm of x [T, K] with scale norm [K], into whichever of `out` and `out_planes` [T, K] there is."""
    tokens, width = x.shape
    sizes = (width, out is not None, out_planes is not None, triton.next_power_of_2(width))
    _norm_kernel[(tokens,)](x, norm, out, out_planes, eps, *sizes)


def plain_normalise(x: Tensor, norm: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """What `normalise` writes: both of them."""
    out = rms_norm(x, norm, eps)
    return out, planes(out)
