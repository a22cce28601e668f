"""Rotates queries and keys, and writes keys and values to the cache.

The angles of all positions are computed once, with the function that all backends share, and looked up.

    cos, sin  [positions, D / 2] float32, times YaRN's concentration
    qkv       [T, (H + 2 KV) * D]: queries, keys, values, not yet rotated
    cache     [pages, KV, page_size, D], one layer's: a page of one head is one piece of memory;
              of qkv's type, or in eight bits (fp8.py)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.kernels.fp8 import plain_stored, stored
from model.layers import rotate, rotation


def angles(positions: int, frequencies: Tensor, concentration: float) -> tuple[Tensor, Tensor]:
    """cos and sin of positions 0 to `positions` - 1."""
    return rotation(torch.arange(positions, device=frequencies.device), frequencies, concentration)


@triton.jit
def rotated(start, mask, cos, sin, position, D: tl.constexpr):
    """Heads that begin at the pointers `start`, rotated by the angles of `position`; rounded as in the
    reference.

    start, position  of the same shape; the result has a further last dimension D
    """
    d = tl.arange(0, D)
    half = d % (D // 2)
    own = tl.load(start + d, mask, 0.0).to(tl.float32)
    other = tl.load(start + (d + D // 2) % D, mask, 0.0).to(tl.float32)
    turn_cos = tl.load(cos + position * (D // 2) + half)
    turn_sin = tl.load(sin + position * (D // 2) + half)
    turned = own * turn_cos + tl.where(d < D // 2, -other, other) * turn_sin
    return turned.to(start.dtype.element_ty)


@triton.jit(do_not_specialize=["first_page"], do_not_specialize_on_alignment=["positions", "slots"])
def _write_kernel(
    qkv, cos, sin, positions, slots, keys, values, first_page,
    H: tl.constexpr, KV: tl.constexpr, KV_PAD: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    position, slot = tl.load(positions + token), tl.load(slots + token)
    head = tl.arange(0, KV_PAD)
    row = qkv + token * (H + 2 * KV) * D
    d = tl.arange(0, D)[None, :]
    mask = (head < KV)[:, None] & (d < D)
    key = rotated(row + (H + head[:, None]) * D, mask, cos, sin, position, D)
    value = tl.load(row + (H + KV + head[:, None]) * D + d, mask, 0.0)
    at = ((slot // PAGE - first_page) * KV + head[:, None]) * (PAGE * D) + (slot % PAGE) * D + d
    if slot >= 0:
        tl.store(keys + at, stored(key, keys.dtype.element_ty), mask)
        tl.store(values + at, stored(value, values.dtype.element_ty), mask)


def write(
    qkv: Tensor,
    turn: tuple[Tensor, Tensor],
    positions: Tensor,
    slots: Tensor,
    keys: Tensor,
    values: Tensor,
    first_page: int,
    heads: int,
) -> None:
    """Writes each token's rotated key, and its value, to its slot.

    turn        cos and sin, see above
    positions   [T] int64
    slots       [T] int64: page * page_size + offset; negative: nothing is written
    first_page  the number of keys[0]
    """
    _, kv_heads, page_size, dim = keys.shape
    sizes = (heads, kv_heads, triton.next_power_of_2(kv_heads), dim, page_size)
    _write_kernel[(len(positions),)](
        qkv, *turn, positions, slots, keys, values, first_page, *sizes, num_warps=1
    )


def plain_write(
    qkv: Tensor,
    turn: tuple[Tensor, Tensor],
    positions: Tensor,
    slots: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
) -> None:
    _, kv_heads, page_size, dim = keys.shape
    _, key, value = qkv.view(len(qkv), -1, dim).split([heads, kv_heads, kv_heads], 1)
    pages, offsets = slots // page_size, slots % page_size
    key = rotate(key, turn[0][positions], turn[1][positions])
    for pool, written in ((keys, key), (values, value)):
        bits = pool.view(torch.uint8)  # torch has no index_put for eight-bit floats
        bits[pages, :, offsets] = plain_stored(written, pool.dtype).view(torch.uint8)
