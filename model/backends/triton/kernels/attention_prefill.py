"""Attention of a step with longer chunks: blocks of queries against the pages of their sequence.

Keys and values of the step are in the cache already (rotary.write).  A program computes BQ consecutive tokens
of one sequence, with all query heads that share a key head, as the rows of one matrix.  Only the device knows
how many blocks a sequence has, so the number of programs is the maximum, T // BQ + S: sequence s has those
from starts[s] // BQ + s on, of which the last may have nothing to do.

Tiles of keys begin at multiples of their size, so that the result of a query depends neither on its chunk nor
on its neighbours: a tile in which it sees no key changes no bit.  With `part`, the keys are divided into
parts of this many, also counted from the first key, and `merge` adds their sums in order.  So a single token
after many keys fills the device too, and its result is bit-identical to that in a prompt.

FlashAttention-2: arXiv:2307.08691; sinks: gpt-oss model card (arXiv:2508.10925), section 2.2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.backends.reference.arithmetic import Arithmetic
from model.backends.triton.kernels.attention_decode import LOG2_E
from model.backends.triton.kernels.fp8 import numbers, plain_numbers
from model.backends.triton.kernels.rotary import rotated
from model.batch import Batch
from model.layers import rotate


@triton.jit
def _sequence(starts, sequences, block, BQ: tl.constexpr):
    """The sequence to which block `block` of queries belongs, by bisection."""
    low, high = 0, sequences
    while high - low > 1:  # its blocks begin at or before `block` for `low`, and after it for `high`
        middle = (low + high) // 2
        if tl.load(starts + middle) // BQ + middle <= block:
            low = middle
        else:
            high = middle
    return low


@triton.jit(
    do_not_specialize=["sequences", "table_width", "first_page", "parts"],
    do_not_specialize_on_alignment=["positions", "starts", "lengths", "page_table"],
)
def _prefill_kernel(
    qkv, cos, sin, positions, starts, lengths, sequences, page_table, table_width,
    keys, values, first_page, sinks, scale, out, parts, part_max, part_sum, part_out,
    H: tl.constexpr, KV: tl.constexpr, G_PAD: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr,
    WINDOW: tl.constexpr, PART: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    block, kv_head = tl.program_id(0), tl.program_id(1)
    G: tl.constexpr = H // KV
    sequence = _sequence(starts, sequences, block, BQ)
    begin, stop = tl.load(starts + sequence), tl.load(starts + sequence + 1)
    begin += (block - (begin // BQ + sequence)) * BQ
    if begin < stop:
        row, d = tl.arange(0, BQ * G_PAD), tl.arange(0, D)
        token = begin + row // G_PAD
        group = row % G_PAD
        head = kv_head * G + group
        inside = (token < stop) & (group < G)
        position = tl.load(positions + token, inside, 0)
        mask = inside[:, None] & (d[None, :] < D)
        start = qkv + (token.to(tl.int64) * (H + 2 * KV) + head)[:, None] * D
        q = rotated(start, mask, cos, sin, position[:, None], D)

        # Queries of the block see keys in [first, end).
        end = tl.load(lengths + sequence) - (stop - tl.minimum(begin + BQ, stop))
        first = 0
        if WINDOW > 0:
            first = tl.maximum(end - (tl.minimum(begin + BQ, stop) - begin) - WINDOW + 1, 0)
        highest = tl.load(sinks + head, inside, 0.0) * LOG2_E
        total = tl.full([BQ * G_PAD], 1.0, tl.float32)
        part = tl.program_id(2)
        if PART > 0:
            # The sink is in part 0; -1e30 is less than any score, and still a number.
            highest = tl.where(part > 0, -1e30, highest)
            total = tl.where(part > 0, 0.0, total)
            first = part * PART
            needed = (part == 0) | (first < end)
            end = tl.minimum(end, first + PART)
        seen = tl.zeros([BQ * G_PAD, D], tl.float32)
        table = page_table + sequence.to(tl.int64) * table_width
        for at in range(first // BN * BN, end, BN):
            key = at + tl.arange(0, BN)
            there = (key >= first) & (key < end)  # pages behind the window may have been freed
            page = tl.load(table + key // PAGE, there, 0).to(tl.int64)
            place = ((page - first_page) * KV + kv_head) * (PAGE * D) + (key % PAGE) * D
            k = tl.load(keys + place[None, :] + d[:, None], there[None, :] & (d[:, None] < D), 0.0)
            v = tl.load(values + place[:, None] + d[None, :], there[:, None] & (d[None, :] < D), 0.0)
            k, v = numbers(k, q.dtype), numbers(v, q.dtype)
            visible = key[None, :] <= position[:, None]
            if WINDOW > 0:
                visible &= key[None, :] > position[:, None] - WINDOW
            scores = tl.where(visible, tl.dot(q, k, input_precision="ieee") * scale, float("-inf"))
            higher = tl.maximum(highest, tl.max(scores, 1))
            shrink = tl.exp2(highest - higher)
            shares = tl.exp2(scores - higher[:, None])
            total = total * shrink + tl.sum(shares, 1)
            seen = tl.dot(shares.to(v.dtype), v, seen * shrink[:, None], input_precision="ieee")
            highest = higher
        if PART > 0:
            if needed:
                entry = (token.to(tl.int64) * parts + part) * H + head
                tl.store(part_max + entry, highest, inside)
                tl.store(part_sum + entry, total, inside)
                tl.store(part_out + entry[:, None] * D + d[None, :], seen, mask)
        else:
            to = out + (token.to(tl.int64) * H + head)[:, None] * D + d[None, :]
            tl.store(to, (seen / total[:, None]).to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["parts"], do_not_specialize_on_alignment=["positions"])
def _merge_kernel(
    positions, parts, part_max, part_sum, part_out, out,
    H: tl.constexpr, H_PAD: tl.constexpr, D: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Adds one token's parts in order; their number depends on its position."""
    token = tl.program_id(0).to(tl.int64)
    own = (tl.load(positions + token) // PART + 1).to(tl.int32)
    head, d = tl.arange(0, H_PAD), tl.arange(0, D)
    mask = head < H
    highest = tl.full([H_PAD], float("-inf"), tl.float32)
    for part in range(0, own):
        highest = tl.maximum(highest, tl.load(part_max + (token * parts + part) * H + head, mask, 0.0))
    total = tl.zeros([H_PAD], tl.float32)
    seen = tl.zeros([H_PAD, D], tl.float32)
    for part in range(0, own):
        at = (token * parts + part) * H + head
        weight = tl.exp2(tl.load(part_max + at, mask, 0.0) - highest)
        total += tl.load(part_sum + at, mask, 1.0) * weight
        seen += tl.load(part_out + at[:, None] * D + d[None, :], mask[:, None], 0.0) * weight[:, None]
    to = out + (token * H + head)[:, None] * D + d[None, :]
    tl.store(to, (seen / total[:, None]).to(out.dtype.element_ty), mask[:, None])


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
    part: int = 0,
) -> None:
    """Causal attention of all chunks, written to out [T, H * D]; arguments as in attention_decode.py.

    The step's own keys and values are in the cache already.

    part  number of keys in a part, a multiple of 64; 0: all
    """
    (_, kv_heads, page_size, dim), heads, tokens = keys.shape, len(sinks), len(qkv)
    sequences, table = len(batch.lengths), batch.page_table[kind]
    group = triton.next_power_of_2(heads // kv_heads)
    queries = max(1, 128 // group)
    parts, sums = 1, list[Tensor | None]([None] * 3)
    if part:
        parts = triton.cdiv(table.shape[1] * page_size, part)
        shapes = [(tokens, parts, heads, width) for width in (1, 1, dim)]
        sums = [torch.empty(shape, dtype=torch.float32, device=qkv.device) for shape in shapes]
    _prefill_kernel[(tokens // queries + sequences, kv_heads, parts)](
        qkv,
        *turn,
        batch.positions,
        batch.starts,
        batch.lengths,
        sequences,
        table,
        table.stride(0),
        keys,
        values,
        first_page,
        sinks,
        LOG2_E.value / dim**0.5,
        out,
        parts,
        *sums,
        H=heads,
        KV=kv_heads,
        G_PAD=group,
        D=dim,
        PAGE=page_size,
        WINDOW=window or 0,
        PART=part,
        BQ=queries,
        BN=64,
        num_warps=8 if queries * group >= 128 else 4,
        num_stages=3,
    )
    if part:
        sizes = (heads, triton.next_power_of_2(heads), dim, part)
        _merge_kernel[(tokens,)](batch.positions, parts, *sums, out, *sizes)


def plain_attend(
    qkv: Tensor,
    turn: tuple[Tensor, Tensor],
    keys: Tensor,
    values: Tensor,
    sinks: Tensor,
    batch: Batch,
    kind: int,
    window: int | None,
) -> Tensor:
    """The same with the reference kernels, for decodes and longer chunks: [T, H * D].

    The step's own keys and values are in the cache already.
    """
    kv_heads, dim = keys.shape[1], keys.shape[3]
    heads = len(sinks)
    q = qkv.view(len(qkv), -1, dim)[:, :heads]
    q = rotate(q, turn[0][batch.positions], turn[1][batch.positions])
    pages = (
        plain_numbers(keys).to(q.dtype).transpose(1, 2),
        plain_numbers(values).to(q.dtype).transpose(1, 2),
    )
    assert pages[0].shape[2] == kv_heads
    return Arithmetic(swiglu_limit=0.0).attention(q, *pages, sinks, batch, kind, window)
