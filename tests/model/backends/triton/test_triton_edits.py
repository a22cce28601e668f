"""Penalties, biases and masks on the device are bit-identical to the plain version."""

import math
import random
import struct
from dataclasses import replace
from itertools import chain, pairwise

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
from model.backends.triton.kernels import edits as kernels
from model.backends.triton.kernels.edits import edit_logits
from model.backends.triton.kernels.token_choice import choose_tokens, plain_tokens
from model.draws import Draws
from model.logit_edits import Edits, edit
from tests.model.backends.triton.test_triton_sampling import batch, draws, random_logits

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine

SIZE = 2500
"""Two and a half blocks of a mask, and a part of a word."""

LENGTHS = (0, 1, 64, 129, 333)
"""Lengths of the rows' lists: 0, and around the number of records that a program processes at once."""


@pytest.fixture(autouse=True)
def _short_lists(monkeypatch):
    monkeypatch.setattr(kernels, "RECORDS", 64)


def bits(x: float) -> int:
    """The bits of a float32, as an int32."""
    return struct.unpack("i", struct.pack("f", x))[0]


def records(draw: random.Random, length: int, size: int) -> list[list[int]]:
    """Random records, including the last token of the vocabulary, and tokens of the prompt or a bias only."""
    tokens = [*draw.sample(range(size - 1), length - 1), size - 1] if length else []
    counts, biases = (0, 0, 1, 2, 70), (0.0, 0.0, 100.0, -100.0, 0.3, -math.inf)
    return [[token, draw.choice(counts), bits(draw.choice(biases)), draw.randrange(2)] for token in tokens]


