"""RMSNorm as a kernel of its own, for steps of many tokens: in the order of columns, and in fragment order
for the experts (codes.py).

A product of the library can add its result to the residual stream, or add a bias, but not both.  The norm
that follows reads the rows anyway, so it adds the bias.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.kernels.codes import fragment_place, in_fragments, padded
from model.layers import rms_norm


@triton.jit
def _norm_kernel(
    x, bias, norm, out, out_fragments, eps,
    K: tl.constexpr, K_PAD: tl.constexpr, BIAS: tl.constexpr, OUT: tl.constexpr, FRAGMENTS: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BK)
    values = tl.load(x + row * K + k, k < K, 0.0).to(tl.float32)
    if BIAS:
        moved = (values + tl.load(bias + k, k < K, 0.0).to(tl.float32)).to(x.dtype.element_ty)
        tl.store(x + row * K + k, moved, k < K)
        values = moved.to(tl.float32)
    values *= 1.0 / tl.sqrt(tl.sum(values * values, 0) / K + eps)
    values *= tl.load(norm + k, k < K, 0.0).to(tl.float32)
    values = values.to(x.dtype.element_ty)
    if OUT:
        tl.store(out + row * K + k, values, k < K)
    if FRAGMENTS:  # beyond K values are zero
        tl.store(out_fragments + row * K_PAD + fragment_place(k), values, k < K_PAD)


def normalise(
    x: Tensor,
    norm: Tensor,
    eps: float,
    out: Tensor | None = None,
    out_fragments: Tensor | None = None,
    bias: Tensor | None = None,
) -> None:
    """RMSNorm of x [T, K] with scale norm [K], written to `out` [T, K] and `out_fragments` [T, padded(K)], if
    they are given.

    bias  [K], added to x in place first; None for none
    """
    tokens, width = x.shape
    sizes = (width, padded(width), bias is not None, out is not None, out_fragments is not None)
    block = triton.next_power_of_2(padded(width))
    _norm_kernel[(tokens,)](x, bias, norm, out, out_fragments, eps, *sizes, block)


def plain_normalise(x: Tensor, norm: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Both results of `normalise`."""
    out = rms_norm(x, norm, eps)
    return out, in_fragments(out)
