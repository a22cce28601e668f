"""Edits: penalties, biases and masks that change the logits of a step before tokens are chosen.

The names are those of SamplingParams (engine/request.py).  `edit` is plain PyTorch, and defines the correct
result: a model that samples on its own device (model/draws.py) edits its logits there, with bit-identical
results.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from model.transfer import Link

TOKEN, COUNT, BIAS, PROMPT = range(4)
"""The fields of a record, in order."""


@dataclass(frozen=True, slots=True)
class Edits:
    """The edits of N rows.

    records    [K, 4] int32    one for each token, each token at most once for a row: its id, how often it is
               in the answer, the number added to its logit (the bits of a float32; minus infinity: not
               allowed), and 1 if it is in a prompt whose tokens are penalised, else 0
    starts     [N + 1] int32   row n has records starts[n] : starts[n + 1]
    penalties  [3, N] float32  repetition, presence, frequency; 1, 0 and 0 do nothing
    masked     [M] int32       the rows that have a mask, each once
    masks      [M, ceil(V / 32)] int32  whether token t is allowed: bit t % 32 of word t // 32
    """

    records: Tensor
    starts: Tensor
    penalties: Tensor
    masked: Tensor
    masks: Tensor


def upload(
    link: Link,
    records: Sequence[array[int]],
    penalties: Sequence[tuple[float, float, float]],
    masks: Mapping[int, memoryview | bytes],
) -> Edits:
    """The edits, uploaded in one copy.

    records    for each of N rows, four numbers for each token
    penalties  for each row: repetition, presence, frequency
    masks      row → its mask, all of the same number of whole words
    """
    rows, count = len(records), len(masks)
    numbers = array("i", accumulate((len(each) // 4 for each in records), initial=0))
    for kind in zip(*penalties, strict=True):
        numbers.frombytes(array("f", kind).tobytes())
    numbers.extend(masks)
    for each in records:
        numbers += each
    for mask in masks.values():
        numbers.frombytes(mask)

    _, there = link.upload(array("q"), numbers)
    sizes = (rows + 1, 3 * rows, count, sum(map(len, records)))
    starts, rates, which, flat, words = there.tensor_split(list(accumulate(sizes)))
    return Edits(
        records=flat.view(-1, 4),
        starts=starts,
        penalties=rates.view(torch.float32).view(3, rows),
        masked=which,
        masks=words.view(count, len(words) // count if count else 0),
    )


def edit(logits: Tensor, edits: Edits, latest: Tensor | None = None) -> None:
    """Apply penalties, then biases, then masks.

    logits  [N, V] float32, changed in place
    latest  [N] int64, the last token of each row's answer, if the records do not count it yet

    The logit x of a token that is in the answer `count` times becomes

        (x / repetition if x > 0 else x * repetition) - presence * (count > 0) - frequency * count + bias

    where the repetition penalty applies to tokens in prompt or answer.  Logits of tokens that a mask does not
    allow become minus infinity.
    """
    if len(edits.records) or latest is not None:
        _edit_tokens(logits, edits, latest)
    if len(edits.masked):
        octets = edits.masks.view(torch.uint8)[..., None]
        bits = (octets >> torch.arange(8, dtype=torch.uint8, device=logits.device)) & 1
        forbidden = bits.view(len(bits), -1)[:, : logits.shape[1]] == 0
        rows = edits.masked.long()
        logits[rows] = logits[rows].masked_fill_(forbidden, -torch.inf)


def _edit_tokens(logits: Tensor, edits: Edits, latest: Tensor | None) -> None:
    every = torch.arange(len(logits), device=logits.device)
    rows = every.repeat_interleave(edits.starts.diff(), output_size=len(edits.records))
    tokens, counts, biases, in_prompt = edits.records.unbind(1)
    if latest is not None:
        again = tokens == latest[rows]
        counts = counts + again
        new = torch.ones_like(every, dtype=torch.bool)
        new[rows[again]] = False
        rows, tokens = torch.cat((rows, every[new])), torch.cat((tokens, latest[new]))
        nothing = torch.zeros_like(every[new], dtype=torch.int32)
        counts, biases, in_prompt = (torch.cat((column, nothing)) for column in (counts, biases, in_prompt))
        counts[len(edits.records) :] = 1

    at = rows, tokens.long()
    repetition, presence, frequency = edits.penalties[:, rows]
    x = logits[at]
    repeated = torch.where(x > 0, x / repetition, x * repetition)
    x = torch.where(counts + in_prompt > 0, repeated, x)
    logits[at] = x - presence * (counts > 0) - frequency * counts + biases.view(torch.float32)
