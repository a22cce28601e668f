"""Products with dense weights: QKV, attention's output, unembedding; with RMSNorm, bias and residual inside.

    out  [N, outputs]   =   norm(x)[rows] @ weight.T  + bias   (+ out)

A decode step reads each weight once and computes little, so its time is bytes over bandwidth.  The root mean
square is a factor of the whole row, so it is computed together with the product, and the row is read only
once.

    one row          a warp for every few outputs, no shared memory: products in float32
    several rows     tensor cores, weights on the left; tokens are padded to the smallest tile

Weights are as they were trained, or in eight bits (dense_int8.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.kernels import dense_int8
from model.backends.triton.kernels.dense_int8 import Quantised
from model.backends.triton.kernels.dependent_launch import await_previous, launch_next
from model.layers import rms_norm

Dense = Tensor | Quantised
"""A matrix of weights [outputs, K] in either format."""

ROW_TILE = {"BN": 4, "BK": 256, "num_warps": 1}
"""For one row: a lane loads eight numbers, 16 bytes, at a time."""

AHEAD = 512
"""Columns of weights that a program for one row loads before it waits for the previous kernel
(dependent_launch.py)."""

AT_ONCE = 8
"""Maximum tiles that are loaded together: for all 4,096 columns at once there are not enough registers."""

SMALL_TILE = {"BN": 16, "BK": 128, "num_warps": 1, "num_stages": 5}
LARGE_TILE = {"BN": 64, "BK": 64, "num_warps": 4, "num_stages": 4}
"""For several rows: small, so that every multiprocessor has tiles, and many bytes are in flight."""

INVARIANT_ROWS = 64
"""Rows of a tile with `invariant`, whatever the number of rows, because no sum may depend on it."""


@triton.jit
def _tile(weight, n, inside, k, K: tl.constexpr):
    """Weights [BN, BK] of outputs n, columns k."""
    return tl.load(weight + n[:, None].to(tl.int64) * K + k[None, :], inside[:, None] & (k[None, :] < K), 0.0)


@triton.jit
def _first_tiles(weight, n, inside, K: tl.constexpr, BK: tl.constexpr, AHEAD: tl.constexpr):
    """The tiles of columns 0 to AHEAD."""
    tiles = ()
    for first in tl.static_range(0, AHEAD, BK):
        tiles = tiles + (_tile(weight, n, inside, first + tl.arange(0, BK), K),)  # type: ignore[assignment]
    return tiles


@triton.jit
def _added(products, squares, w, x, norm, first, K: tl.constexpr, NORM: tl.constexpr, BK: tl.constexpr):
    """Adds the products of one tile of weights w [BN, BK], and the squares of its columns of x."""
    k = first + tl.arange(0, BK)
    row = tl.load(x + k, k < K, 0.0).to(tl.float32)
    if NORM:
        squares += row * row
        row *= tl.load(norm + k, k < K, 0.0).to(tl.float32)
    return products + w.to(tl.float32) * row[None, :], squares


@triton.jit(do_not_specialize_on_alignment=["rows"])
def _row_kernel(
    x, rows, norm, weight, bias, out, eps,
    OUTPUTS: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr,
    ADD: tl.constexpr, PDL: tl.constexpr, AHEAD: tl.constexpr, AT_ONCE: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    launch_next(PDL)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = n < OUTPUTS
    if PDL:
        ahead = _first_tiles(weight, n, inside, K, BK, AHEAD)
    await_previous(PDL)
    if ROWS:
        x += tl.load(rows) * K
    products = tl.zeros([BN, BK], tl.float32)
    squares = tl.zeros([BK], tl.float32)
    for first in tl.static_range(0, AHEAD, BK):
        products, squares = _added(products, squares, ahead[first // BK], x, norm, first, K, NORM, BK)
    for begin in tl.range(AHEAD, K, AT_ONCE * BK, num_stages=1):
        for tile in tl.static_range(AT_ONCE):
            at = begin + tile * BK
            w = _tile(weight, n, inside, at + tl.arange(0, BK), K)
            products, squares = _added(products, squares, w, x, norm, at, K, NORM, BK)
    total = tl.sum(products, 1)
    if NORM:
        total *= 1.0 / tl.sqrt(tl.sum(squares, 0) / K + eps)
    if BIAS:
        total += tl.load(bias + n, inside, 0.0).to(tl.float32)
    if ADD:
        total += tl.load(out + n, inside, 0.0).to(tl.float32)
    tl.store(out + n, total.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["num_rows"], do_not_specialize_on_alignment=["rows"])
def _rows_kernel(
    x, rows, norm, weight, bias, out, eps, num_rows,
    OUTPUTS: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr,
    ADD: tl.constexpr, PDL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    launch_next(PDL)
    await_previous(PDL)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    m = tl.program_id(1) * BM + tl.arange(0, BM)
    n_inside, m_inside = n < OUTPUTS, m < num_rows
    row = m
    if ROWS:
        row = tl.load(rows + m, m_inside, 0)
    products = tl.zeros([BN, BM], tl.float32)
    squares = tl.zeros([BM], tl.float32)
    for first in range(0, K, BK):
        k = first + tl.arange(0, BK)
        w = _tile(weight, n, n_inside, k, K)
        columns = tl.load(
            x + row[None, :].to(tl.int64) * K + k[:, None], m_inside[None, :] & (k[:, None] < K), 0.0
        )
        if NORM:
            wide = columns.to(tl.float32)
            squares += tl.sum(wide * wide, 0)
            scale = tl.load(norm + k, k < K, 0.0).to(tl.float32)
            columns = (wide * scale[:, None]).to(weight.dtype.element_ty)
        products = tl.dot(w, columns, products, input_precision="ieee")
    if NORM:
        products *= (1.0 / tl.sqrt(squares / K + eps))[None, :]
    if BIAS:
        products += tl.load(bias + n, n_inside, 0.0).to(tl.float32)[:, None]
    at = out + m[None, :].to(tl.int64) * OUTPUTS + n[:, None]
    mask = n_inside[:, None] & m_inside[None, :]
    if ADD:
        products += tl.load(at, mask, 0.0).to(tl.float32)
    tl.store(at, products.to(out.dtype.element_ty), mask)


def product(
    x: Tensor,
    weight: Dense,
    out: Tensor,
    *,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 1e-5,
    rows: Tensor | None = None,
    add: bool = False,
    invariant: bool = False,
    pdl: bool = False,
) -> Tensor:
    """out = norm(x)[rows] @ weight.T + bias, added to `out` if `add`; returns `out`.

    x       [T, K] contiguous, in the dtype of the weights unless they are in eight bits
    weight  [outputs, K] contiguous
    out     [N, outputs] contiguous, of any floating dtype; sums are float32
    norm    [K] scale of an RMSNorm of x; None for none
    rows    [N] int64, the rows of x to use; None for all
    invariant  whether a row's result must be bit-identical whatever other rows there are
    pdl     whether it may begin while the previous kernel ends, see dependent_launch.py
    """
    num_rows, (outputs, width) = len(out), weight.shape
    one_row = num_rows == 1 and not invariant
    rows_tile = INVARIANT_ROWS if invariant else min(max(16, triton.next_power_of_2(num_rows)), 128)
    if isinstance(weight, Quantised):
        dense_int8.product(x, weight, out, bias, norm, eps, rows, add, 1 if one_row else rows_tile, pdl)
        return out
    sizes = (outputs, width, norm is not None, rows is not None, bias is not None, add, pdl)
    operands = (x, rows, norm, weight, bias, out, eps)
    if one_row:
        ahead = min(AHEAD, width) if pdl else 0
        programs = triton.cdiv(outputs, ROW_TILE["BN"])
        tiles = triton.cdiv(width - ahead, ROW_TILE["BK"])
        at_once = triton.cdiv(tiles, triton.cdiv(tiles, AT_ONCE)) if tiles else 1
        _row_kernel[(programs,)](*operands, *sizes, ahead, at_once, **ROW_TILE, launch_pdl=pdl)
    elif num_rows:
        tile = SMALL_TILE if outputs <= 16384 and rows_tile == 16 else LARGE_TILE
        grid = (triton.cdiv(outputs, tile["BN"]), triton.cdiv(num_rows, rows_tile))
        _rows_kernel[grid](*operands, num_rows, *sizes, BM=rows_tile, **tile, launch_pdl=pdl)
    return out


def plain_product(
    x: Tensor,
    weight: Dense,
    out: Tensor,
    *,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 1e-5,
    rows: Tensor | None = None,
    add: bool = False,
) -> Tensor:
    """The same in float32, without changing `out`: returns [N, outputs] float32."""
    x = x.float() if rows is None else x[rows].float()
    if norm is not None:
        x = rms_norm(x, norm, eps)
    total = F.linear(x, decoded(weight), None if bias is None else bias.float())
    return total + out.float() if add else total


def decoded(weight: Dense, rows: slice = slice(None)) -> Tensor:
    """Some rows of the weights in float32, for comparison."""
    return weight.decoded(rows) if isinstance(weight, Quantised) else weight[rows].float()


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The library's product, for steps of many tokens, where arithmetic is the limit and the library
    is fast.
    """
    return torch.addmm(bias, x, weight.T)


def add_linear(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """out [T, outputs] += x [T, K] @ weight.T, with one kernel of the library, which cannot add a
    bias too.
    """
    out.addmm_(x, weight.T)
