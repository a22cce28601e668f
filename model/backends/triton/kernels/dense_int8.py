"""Dense weights in eight bits: the format of `--dense int8` for attention and unembedding, and its products.

    codes   [outputs, K] int8       scales  [outputs, K / 64, rounded up] bfloat16

Each 64 weights along K share a scale: the largest of them is 127 times the scale.  Scales are bfloat16, like
the weights, so they have the same range.  Codes are calculated from the rounded scale, so its few bits add no
error.  The last group may be shorter (not for 2880 = 45 x 64 and 4096 = 64 x 64).

A code is a whole number up to 127, which is exact as a bfloat16: codes are multiplied, and each group's sum
is scaled in float32.  So the only error is that of the codes.

    one row          as in dense.py; a lane's sixteen codes are in one group, which four lanes share
    several rows     tensor cores, one group at a time
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.kernels.dependent_launch import await_previous, launch_next

GROUP = 64
"""Weights that share a scale."""

ROW_TILE = {"BN": 4, "BG": 8, "num_warps": 1}
"""For one row: outputs, and groups along K.  A lane loads 16 bytes at a time."""

SMALL_TILE = {"BN": 16, "num_warps": 1, "num_stages": 6}
LARGE_TILE = {"BN": 64, "num_warps": 4, "num_stages": 4}
LARGEST_TILE = {"BN": 64, "num_warps": 8, "num_stages": 4}
"""For several rows.  There are two sets of sums, and those of 128 rows need the registers of eight warps."""

_GROUP = tl.constexpr(GROUP)
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Quantised:
    """A matrix [outputs, K] in eight bits; see above."""

    codes: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes

    def __len__(self) -> int:
        return len(self.codes)

    def decoded(self, rows: slice = slice(None)) -> Tensor:
        """Some rows, float32: for comparison."""
        codes, width = self.codes[rows].float(), self.shape[1]
        return codes * self.scales[rows].float().repeat_interleave(GROUP, 1)[:, :width]


def quantise(weight: Tensor, device: torch.device) -> Quantised:
    """weight [outputs, K], on any device, in eight bits on `device`.  Only a few rows at a time are copied
    there unquantised.

    A group with a weight that is not finite becomes NaN.
    """
    outputs, width = weight.shape
    groups = -(-width // GROUP)
    codes = torch.empty(outputs, width, dtype=torch.int8, device=device)
    scales = torch.empty(outputs, groups, dtype=torch.bfloat16, device=device)
    for first in range(0, outputs, _ROWS_AT_ONCE):
        rows = slice(first, min(first + _ROWS_AT_ONCE, outputs))
        wide = torch.nn.functional.pad(weight[rows].to(device).float(), (0, groups * GROUP - width))
        wide = wide.view(-1, groups, GROUP)
        scales[rows] = wide.abs().amax(-1) / 127
        steps = scales[rows].float()[..., None]
        whole = torch.where(steps > 0, wide / steps, 0).round_().clamp_(-127, 127)
        codes[rows] = whole.view(-1, groups * GROUP)[:, :width]
    return Quantised(codes, scales)


@triton.jit
def _tile(codes, n, inside, group, K: tl.constexpr):
    """Weights [BN, BG, 64] of outputs n, groups of columns `group`."""
    k = group[:, None] * _GROUP + tl.arange(0, _GROUP)[None, :]
    start = n.to(tl.int64)[:, None, None] * K
    return tl.load(codes + start + k[None, :, :], inside[:, None, None] & (k < K)[None, :, :], 0)


@triton.jit(do_not_specialize_on_alignment=["rows"])
def _row_kernel(
    x, rows, norm, codes, scales, bias, out, eps,
    OUTPUTS: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr,
    ADD: tl.constexpr, PDL: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    launch_next(PDL)
    GROUPS: tl.constexpr = (K + _GROUP - 1) // _GROUP
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = n < OUTPUTS
    if PDL:
        ahead = _tile(codes, n, inside, tl.arange(0, BG), K)
    await_previous(PDL)
    if ROWS:
        x += tl.load(rows) * K
    total = tl.zeros([BN, BG], tl.float32)
    squares = tl.zeros([BG], tl.float32)
    for first in tl.static_range(0, GROUPS, BG):
        group = first + tl.arange(0, BG)
        k = group[:, None] * _GROUP + tl.arange(0, _GROUP)[None, :]
        if PDL and first == 0:
            w = ahead
        else:
            w = _tile(codes, n, inside, group, K)
        row = tl.load(x + k, k < K, 0.0).to(tl.float32)
        if NORM:
            squares += tl.sum(row * row, 1)
            row *= tl.load(norm + k, k < K, 0.0).to(tl.float32)
        sums = tl.sum(w.to(tl.float32) * row[None, :, :], 2)
        mask = inside[:, None] & (group < GROUPS)[None, :]
        total += sums * tl.load(scales + n[:, None] * GROUPS + group[None, :], mask, 0.0).to(tl.float32)
    ended = tl.sum(total, 1)
    if NORM:
        ended *= 1.0 / tl.sqrt(tl.sum(squares, 0) / K + eps)
    if BIAS:
        ended += tl.load(bias + n, inside, 0.0).to(tl.float32)
    if ADD:
        ended += tl.load(out + n, inside, 0.0).to(tl.float32)
    tl.store(out + n, ended.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["num_rows"], do_not_specialize_on_alignment=["rows"])
def _rows_kernel(
    x, rows, norm, codes, scales, bias, out, eps, num_rows,
    OUTPUTS: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr,
    ADD: tl.constexpr, PDL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    launch_next(PDL)
    await_previous(PDL)
    GROUPS: tl.constexpr = (K + _GROUP - 1) // _GROUP
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    m = tl.program_id(1) * BM + tl.arange(0, BM)
    n_inside, m_inside = n < OUTPUTS, m < num_rows
    row = m
    if ROWS:
        row = tl.load(rows + m, m_inside, 0)
    products = tl.zeros([BN, BM], tl.float32)
    squares = tl.zeros([BM], tl.float32)
    for group in range(0, GROUPS):
        k = group * _GROUP + tl.arange(0, _GROUP)
        w = tl.load(codes + n[:, None].to(tl.int64) * K + k[None, :], n_inside[:, None] & (k[None, :] < K), 0)
        columns = tl.load(
            x + row[None, :].to(tl.int64) * K + k[:, None], m_inside[None, :] & (k[:, None] < K), 0.0
        )
        if NORM:
            wide = columns.to(tl.float32)
            squares += tl.sum(wide * wide, 0)
            columns = (wide * tl.load(norm + k, k < K, 0.0).to(tl.float32)[:, None]).to(columns.dtype)
        scale = tl.load(scales + n * GROUPS + group, n_inside, 0.0).to(tl.float32)
        sums = tl.dot(w.to(columns.dtype), columns, input_precision="ieee")
        products += sums * scale[:, None]
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
    weight: Quantised,
    out: Tensor,
    bias: Tensor | None,
    norm: Tensor | None,
    eps: float,
    rows: Tensor | None,
    add: bool,
    rows_tile: int,
    pdl: bool = False,
) -> None:
    """`product` of dense.py for weights in eight bits.

    rows_tile  rows of a tile; 1: there is one row, without tiles
    pdl        whether it may begin while the previous kernel ends, see dependent_launch.py
    """
    num_rows, (outputs, width) = len(out), weight.shape
    sizes = (outputs, width, norm is not None, rows is not None, bias is not None, add, pdl)
    operands = (x, rows, norm, weight.codes, weight.scales, bias, out, eps)
    if rows_tile == 1:
        programs = triton.cdiv(outputs, ROW_TILE["BN"])
        _row_kernel[(programs,)](*operands, *sizes, **ROW_TILE, launch_pdl=pdl)
    elif num_rows:
        tile = LARGE_TILE if rows_tile < 128 else LARGEST_TILE
        tile = SMALL_TILE if outputs <= 16384 and rows_tile == 16 else tile
        grid = (triton.cdiv(outputs, tile["BN"]), triton.cdiv(num_rows, rows_tile))
        _rows_kernel[grid](*operands, num_rows, *sizes, BM=rows_tile, **tile, launch_pdl=pdl)
