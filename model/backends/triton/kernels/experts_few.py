"""The experts of few tokens: a product of a matrix and a vector for each pair of token and expert.

Pairs need not be sorted.  Each reads its expert's weights once, directly into registers.  A program is a
single warp, so no warp waits for another.  Dequantising is most of the work (see codes.py), so it determines
the speed.

    gate_up   normed [T, C], chosen [T, A]     →  inner [T * A, F], activated
    down      inner, chosen, shares [T, A]     →  x [T, C] += the weighted sum

`normed` and `inner` are in planes, float32, times 2 ** 100 (`prescaled` in codes.py).  They are rounded like
other activations, but the many warps that read them need not convert them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.kernels.codes import CODE_TO_ONE, PRESCALE, code, power, prescaled
from model.backends.triton.kernels.dependent_launch import await_previous, launch_next
from model.config import SWIGLU_ALPHA
from model.layers import clamped_swiglu

if TYPE_CHECKING:
    from model.backends.triton.weights import Matrices

GATE_UP_TILE = {"BN": 2, "BW": 128, "num_warps": 1}
DOWN_TILE = {"BN": 2, "BW": 128, "num_warps": 1}
"""Outputs and words that a program processes at once.  A lane of its warp loads four words, 16 bytes.  Two
outputs need more work for each than four, but twice as many warps load weights.
"""

ALPHA = tl.constexpr(SWIGLU_ALPHA)


@triton.jit
def swiglu(gate, value, limit):
    """clamped_swiglu of layers.py, with separate gate and value."""
    gate = tl.minimum(gate, limit)
    value = tl.minimum(tl.maximum(value, -limit), limit)
    return gate / (1.0 + tl.exp(gate * -ALPHA)) * (value + 1.0)


@triton.jit
def _products(words, scales, row, n, inside, j, K: tl.constexpr):
    """Products of words j of rows n with a row of activations, word by word: [BN, BW]."""
    mask = inside[:, None] & (j[None, :] < K // 8)
    w = tl.load(words + n[:, None] * (K // 8) + j[None, :], mask, 0).to(tl.uint32, bitcast=True)
    s = tl.load(scales + n[:, None] * (K // 32) + j[None, :] // 4, mask, 0)
    total = tl.zeros(w.shape, tl.float32)
    for i in tl.static_range(8):
        total += code(w, i) * tl.load(row + i * (K // 8) + j, j < K // 8, 0.0)[None, :]
    return total * power(s)


@triton.jit
def _gate_up_kernel(
    normed, chosen, words, scales, bias, inner, limit,
    A: tl.constexpr, C: tl.constexpr, F: tl.constexpr, PDL: tl.constexpr, BN: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    launch_next(PDL)
    await_previous(PDL)
    pair, n = tl.program_id(0), tl.program_id(1) * BN + tl.arange(0, BN)
    token, expert = (pair // A).to(tl.int64), tl.load(chosen + pair).to(tl.int64)
    words += expert * (2 * F) * (C // 8)
    scales += expert * (2 * F) * (C // 32)
    bias += expert * (2 * F)
    gate = tl.zeros([BN, BW], tl.float32)
    value = tl.zeros([BN, BW], tl.float32)
    for first in tl.static_range(0, C // 8, BW):
        j = first + tl.arange(0, BW)
        gate += _products(words, scales, normed + token * C, 2 * n, n < F, j, C)
        value += _products(words, scales, normed + token * C, 2 * n + 1, n < F, j, C)
    gates = tl.sum(gate, 1) * CODE_TO_ONE + tl.load(bias + 2 * n, n < F, 0.0).to(tl.float32)
    values = tl.sum(value, 1) * CODE_TO_ONE + tl.load(bias + 2 * n + 1, n < F, 0.0).to(tl.float32)
    at = inner + pair.to(tl.int64) * F + (n % 8) * (F // 8) + n // 8
    activated = swiglu(gates, values, limit).to(bias.dtype.element_ty)
    tl.store(at, activated.to(tl.float32) * PRESCALE, n < F)


@triton.jit
def _down_kernel(
    inner, chosen, shares, words, scales, bias, x,
    A: tl.constexpr, C: tl.constexpr, F: tl.constexpr, PDL: tl.constexpr, BN: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    launch_next(PDL)
    await_previous(PDL)
    token, n = tl.program_id(0).to(tl.int64), tl.program_id(1) * BN + tl.arange(0, BN)
    weighted = tl.zeros([BN, BW], tl.float32)
    total = tl.load(x + token * C + n, n < C, 0.0).to(tl.float32)
    for a in range(A):  # not unrolled, because that needs more registers than there are
        expert = tl.load(chosen + token * A + a).to(tl.int64)
        share = tl.load(shares + token * A + a)
        products = tl.zeros([BN, BW], tl.float32)
        for first in tl.static_range(0, F // 8, BW):
            j = first + tl.arange(0, BW)
            products += _products(
                words + expert * C * (F // 8),
                scales + expert * C * (F // 32),
                inner + (token * A + a) * F,
                n,
                n < C,
                j,
                F,
            )
        weighted += products * share
        total += share * tl.load(bias + expert * C + n, n < C, 0.0).to(tl.float32)
    total += tl.sum(weighted, 1) * CODE_TO_ONE
    tl.store(x + token * C + n, total.to(x.dtype.element_ty), n < C)


def gate_up(
    normed: Tensor, chosen: Tensor, mlp1: Matrices, inner: Tensor, limit: float, pdl: bool = False
) -> None:
    """Writes the chosen experts' activations to inner [T * A, F], `prescaled`.

    normed  [T, C]  `prescaled`
    chosen  [T, A]  int32
    pdl     whether it may begin while the previous kernel ends, see dependent_launch.py
    """
    (tokens, used), hidden, width = chosen.shape, normed.shape[1], inner.shape[1]
    operands = (normed, chosen, mlp1.words, mlp1.scales, mlp1.bias, inner, limit)
    grid = (tokens * used, triton.cdiv(width, GATE_UP_TILE["BN"]))
    _gate_up_kernel[grid](*operands, used, hidden, width, pdl, **GATE_UP_TILE, launch_pdl=pdl)


def down(inner: Tensor, chosen: Tensor, shares: Tensor, mlp2: Matrices, x: Tensor, pdl: bool = False) -> None:
    """Adds to x [T, C] the chosen experts' results for inner [T * A, F], `prescaled`, weighted by their
    shares.

    chosen  [T, A]  int32
    shares  [T, A]  float32
    """
    (tokens, used), hidden, width = chosen.shape, x.shape[1], inner.shape[1]
    operands = (inner, chosen, shares, mlp2.words, mlp2.scales, mlp2.bias, x)
    grid = (tokens, triton.cdiv(hidden, DOWN_TILE["BN"]))
    _down_kernel[grid](*operands, used, hidden, width, pdl, **DOWN_TILE, launch_pdl=pdl)


def plain_gate_up(x: Tensor, chosen: Tensor, mlp1: Matrices, limit: float) -> Tensor:
    """`inner` [T * A, F], from x [T, C] in the order of columns."""
    pairs = [
        clamped_swiglu(mlp1.decoded(expert) @ row.float() + mlp1.bias[expert].float(), limit)
        for row, experts in zip(x, chosen.tolist(), strict=True)
        for expert in experts
    ]
    return prescaled(torch.stack(pairs))


def plain_down(inner: Tensor, chosen: Tensor, shares: Tensor, mlp2: Matrices, x: Tensor) -> Tensor:
    """The new x [T, C] in float32, from inner [T * A, F] in the order of columns."""
    used = chosen.shape[1]
    total = x.float().clone()
    for pair, (expert, share) in enumerate(zip(chosen.flatten().tolist(), shares.flatten(), strict=True)):
        outer = mlp2.decoded(expert) @ inner[pair].float() + mlp2.bias[expert].float()
        total[pair // used] += share * outer
    return total
