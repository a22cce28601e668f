"""Attention of a step in which every sequence has one token: rotation, cache write and attention in one
kernel.

A program computes the query heads of one sequence that share a key head, over one of `splits` parts of the
keys, so that few sequences with long contexts still fill the device.  The token's own key and value are not
yet in the cache: split 0 writes them there, and uses them as the cache stores them (rounded, if it is fp8).
With one split, it writes the result; with more, the last one to finish adds their sums:

    split 0     sink, own key, keys [first, first + part)     m, l, sum of 2 ** (score - m) * value
    split 1     keys [first + part, first + 2 part)           m, l, ...
    ...

The grid depends only on T, so that a captured graph stays valid while contexts grow: while they are short,
some splits have no keys, and do nothing.  A row with slot -1 only pads the batch: it writes nothing to the
cache, and its result is arbitrary but finite.

Online softmax: arXiv:1805.02867; split over keys: Flash-Decoding; sinks: gpt-oss model card, section 2.2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.kernels.dependent_launch import await_previous, launch_next
from model.backends.triton.kernels.fp8 import numbers, stored
from model.backends.triton.kernels.last_arrival import arrives_last
from model.backends.triton.kernels.rotary import rotated
from model.batch import Batch

LOG2_E = tl.constexpr(1.4426950408889634)
"""Scores are exponents of two, because the hardware's exponential is 2 ** x."""

TILE = {"BN": 64, "num_warps": 4, "num_stages": 5}
"""Keys that are computed together.  A key's address comes from the page table, so two loads depend on each
other: with fewer than five stages, Triton allocates only one tile, and nothing is loaded while a program
computes.
"""


SPLITS_AT_ONCE = 16
"""Splits whose sums are loaded at once, 16 KB each for 20b.  With more, fewer than four programs would fit on
a multiprocessor: this takes 128 registers with Triton 3.7.1, 123 with 3.6.
"""


def splits_at_once(capability: tuple[int, int]) -> int:
    """The same on a GPU of this compute capability: on some, 16 need a few more registers than there are."""
    return SPLITS_AT_ONCE // 2 if capability in ((8, 9), (10, 0), (10, 3)) else SPLITS_AT_ONCE


@triton.jit
def _part_of(length, WINDOW: tl.constexpr, SPLITS: tl.constexpr, BN: tl.constexpr):
    """For the keys before the newest one: the first visible, the number of each split, and how many splits
    have keys, where split 0 always counts.
    """
    first = 0
    if WINDOW > 0:
        first = tl.maximum(length - WINDOW, 0)
    seen = tl.maximum(length - 1 - first, 0)
    part = tl.cdiv(tl.cdiv(seen, SPLITS), BN) * BN
    return first, part, tl.maximum(tl.cdiv(seen, tl.maximum(part, 1)), 1)


