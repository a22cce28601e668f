"""Penalties, biases and masks: edits of the logits before tokens are chosen, on the device.

    records   one program for each row: reads, changes and writes the logits of a list of tokens, about a
              hundred of 200,000.  It also counts the token that the previous step has chosen and the host
              does not know yet, so that steps with penalties can overlap too
    masks     one program for each 1,024 tokens of a row that has a mask: writes minus infinity, reads no
              logit

model/logit_edits.py is the plain version, and explains the numbers.  The results are bit-identical: quotients
are rounded as in PyTorch, and no product is fused with a sum.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from model import logit_edits as plain
from model.logit_edits import Edits

RECORDS = 512
"""Number of records that a program processes at once."""

BLOCK = 1024

RECORD = tl.constexpr(4)
TOKEN, COUNT, BIAS, PROMPT = map(tl.constexpr, (plain.TOKEN, plain.COUNT, plain.BIAS, plain.PROMPT))


@triton.jit
def _penalised(x, count, in_prompt, repetition, presence, frequency):
    """Logits x of tokens that are in the answer `count` times."""
    repeated = tl.where(x > 0, tl.div_rn(x, repetition), x * repetition)
    x = tl.where(in_prompt | (count > 0), repeated, x)
    return x - tl.where(count > 0, presence, 0.0) - frequency * count.to(tl.float32)


_PIECES = ["records", "starts", "penalties", "latest", "masked", "masks"]
"""Pointers into larger tensors.  Triton must not compile again for another alignment of them."""


@triton.jit(do_not_specialize=["row_size"], do_not_specialize_on_alignment=_PIECES[:-2])
def _records_kernel(
    logits, row_size, records, starts, penalties, latest, LATEST: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Program (row)."""
    row, rows = tl.program_id(0), tl.num_programs(0)
    logits += row.to(tl.int64) * row_size
    repetition = tl.load(penalties + row)
    presence = tl.load(penalties + rows + row)
    frequency = tl.load(penalties + 2 * rows + row)
    first, end = tl.load(starts + row), tl.load(starts + row + 1)
    if LATEST:
        last = tl.load(latest + row)
    times = 0  # how often `last` is in the list: at most once
    for begin in range(first, end, BLOCK):
        record = begin + tl.arange(0, BLOCK)
        real = record < end
        at = records + record.to(tl.int64) * RECORD
        token = tl.load(at + TOKEN, real, -1)
        count = tl.load(at + COUNT, real, 0)
        bias = tl.load(at + BIAS, real, 0).to(tl.float32, bitcast=True)
        in_prompt = tl.load(at + PROMPT, real, 0) > 0
        if LATEST:
            again = (token == last).to(tl.int32)
            count += again
            times += tl.sum(again, 0)
        x = tl.load(logits + token, real, 0.0)
        x = _penalised(x, count, in_prompt, repetition, presence, frequency) + bias
        tl.store(logits + token, x, real)
    if LATEST and times == 0:
        only = tl.arange(0, 1) == 0
        place = logits + last + tl.arange(0, 1)
        x = tl.load(place)
        tl.store(place, _penalised(x, only.to(tl.int32), only, repetition, presence, frequency))


@triton.jit(do_not_specialize=["row_size", "size", "words"], do_not_specialize_on_alignment=_PIECES[-2:])
def _masks_kernel(logits, row_size, size, masked, masks, words, BLOCK: tl.constexpr):
    """Program (block, mask)."""
    block, mask = tl.program_id(0), tl.program_id(1)
    token = block * BLOCK + tl.arange(0, BLOCK)
    word = tl.load(masks + mask.to(tl.int64) * words + token // 32, token < size, -1)
    row = tl.load(masked + mask).to(tl.int64)
    forbidden = ((word >> (token % 32)) & 1) == 0
    nothing = tl.full([BLOCK], float("-inf"), tl.float32)
    tl.store(logits + row * row_size + token, nothing, (token < size) & forbidden)


def edit_logits(logits: Tensor, edits: Edits, latest: Tensor | None = None) -> None:
    """Apply penalties, then biases, then masks.

    logits  [N, V] float32, changed in place
    latest  [N] int64, the last token of each row's answer, which the records do not count; None: they count
            all
    """
    rows, size = logits.shape
    if len(edits.records) or latest is not None:
        _records_kernel[(rows,)](
            logits,
            logits.stride(0),
            edits.records,
            edits.starts,
            edits.penalties,
            latest,
            LATEST=latest is not None,
            BLOCK=RECORDS,
            num_warps=4,
            enable_fp_fusion=False,
        )
    if len(edits.masked):
        words = edits.masks.shape[1]
        _masks_kernel[(triton.cdiv(size, BLOCK), len(edits.masked))](
            logits, logits.stride(0), size, edits.masked, edits.masks, words, BLOCK=BLOCK, num_warps=4
        )
