"""The experts of many tokens: pairs sorted by expert (expert_order.py), and one product of matrices for each.

    gate_up     rows in fragment order   →  inner [T * A, F], sorted, in fragment order, activated
    down        inner, shares            →  outer [T * A, C], pairs in their original order, weighted
    combine     outer                    →  x [T, C] += the sum over a token's pairs

Weights stay MXFP4 in memory.  They are the left operand of a product: a warp reads 128 columns of each of its
rows of weights, converts them to bfloat16 in its own registers (codes.py), and passes these to the tensor
cores without shared memory.  A program has two blocks of rows of weights, which share the rows of activations
on the right: gates and values, or two blocks of outputs.

The number of tiles depends on the routing, which only the device knows.  So the number of programs is the
maximum, and those without a tile return at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.kernels import codes
from model.backends.triton.kernels.codes import BLOCK, CODE_TO_ONE, GROUP, GROUPS, in_fragments, padded
from model.backends.triton.kernels.experts_few import swiglu
from model.layers import clamped_swiglu

if TYPE_CHECKING:
    from model.backends.triton.weights import Matrices


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
def _two_products(
    x, words, scales, first, second, first_here, second_here,
    K: tl.constexpr, K_PAD: tl.constexpr, ALL: tl.constexpr, DTYPE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Two blocks of rows of a matrix [.., K], each times the same rows of activations: two sums [BN, BM].

    x              [BM] pointers to rows in fragment order
    first, second  [BN] rows of the matrix; `first_here`, `second_here`: whether these rows exist, as all do
                   if ALL
    """
    group, word, k = tl.arange(0, GROUPS), tl.arange(0, 4), tl.arange(0, BLOCK)
    words += group[None, :, None] * (GROUP // 8) + word[None, None, :]
    scales += group[None, :]
    words1, words2 = words + (first * (K // 8))[:, None, None], words + (second * (K // 8))[:, None, None]
    scales1, scales2 = scales + (first * (K // GROUP))[:, None], scales + (second * (K // GROUP))[:, None]
    x = x[None, :] + k[:, None]
    one = tl.zeros([BN, BM], tl.float32)
    two = tl.zeros([BN, BM], tl.float32)
    # Asynchronous copies have at least 4 bytes, so the next block's scales are loaded explicitly.
    inside = group < K // GROUP
    s1 = _load(scales1, inside[None, :], first_here[:, None], ALL, K == K_PAD)
    s2 = _load(scales2, inside[None, :], second_here[:, None], ALL, K == K_PAD)
    for done in range(0, K // GROUP, GROUPS):
        inside = done + group < K // GROUP
        w1 = _load(words1, inside[None, :, None], first_here[:, None, None], ALL, K == K_PAD)
        w2 = _load(words2, inside[None, :, None], second_here[:, None, None], ALL, K == K_PAD)
        columns = tl.load(x)
        inside = done + GROUPS + group < K // GROUP
        scales1 += GROUPS
        scales2 += GROUPS
        next1 = _load(scales1, inside[None, :], first_here[:, None], ALL, False)
        next2 = _load(scales2, inside[None, :], second_here[:, None], ALL, False)
        left = codes.weights(w1.to(tl.uint32, bitcast=True), s1, DTYPE)
        one = tl.dot(left, columns, one, input_precision="ieee")
        left = codes.weights(w2.to(tl.uint32, bitcast=True), s2, DTYPE)
        two = tl.dot(left, columns, two, input_precision="ieee")
        words1 += BLOCK // 8
        words2 += BLOCK // 8
        x += BLOCK
        s1 = next1
        s2 = next2
    return one * CODE_TO_ONE, two * CODE_TO_ONE


@triton.jit
def _load(pointers, inside, here, ALL: tl.constexpr, WHOLE: tl.constexpr):
    """Loads with a mask only where one is needed: not for rows if ALL exist, not for columns if WHOLE."""
    if ALL and WHOLE:
        loaded = tl.load(pointers)
    elif ALL:
        loaded = tl.load(pointers, inside, 0)
    else:
        loaded = tl.load(pointers, inside & here, 0)
    return loaded


@triton.jit
def _gate_up_kernel(
    normed, words, scales, bias, order, starts, inner, limit,
    E: tl.constexpr, E_PAD: tl.constexpr, A: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    C_PAD: tl.constexpr, F_PAD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    expert, first, end = _tile(starts, tl.program_id(0), E, E_PAD, BM)
    if first < end:
        m = first + tl.arange(0, BM)
        # The outputs of a tile are neighbours in fragment order.  Places beyond F get zeros.
        place = tl.program_id(1) * BN + tl.arange(0, BN)
        n = codes.fragment_column(place)
        here = n < F
        token = (tl.load(order + tl.minimum(m, end - 1)) // A).to(tl.int64)
        words += expert.to(tl.int64) * (2 * F) * (C // 8)
        scales += expert.to(tl.int64) * (2 * F) * (C // GROUP)
        gate, value = _two_products(
            normed + token * C_PAD, words, scales, 2 * n, 2 * n + 1, here, here,
            C, C_PAD, F == F_PAD, normed.dtype.element_ty, BM, BN,
        )  # fmt: skip
        biases = bias + expert * (2 * F) + 2 * n
        gate += tl.load(biases, here, 0.0).to(tl.float32)[:, None]
        value += tl.load(biases + 1, here, 0.0).to(tl.float32)[:, None]
        out = inner + m.to(tl.int64)[None, :] * F_PAD + place[:, None]
        activated = swiglu(gate, value, limit).to(inner.dtype.element_ty)
        tl.store(out, activated, (m < end)[None, :] & (place < F_PAD)[:, None])


@triton.jit
def _down_kernel(
    inner, words, scales, bias, order, starts, shares, outer,
    E: tl.constexpr, E_PAD: tl.constexpr, C: tl.constexpr, F: tl.constexpr, F_PAD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    expert, first, end = _tile(starts, tl.program_id(0), E, E_PAD, BM)
    if first < end:
        m = first + tl.arange(0, BM)
        n = tl.program_id(1) * (2 * BN) + tl.arange(0, BN)
        words += expert.to(tl.int64) * C * (F // 8)
        scales += expert.to(tl.int64) * C * (F // GROUP)
        row = tl.minimum(m, end - 1).to(tl.int64)
        one, two = _two_products(
            inner + row * F_PAD, words, scales, n, n + BN, n < C, n + BN < C,
            F, F_PAD, C % (2 * BN) == 0, inner.dtype.element_ty, BM, BN,
        )  # fmt: skip
        pair = tl.load(order + m, m < end, 0)
        share = tl.load(shares + pair, m < end, 0.0)
        out = outer + pair.to(tl.int64)[None, :] * C + n[:, None]
        _store_down(one, bias + expert * C + n, share, out, n < C, m < end)
        _store_down(two, bias + expert * C + n + BN, share, out + BN, n + BN < C, m < end)


@triton.jit
def _store_down(total, bias, share, out, n_inside, m_inside):
    total = (total + tl.load(bias, n_inside, 0.0).to(tl.float32)[:, None]) * share[None, :]
    tl.store(out, total.to(out.dtype.element_ty), n_inside[:, None] & m_inside[None, :])


@triton.jit
def _combine_kernel(outer, x, A: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(x + token * C + column, column < C, 0.0).to(tl.float32)
    for a in tl.static_range(A):
        total += tl.load(outer + (token * A + a) * C + column, column < C, 0.0).to(tl.float32)
    tl.store(x + token * C + column, total.to(x.dtype.element_ty), column < C)


INVARIANT_ROWS = 64
"""Rows of a tile with `invariant`, whatever the number of pairs, because no sum may depend on it."""


Tile = dict[str, int]


class Tiles(NamedTuple):
    """Pairs of a tile → rows of each of its two blocks of weights, warps, and number of blocks of 128 columns
    that are in flight.
    """

    gate_up: dict[int, Tile]
    down: dict[int, Tile]


def _both(tiles: dict[int, Tile]) -> Tiles:
    return Tiles(tiles, {rows: dict(tile) for rows, tile in tiles.items()})


OF_WARP_GROUPS = _both(
    {
        16: {"BN": 64, "num_warps": 4, "num_stages": 4},
        32: {"BN": 64, "num_warps": 4, "num_stages": 4},
        64: {"BN": 64, "num_warps": 4, "num_stages": 3},
        128: {"BN": 128, "num_warps": 8, "num_stages": 3},
    }
)
"""For tensor cores that four warps use together, and that read activations from shared memory."""

OF_WARPS = _both(
    {
        16: {"BN": 64, "num_warps": 4, "num_stages": 4},
        32: {"BN": 64, "num_warps": 4, "num_stages": 3},
        64: {"BN": 64, "num_warps": 8, "num_stages": 2},
        128: {"BN": 64, "num_warps": 8, "num_stages": 2},
    }
)
"""For tensor cores of a single warp: activations need registers too, and there is less shared memory."""


NARROW = _both(
    {
        16: {"BN": 32, "num_warps": 2, "num_stages": 4},
        32: {"BN": 32, "num_warps": 2, "num_stages": 3},
        64: {"BN": 32, "num_warps": 2, "num_stages": 3},
        128: {"BN": 32, "num_warps": 4, "num_stages": 2},
    }
)
"""Tiles that are too narrow for warp groups: each warp multiplies by itself, also on a GPU that has warp
groups.
"""


def tiles_for(capability: tuple[int, int], version: str = triton.__version__) -> Tiles:
    """The tiles for a GPU of this compute capability: Hopper and the large Blackwells have warp groups.

    Triton 3.6 fails to compile for Blackwell if weights were converted in registers ("Illegal shared
    layout").
    """
    if capability[0] in (10, 11) and tuple(map(int, version.split(".")[:2])) < (3, 7):
        return NARROW
    return OF_WARP_GROUPS if capability[0] in (9, 10, 11) else OF_WARPS


def usual_rows(pairs: int, experts: int) -> int:
    """Rows of a tile, chosen so that the pairs of an average expert fill one or two tiles."""
    pairs_of_one = -(-pairs // experts)
    return min(128, max(16, 1 << (pairs_of_one - 1).bit_length()))


def _shape(tiles: dict[int, Tile], pairs: int, experts: int, invariant: bool) -> Tile:
    """The tile for this many pairs; if `invariant`, always the same."""
    rows = INVARIANT_ROWS if invariant else usual_rows(pairs, experts)
    return {"BM": rows, **tiles[rows]}


def gate_up(
    normed: Tensor,
    mlp1: Matrices,
    order: Tensor,
    starts: Tensor,
    inner: Tensor,
    limit: float,
    invariant: bool = False,
    tiles: Tiles = OF_WARP_GROUPS,
) -> None:
    """Writes the chosen experts' activations to inner [T * A, padded(F)], with rows in the sorted order.

    normed     [T, padded(C)] in fragment order, like `inner`
    invariant  whether a pair's result must be bit-identical whatever other pairs there are
    """
    tokens, pairs, (experts, outputs) = len(normed), len(inner), mlp1.bias.shape
    hidden, width = mlp1.words.shape[2] * 8, outputs // 2
    shape = _shape(tiles.gate_up, pairs, experts, invariant)
    grid = (pairs // shape["BM"] + experts, triton.cdiv(padded(width), shape["BN"]))
    operands = (normed, mlp1.words, mlp1.scales, mlp1.bias, order, starts, inner, limit)
    widths = (hidden, width, padded(hidden), padded(width))
    sizes = (experts, triton.next_power_of_2(experts), pairs // tokens, *widths)
    _gate_up_kernel[grid](*operands, *sizes, **shape)


def down(
    inner: Tensor,
    mlp2: Matrices,
    order: Tensor,
    starts: Tensor,
    shares: Tensor,
    outer: Tensor,
    invariant: bool = False,
    tiles: Tiles = OF_WARP_GROUPS,
) -> None:
    """Writes the experts' results for `inner`, times the shares, to outer [T * A, C], pairs in their original
    order.

    shares  [T, A] float32
    """
    pairs, (experts, hidden) = len(inner), mlp2.bias.shape
    width = mlp2.words.shape[2] * 8
    shape = _shape(tiles.down, pairs, experts, invariant)
    grid = (pairs // shape["BM"] + experts, triton.cdiv(hidden, 2 * shape["BN"]))
    operands = (inner, mlp2.words, mlp2.scales, mlp2.bias, order, starts, shares, outer)
    sizes = (experts, triton.next_power_of_2(experts), hidden, width, padded(width))
    _down_kernel[grid](*operands, *sizes, **shape)


def combine(outer: Tensor, x: Tensor) -> None:
    """Adds to each row of x [T, C] its A rows of outer [T * A, C]."""
    tokens, hidden = x.shape
    grid = (tokens, triton.cdiv(hidden, 1024))
    _combine_kernel[grid](outer, x, len(outer) // tokens, hidden, BLOCK=1024)


def plain_gate_up(
    x: Tensor, mlp1: Matrices, order: Tensor, starts: Tensor, limit: float, used: int
) -> Tensor:
    """`inner` [T * used, padded(F)] float32 in fragment order, from x [T, C] in the order of columns."""
    parts = []
    for expert, (first, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        rows = x[order[first:end].long() // used].float()
        parts.append(clamped_swiglu(rows @ mlp1.decoded(expert).T + mlp1.bias[expert].float(), limit))
    return in_fragments(torch.cat(parts))


def plain_down(inner: Tensor, mlp2: Matrices, order: Tensor, starts: Tensor, shares: Tensor) -> Tensor:
    """`outer` [T * A, C] float32, from inner [T * A, F] in the order of columns."""
    outer = inner.new_empty(len(inner), mlp2.bias.shape[1], dtype=torch.float32)
    for expert, (first, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        pairs = order[first:end].long()
        rows = inner[first:end].float() @ mlp2.decoded(expert).T + mlp2.bias[expert].float()
        outer[pairs] = rows * shares.flatten()[pairs, None]
    return outer