def random_edits(seed: int, size: int = SIZE, lengths: tuple[int, ...] = LENGTHS) -> Edits:
    """Edits of rows of all lengths; the first mask allows no token, the second one, the third some."""
    draw, rows = random.Random(seed), len(lengths)
    lists = [records(draw, length, size) for length in lengths]
    allowed = [[], [draw.randrange(size)], draw.sample(range(size), 900)]
    masks = torch.zeros(3, 32 * -(-size // 32), dtype=torch.int64)
    for mask, tokens in zip(masks, allowed, strict=True):
        mask[tokens] = 1
        mask[size:] = 1  # of tokens that do not exist
    words = (masks.view(3, -1, 32) << torch.arange(32)).sum(-1)
    penalties = [
        [draw.choice(choices) for _ in lengths]
        for choices in ((1.0, 1.3, 1e3, 1e-3), (0.0, 0.7, -2.0, 1e3), (0.0, 0.1, -0.9))
    ]
    return Edits(
        records=torch.tensor(list(chain(*lists)), dtype=torch.int32, device=DEVICE).view(-1, 4),
        starts=torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int(),
        penalties=torch.tensor(penalties, device=DEVICE),
        masked=torch.tensor(draw.sample(range(rows), 3), dtype=torch.int32, device=DEVICE),
        masks=(words - (words >> 31 << 32)).int().to(DEVICE),  # as signed words
    )


def no_masks(edits: Edits) -> Edits:
    return replace(edits, masked=edits.masked[:0], masks=edits.masks[:0])


def random_latest(edits: Edits, seed: int, size: int = SIZE) -> torch.Tensor:
    """A token for each row, usually one of its list."""
    draw, starts = random.Random(seed), edits.starts.tolist()
    lists = [edits.records[first:end, 0].tolist() for first, end in pairwise(starts)]
    latest = [draw.choice(tokens if tokens and draw.random() < 0.6 else range(size)) for tokens in lists]
    return torch.tensor(latest, device=DEVICE)


def wide_logits(seed: int, rows: int = len(LENGTHS)) -> torch.Tensor:
    """Rows of a wider tensor, as if the tokenizer had fewer tokens than the model."""
    wide = random_logits(rows, SIZE + 9, seed)
    wide[:, SIZE:] = 99.0
    return wide


def same_bits(got: torch.Tensor, want: torch.Tensor) -> bool:
    return torch.equal(got.nan_to_num(nan=1e30), want.nan_to_num(nan=1e30)) and torch.equal(
        got.isnan(), want.isnan()
    )


@pytest.mark.parametrize("masked", [True, False], ids=["masks", "no masks"])
@pytest.mark.parametrize("ahead", [True, False], ids=["a token in flight", "all known"])
@pytest.mark.parametrize("seed", range(4))
def test_the_kernels_change_logits_as_the_plain_version_does(seed, ahead, masked):
    edits = random_edits(seed) if masked else no_masks(random_edits(seed))
    latest = random_latest(edits, seed) if ahead else None
    got = wide_logits(seed)
    got[3, :SIZE:5] = -torch.inf
    want = got.clone()
    edit_logits(got[:, :SIZE], edits, latest)
    edit(want[:, :SIZE], edits, latest)
    assert (got[:, SIZE:] == 99).all()
    assert same_bits(got, want)
    assert (got != wide_logits(seed)).any()


def test_lists_without_a_token_and_a_token_without_lists():
    nothing = no_masks(random_edits(0, lengths=(0, 0, 0)))
    logits = random_logits(3)
    unchanged = logits.clone()
    edit_logits(unchanged, nothing)
    assert torch.equal(unchanged, logits)
    got, want, latest = logits.clone(), logits.clone(), torch.tensor([0, SIZE - 1, 7], device=DEVICE)
    edit_logits(got, nothing, latest)
    edit(want, nothing, latest)
    assert torch.equal(got, want)
    assert (got != logits).sum() <= 3


def test_a_row_is_edited_as_if_it_were_alone():
    edits, logits = no_masks(random_edits(5)), random_logits(len(LENGTHS))
    latest = random_latest(edits, 5)
    together = logits.clone()
    edit_logits(together, edits, latest)
    for row in range(len(LENGTHS)):
        first, end = edits.starts[row : row + 2].tolist()
        own = replace(
            edits,
            records=edits.records[first:end],
            starts=edits.starts[row : row + 2] - first,
            penalties=edits.penalties[:, row : row + 1].contiguous(),
        )
        alone = logits[row : row + 1].clone()
        edit_logits(alone, own, latest[row : row + 1])
        assert torch.equal(alone[0], together[row])


OPTIONS = [{}, {"temperature": 0.0}, {"top_p": 0.9}, {"top_k": [1, 5, 40, 900, SIZE], "temperature": 3.0}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_is_chosen_is_chosen_of_edited_logits(options):
    """By all three kernels that choose; if one token is left in a row, it is chosen."""
    edits = random_edits(7)
    latest, where = random_latest(edits, 7), batch([9] * len(LENGTHS))
    asked: Draws = draws(len(LENGTHS), **options)
    got, want = (wide_logits(7)[:, :SIZE] for _ in range(2))
    edit_logits(got, edits, latest)
    edit(want, edits, latest)
    chosen, right = choose_tokens(got, asked, where), plain_tokens(want, asked, where)
    nothing, only, _ = edits.masked.tolist()
    assert right[1].tolist() == [int(row != nothing) for row in range(len(LENGTHS))]
    assert chosen[1].tolist() == right[1].tolist()
    assert (chosen[0] == right[0])[right[1] == 1].all()
    assert want[only, chosen[0, only]] > -math.inf
    unedited = choose_tokens(wide_logits(7)[:, :SIZE], asked, where)
    assert (unedited[0] != chosen[0]).sum() >= 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_stay_so_and_are_told(bad):
    edits = no_masks(random_edits(3))
    rows, logits = len(LENGTHS), random_logits(len(LENGTHS))
    for row in range(1, rows):
        logits[row, edits.records[int(edits.starts[row]), 0]] = bad
    want = logits.clone()
    edit_logits(logits, edits)
    edit(want, edits)
    assert same_bits(logits, want)
    _, finite = choose_tokens(logits, draws(rows), batch([1] * rows)).tolist()
    assert finite == [1, 0, 0, 0, 0]
