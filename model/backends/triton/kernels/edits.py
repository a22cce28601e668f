"""What changes logits before tokens are chosen, where the logits are: penalties, biases, masks.

    records   a program per row: a list of tokens, some hundred of two hundred thousand, is read, changed and
              written where they lie.  It adds the token that the step before has chosen and nobody has seen
              yet, so that steps with penalties overlap too
    masks     a program per 1,024 tokens of a row that has one: writes minus infinity, and reads no logit

model/logit_edits.py is the plain version, and what numbers mean.  The bits are the same: quotients are
rounded as PyTorch rounds them, and no product is fused with a sum."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from model import logit_edits as plain
from model.logit_edits import Edits

RECORDS = 512
"""That a program looks at together."""

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
"""Where pieces of larger tensors begin: no reason to compile again."""


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
    times = 0  # that `last` is in the list: once, or not at all
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
    """Penalties, then biases, then masks.

    logits  [N, V] float32, changed in place
    latest  [N] int64, one more token of each row's answer, that no record counts; None: all are counted
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
