"""The experts of many tokens: pairs sorted by expert, and one product of matrices for each.

    sort        chosen [T, A]            →  order: the pairs, expert by expert; starts: where each one's begin
    gate_up     planes [T, C]            →  inner [T * A, F], sorted, in planes, activated
    down        inner, shares            →  outer [T * A, C], pairs in their own order again, weighted
    combine     outer                    →  x [T, C] += the sum over a token's pairs

Weights stay MXFP4 in memory and are dequantised in registers, on the left side of the product, so that any
number of tokens fills a tile and no column is padded.  A word's eight codes belong to eight planes of the
activations: eight products of matrices of a few words each.  How many tiles there are depends on the routing,
which only the device knows: there are programs for the most there can be, and those without a tile return at
once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.codes import CODE_TO_ONE, code, lent_power, planes
from model.backends.triton.experts_few import swiglu
from model.layers import clamped_swiglu

if TYPE_CHECKING:
    from model.backends.triton.weights import Matrices


@triton.jit(do_not_specialize=["num_pairs"])
def _sort_kernel(chosen, order, starts, num_pairs, BLOCK: tl.constexpr):
    """Program e writes the pairs of expert e, in their order, behind those of all experts below."""
    expert = tl.program_id(0)
    below = tl.zeros([BLOCK], tl.int32)
    for first in range(0, num_pairs, BLOCK):
        pair = first + tl.arange(0, BLOCK)
        below += (tl.load(chosen + pair, pair < num_pairs, expert) < expert).to(tl.int32)
    place = tl.sum(below, 0)
    tl.store(starts + expert, place)
    for first in range(0, num_pairs, BLOCK):
        pair = first + tl.arange(0, BLOCK)
        mine = (tl.load(chosen + pair, pair < num_pairs, -1) == expert).to(tl.int32)
        tl.store(order + place + tl.cumsum(mine, 0) - 1, pair, mine == 1)
        place += tl.sum(mine, 0)
    if expert == tl.num_programs(0) - 1:
        tl.store(starts + expert + 1, num_pairs)


def sort(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """
    chosen   [T, A] int32
    returns  order  [T * A] int32: pairs (token * A + rank), expert by expert
             starts [experts + 1] int32: expert e's are order[starts[e] : starts[e + 1]]
    """
    order = torch.empty(chosen.numel(), dtype=torch.int32, device=chosen.device)
    starts = torch.empty(experts + 1, dtype=torch.int32, device=chosen.device)
    _sort_kernel[(experts,)](chosen, order, starts, chosen.numel(), BLOCK=1024)
    return order, starts


def plain_sort(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    flat = chosen.flatten()
    counts = flat.long().bincount(minlength=experts)
    starts = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    return flat.argsort(stable=True).int(), starts.int()


@triton.jit
def _tile(starts, tile, E: tl.constexpr, E_PAD: tl.constexpr, BM: tl.constexpr):
    """The expert of tile `tile`, and its rows [first, end) of the order: none if there are fewer tiles."""
    expert = tl.arange(0, E_PAD)
    begin = tl.load(starts + expert, expert < E, 0)
    end = tl.load(starts + expert + 1, expert < E, 0)
    tiles = (end - begin + BM - 1) // BM
    past = tl.cumsum(tiles, 0)  # tiles of this expert and all below
    found = tl.sum((past <= tile).to(tl.int32), 0)
    mine = expert == found
    first = tl.sum(tl.where(mine, begin + (tile - (past - tiles)) * BM, 0), 0)
    last = tl.sum(tl.where(mine, end, 0), 0)
    return found, first, tl.minimum(last, first + BM)


@triton.jit
def _weights(words, scales, n, inside, j, K: tl.constexpr):
    """Words j of rows n, and their scales with 2 ** 100 lent: [BN, BW] both."""
    mask = inside[:, None] & (j[None, :] < K // 8)
    w = tl.load(words + n[:, None] * (K // 8) + j[None, :], mask, 0).to(tl.uint32, bitcast=True)
    s = tl.load(scales + n[:, None] * (K // 32) + j[None, :] // 4, mask, 0)
    return w, lent_power(s)


@triton.jit
def _gate_up_kernel(
    normed, words, scales, bias, order, starts, inner, limit,
    E: tl.constexpr, E_PAD: tl.constexpr, A: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    expert, first, end = _tile(starts, tl.program_id(0), E, E_PAD, BM)
    if first < end:
        m = first + tl.arange(0, BM)
        n = tl.program_id(1) * BN + tl.arange(0, BN)
        token = (tl.load(order + m, m < end, 0) // A).to(tl.int64)
        words += expert.to(tl.int64) * (2 * F) * (C // 8)
        scales += expert.to(tl.int64) * (2 * F) * (C // 32)
        gate = tl.zeros([BN, BM], tl.float32)
        value = tl.zeros([BN, BM], tl.float32)
        for at in range(0, C // 8, BW):
            j = at + tl.arange(0, BW)
            gates, gate_scales = _weights(words, scales, 2 * n, n < F, j, C)
            values, value_scales = _weights(words, scales, 2 * n + 1, n < F, j, C)
            x = normed + token[None, :] * C + j[:, None]
            mask = (m < end)[None, :] & (j[:, None] < C // 8)
            for i in tl.static_range(8):
                plane = tl.load(x + i * (C // 8), mask, 0.0)
                left = (code(gates, i) * gate_scales).to(plane.dtype)
                gate = tl.dot(left, plane, gate, input_precision="ieee")
                left = (code(values, i) * value_scales).to(plane.dtype)
                value = tl.dot(left, plane, value, input_precision="ieee")
        biases = bias + expert * (2 * F) + 2 * n
        gate = gate * CODE_TO_ONE + tl.load(biases, n < F, 0.0).to(tl.float32)[:, None]
        value = value * CODE_TO_ONE + tl.load(biases + 1, n < F, 0.0).to(tl.float32)[:, None]
        out = inner + m.to(tl.int64)[None, :] * F + ((n % 8) * (F // 8) + n // 8)[:, None]
        activated = swiglu(gate, value, limit).to(inner.dtype.element_ty)
        tl.store(out, activated, (n < F)[:, None] & (m < end)[None, :])


@triton.jit
def _down_kernel(
    inner, words, scales, bias, order, starts, shares, outer,
    E: tl.constexpr, E_PAD: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    expert, first, end = _tile(starts, tl.program_id(0), E, E_PAD, BM)
    if first < end:
        m = first + tl.arange(0, BM)
        n = tl.program_id(1) * BN + tl.arange(0, BN)
        words += expert.to(tl.int64) * C * (F // 8)
        scales += expert.to(tl.int64) * C * (F // 32)
        total = tl.zeros([BN, BM], tl.float32)
        for at in range(0, F // 8, BW):
            j = at + tl.arange(0, BW)
            w, s = _weights(words, scales, n, n < C, j, F)
            x = inner + m.to(tl.int64)[None, :] * F + j[:, None]
            mask = (m < end)[None, :] & (j[:, None] < F // 8)
            for i in tl.static_range(8):
                plane = tl.load(x + i * (F // 8), mask, 0.0)
                total = tl.dot((code(w, i) * s).to(plane.dtype), plane, total, input_precision="ieee")
        pair = tl.load(order + m, m < end, 0)
        share = tl.load(shares + pair, m < end, 0.0)
        biases = bias + expert * C + n
        total = total * CODE_TO_ONE + tl.load(biases, n < C, 0.0).to(tl.float32)[:, None]
        total *= share[None, :]
        out = outer + pair.to(tl.int64)[None, :] * C + n[:, None]
        tl.store(out, total.to(outer.dtype.element_ty), (n < C)[:, None] & (m < end)[None, :])


@triton.jit
def _combine_kernel(outer, x, A: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(x + token * C + column, column < C, 0.0).to(tl.float32)
    for a in tl.static_range(A):
        total += tl.load(outer + (token * A + a) * C + column, column < C, 0.0).to(tl.float32)
    tl.store(x + token * C + column, total.to(x.dtype.element_ty), column < C)


INVARIANT_ROWS = 64
"""Of a tile, however many pairs there are, where no sum may depend on that."""


TILES = {
    rows: {"BN": 64, "BW": 16, "num_warps": 4, "num_stages": 3 if rows < 128 else 2}
    for rows in (16, 32, 64, 128)
}
"""By the pairs of a tile: outputs, words at a time."""


def usual_rows(pairs: int, experts: int) -> int:
    """Rows of a tile that a usual expert's pairs fill once or twice."""
    pairs_of_one = -(-pairs // experts)
    return min(128, max(16, 1 << (pairs_of_one - 1).bit_length()))


def _shape(pairs: int, experts: int, invariant: bool) -> dict[str, int]:
    """The tile for so many pairs; if `invariant`, always the same."""
    rows = INVARIANT_ROWS if invariant else usual_rows(pairs, experts)
    return {"BM": rows, **TILES[rows]}


def gate_up(
    normed: Tensor,
    mlp1: Matrices,
    order: Tensor,
    starts: Tensor,
    inner: Tensor,
    limit: float,
    invariant: bool = False,
) -> None:
    """The chosen experts' activations, in planes, into inner [T * A, F]: its rows are in the sorted order.

    normed     [T, C] in planes
    invariant  whether a pair's result must be the same, to the bit, in whatever company it comes
    """
    (tokens, hidden), (pairs, width), experts = normed.shape, inner.shape, len(mlp1.bias)
    shape = _shape(pairs, experts, invariant)
    grid = (pairs // shape["BM"] + experts, triton.cdiv(width, shape["BN"]))
    operands = (normed, mlp1.words, mlp1.scales, mlp1.bias, order, starts, inner, limit)
    sizes = (experts, triton.next_power_of_2(experts), pairs // tokens, hidden, width)
    _gate_up_kernel[grid](*operands, *sizes, **shape)


def down(
    inner: Tensor,
    mlp2: Matrices,
    order: Tensor,
    starts: Tensor,
    shares: Tensor,
    outer: Tensor,
    invariant: bool = False,
) -> None:
    """What the experts make of `inner`, times its share, into outer [T * A, C], pairs in their own order.

    shares  [T, A] float32
    """
    (pairs, width), hidden, experts = inner.shape, outer.shape[1], len(mlp2.bias)
    shape = _shape(pairs, experts, invariant)
    grid = (pairs // shape["BM"] + experts, triton.cdiv(hidden, shape["BN"]))
    operands = (inner, mlp2.words, mlp2.scales, mlp2.bias, order, starts, shares, outer)
    sizes = (experts, triton.next_power_of_2(experts), hidden, width)
    _down_kernel[grid](*operands, *sizes, **shape)


def combine(outer: Tensor, x: Tensor) -> None:
    """Adds to each row of x [T, C] its A rows of outer [T * A, C]."""
    tokens, hidden = x.shape
    grid = (tokens, triton.cdiv(hidden, 1024))
    _combine_kernel[grid](outer, x, len(outer) // tokens, hidden, BLOCK=1024)


def plain_gate_up(
    x: Tensor, mlp1: Matrices, order: Tensor, starts: Tensor, limit: float, used: int
) -> Tensor:
    """`inner` in planes [T * used, F] float32, from x [T, C] in the order of columns."""
    parts = []
    for expert, (first, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        rows = x[order[first:end].long() // used].float()
        parts.append(clamped_swiglu(rows @ mlp1.decoded(expert).T + mlp1.bias[expert].float(), limit))
    return planes(torch.cat(parts))


def plain_down(inner: Tensor, mlp2: Matrices, order: Tensor, starts: Tensor, shares: Tensor) -> Tensor:
    """`outer` [T * A, C] float32, from inner [T * A, F] in the order of columns."""
    outer = inner.new_empty(len(inner), mlp2.bias.shape[1], dtype=torch.float32)
    for expert, (first, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        pairs = order[first:end].long()
        rows = inner[first:end].float() @ mlp2.decoded(expert).T + mlp2.bias[expert].float()
        outer[pairs] = rows * shares.flatten()[pairs, None]
    return outer