@triton.jit(
    do_not_specialize=["table_width", "first_page"],
    do_not_specialize_on_alignment=["positions", "slots", "lengths", "page_table"],
)
def _decode_kernel(
    qkv, cos, sin, positions, slots, lengths, page_table, table_width, keys, values, first_page,
    sinks, scale, out, arrivals, part_max, part_sum, part_out,
    H: tl.constexpr, KV: tl.constexpr, G_UP: tl.constexpr, G_PAD: tl.constexpr, D: tl.constexpr,
    PAGE: tl.constexpr, WINDOW: tl.constexpr, SPLITS: tl.constexpr, AT_ONCE: tl.constexpr, PDL: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    launch_next(PDL)
    token, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    position, length = tl.load(positions + token), tl.load(lengths + token)
    first, part, used = _part_of(length, WINDOW, SPLITS, BN)
    await_previous(PDL)
    if split < used:
        G: tl.constexpr = H // KV
        group, d = tl.arange(0, G_PAD), tl.arange(0, D)
        head = kv_head * G + group
        row = qkv + token * (H + 2 * KV) * D
        mask = (group < G)[:, None] & (d[None, :] < D)
        q = rotated(row + head[:, None] * D, mask, cos, sin, position, D)

        highest = tl.full([G_PAD], float("-inf"), tl.float32)
        total = tl.zeros([G_PAD], tl.float32)
        seen = tl.zeros([G_PAD, D], tl.float32)
        if split == 0:
            own_key = stored(
                rotated(row + (H + kv_head) * D, d < D, cos, sin, position, D), keys.dtype.element_ty
            )
            own_value = stored(tl.load(row + (H + KV + kv_head) * D + d), values.dtype.element_ty)
            slot = tl.load(slots + token)
            at = ((slot // PAGE - first_page) * KV + kv_head) * (PAGE * D) + (slot % PAGE) * D + d
            if slot >= 0:
                tl.store(keys + at, own_key)
                tl.store(values + at, own_value)
            score = tl.sum(q.to(tl.float32) * numbers(own_key, tl.float32)[None, :], 1) * scale
            sink = tl.load(sinks + head, group < G, 0.0) * LOG2_E
            highest = tl.maximum(score, sink)
            share = tl.exp2(score - highest)
            total = share + tl.exp2(sink - highest)
            seen = share[:, None] * numbers(own_value, tl.float32)[None, :]

        begin = first + split * part
        end = tl.minimum(begin + part, length - 1)
        for start in range(begin, end, BN):
            key = start + tl.arange(0, BN)
            visible = key < end
            page = tl.load(page_table + token * table_width + key // PAGE, visible, 0).to(tl.int64)
            at = ((page - first_page) * KV + kv_head) * (PAGE * D) + (key % PAGE) * D
            k = tl.load(keys + at[None, :] + d[:, None], visible[None, :] & (d[:, None] < D), 0.0)
            v = tl.load(values + at[:, None] + d[None, :], visible[:, None] & (d[None, :] < D), 0.0)
            k, v = numbers(k, q.dtype), numbers(v, q.dtype)
            scores = tl.dot(q, k, input_precision="ieee") * scale
            scores = tl.where(visible[None, :], scores, float("-inf"))
            higher = tl.maximum(highest, tl.max(scores, 1))
            shrink = tl.exp2(highest - higher)
            shares = tl.exp2(scores - higher[:, None])
            total = total * shrink + tl.sum(shares, 1)
            seen = tl.dot(shares.to(v.dtype), v, seen * shrink[:, None], input_precision="ieee")
            highest = higher

        if SPLITS == 1:
            at = out + (token * H + head[:, None]) * D + d[None, :]
            tl.store(at, (seen / total[:, None]).to(out.dtype.element_ty), mask)
        else:
            place = (token * SPLITS + split) * H + head
            tl.store(part_max + place, highest, group < G)
            tl.store(part_sum + place, total, group < G)
            tl.store(part_out + place[:, None] * D + d[None, :], seen, mask)
            if arrives_last(arrivals + token * KV + kv_head, used):
                first_head, to = token * SPLITS * H + kv_head * G, out + (token * H + kv_head * G) * D
                _add_up(part_max, part_sum, part_out, first_head, to, used, H, G, G_UP, D, AT_ONCE)


@triton.jit
def _add_up(
    part_max, part_sum, part_out, first, out, used,
    H: tl.constexpr, G: tl.constexpr, G_UP: tl.constexpr, D: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """Adds the sums of `used` splits of G heads and writes them to `out` [G, D].  `first`: place of the first
    head in split 0.
    """
    group, d = tl.arange(0, G_UP), tl.arange(0, D)
    highest = tl.full([G_UP], float("-inf"), tl.float32)
    total = tl.zeros([G_UP], tl.float32)
    seen = tl.zeros([G_UP, D], tl.float32)
    for begin in range(0, used, AT_ONCE):
        maxima, sums, parts = (), (), ()
        for each in tl.static_range(AT_ONCE):  # all loads are issued before the first is complete
            split = begin + each + tl.zeros_like(group)
            mask = (group < G) & (split < used)
            place = first + split * H + group
            maxima = maxima + (tl.load(part_max + place, mask, float("-inf")),)  # type: ignore[assignment]
            sums = sums + (tl.load(part_sum + place, mask, 0.0),)  # type: ignore[assignment]
            here = part_out + place[:, None] * D + d[None, :]
            parts = parts + (tl.load(here, mask[:, None], 0.0),)  # type: ignore[assignment]
        higher = highest
        for each in tl.static_range(AT_ONCE):
            higher = tl.maximum(higher, maxima[each])  # finite, because split 0 has the sink
        shrink = tl.exp2(highest - higher)
        total *= shrink
        seen *= shrink[:, None]
        for each in tl.static_range(AT_ONCE):
            weight = tl.exp2(maxima[each] - higher)
            total += sums[each] * weight
            seen += parts[each] * weight[:, None]
        highest = higher
    result = (seen / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + group[:, None] * D + d[None, :], result, (group < G)[:, None])


def attend(
    qkv: Tensor,
    turn: tuple[Tensor, Tensor],
    keys: Tensor,
    values: Tensor,
    first_page: int,
    sinks: Tensor,
    batch: Batch,
    kind: int,
    window: int | None,
    out: Tensor,
    splits: int = 1,
    pdl: bool = False,
    arrivals: Tensor | None = None,
    at_once: int | None = None,
) -> None:
    """For each sequence's one token, writes key and value to its slot, and its attention to out [T, H * D].

    qkv     [T, (H + 2 KV) * D]          not yet rotated
    turn    cos and sin, see rotary.py
    keys    [pages, KV, page_size, D]    of one layer, possibly in eight bits (fp8.py); changed in place.  The
            same for values
    first_page  the number of keys[0]
    sinks   [H] float32
    kind    the row of the batch's slots and page_table: BANDED or FULL
    window  keys a query may see, itself included; None for all
    splits  number of parts into which the keys are divided, computed in parallel
    pdl     whether it may begin while the previous kernel ends, see dependent_launch.py
    arrivals  [T * KV] or more, int32: zeros, before and after (last_arrival.py); None for new ones
    at_once   splits that are added up at once, see splits_at_once; None: SPLITS_AT_ONCE
    """
    tokens, (_, kv_heads, page_size, dim), heads = len(qkv), keys.shape, len(sinks)
    table = batch.page_table[kind]
    part_max = part_sum = part_out = None
    if splits > 1:
        part_max, part_sum = torch.empty(2, tokens, splits, heads, dtype=torch.float32, device=qkv.device)
        part_out = torch.empty(tokens, splits, heads, dim, dtype=torch.float32, device=qkv.device)
        if arrivals is None:
            arrivals = torch.zeros(tokens * kv_heads, dtype=torch.int32, device=qkv.device)
        assert len(arrivals) >= tokens * kv_heads
    _decode_kernel[(tokens, kv_heads, splits)](
        qkv,
        *turn,
        batch.positions,
        batch.slots[kind],
        batch.lengths,
        table,
        table.stride(0),
        keys,
        values,
        first_page,
        sinks,
        LOG2_E.value / dim**0.5,
        out,
        arrivals if splits > 1 else None,
        part_max,
        part_sum,
        part_out,
        H=heads,
        KV=kv_heads,
        G_UP=triton.next_power_of_2(heads // kv_heads),
        G_PAD=max(16, triton.next_power_of_2(heads // kv_heads)),
        D=dim,
        PAGE=page_size,
        WINDOW=window or 0,
        SPLITS=splits,
        AT_ONCE=min(at_once or SPLITS_AT_ONCE, triton.next_power_of_2(splits)),
        PDL=pdl,
        **TILE,
        launch_pdl=pdl,
    )
