"""Rows at large offsets: dense products, norms and logits."""

from itertools import product

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
if DEVICE.type == "cuda":
    pytest.skip("tests/gpu is at true sizes anyway", allow_module_level=True)

from model.backends.triton.kernels import codes, dense, token_choice
from model.backends.triton.kernels.dense import plain_product
from model.backends.triton.kernels.dense_int8 import GROUP, Quantised
from model.backends.triton.kernels.edits import edit_logits
from model.backends.triton.kernels.norm import normalise, plain_normalise
from model.batch import Batch
from model.draws import Draws
from model.logit_edits import Edits, edit
from tests.model.backends.triton.offsets.far import C, V, close, last, lazy, rows_beyond
from tests.tools.sanitizer.sanitizer import watching

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine


def test_the_last_row_of_very_many_is_normalised(noise):
    tokens = rows_beyond(C)
    x, norm = lazy(tokens, C), 1 + torch.randn(C, generator=noise) / 9
    x[-1] = torch.randn(C, generator=noise)
    outs = lazy(tokens, C), lazy(tokens, codes.padded(C))
    with watching(programs=last, poison=False):
        normalise(x, norm, 1e-5, *outs)
    for got, want in zip(outs, plain_normalise(x[-1:], norm, 1e-5), strict=True):
        close(got[-1:], want)


def unembedding(kind, noise):
    """Weights [V, C] in which only the last 64 rows are not zero."""
    if kind == "int8":
        weight = Quantised(lazy(V, C, dtype=torch.int8), lazy(V, C // GROUP))
        weight.codes[-64:] = torch.randint(-127, 128, (64, C), generator=noise, dtype=torch.int8)
        weight.scales[-64:] = torch.rand(64, C // GROUP, generator=noise) / 2000
        return weight
    weight = lazy(V, C)
    weight[-64:] = torch.randn(64, C, generator=noise) / 50
    return weight


def ending(weight):
    if isinstance(weight, Quantised):
        return Quantised(weight.codes[-64:], weight.scales[-64:])
    return weight[-64:]


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_logits_of_very_many_rows_have_their_own_places(noise, kind, invariant):
    weight, rows = unembedding(kind, noise), rows_beyond(V)
    x, norm, out = lazy(rows, C), 1 + torch.randn(C, generator=noise) / 9, lazy(rows, V)
    x[-64:] = torch.randn(64, C, generator=noise)
    with watching(programs=last, poison=False):
        dense.product(x, weight, out, norm=norm, rows=torch.arange(rows), invariant=invariant)
    want = plain_product(x[-64:], ending(weight), out[-64:, -64:], norm=norm)
    close(out[-64:, -64:], want)


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("count", [1, 5])
def test_samples_are_rows_of_a_very_long_step(noise, kind, count):
    weight, tokens = unembedding(kind, noise), rows_beyond(C)
    x, out = lazy(tokens, C), lazy(count, V)
    x[-count:] = torch.randn(count, C, generator=noise)
    rows = torch.arange(tokens - count, tokens)
    with watching(programs=last, poison=False):
        dense.product(x, weight, out, rows=rows)
    want = plain_product(x[-count:], ending(weight), out[:, -64:])
    changed = out[0] != 0
    assert changed.any()
    close(out[:, -64:][:, changed[-64:]], want[:, changed[-64:]])
    assert not changed[:-64].any()


@pytest.mark.parametrize("filters", [False, True])
def test_a_row_of_logits_behind_very_many_others_is_chosen_from_as_if_alone(noise, filters):
    size = 5000  # of a row, so that all of its blocks can run
    rows = rows_beyond(size)
    logits = lazy(rows, size)
    logits[-1] = 3 * torch.randn(size, generator=noise)

    def draws(count):
        return Draws(
            seeds=torch.full((count,), 5),
            temperature=torch.ones(count),
            top_k=torch.full((count,), 40, dtype=torch.int32),
            top_p=torch.full((count,), 0.9),
            min_p=torch.zeros(count),
            filters=filters,
        )

    def step(count):
        none = torch.zeros(0, dtype=torch.int64)
        return Batch(none, torch.full((count,), 77), none, none, none, none, torch.arange(count))

    def of_the_last_row(grid):
        return last(grid) if grid[1] == 1 else list(product(range(grid[0]), [grid[1] - 1], [0]))

    with watching(programs=of_the_last_row, poison=False):
        got = token_choice.choose_tokens(logits, draws(rows), step(rows))
    with watching():
        want = token_choice.choose_tokens(logits[-1:].clone(), draws(1), step(1))
    assert got[:, -1:].tolist() == want.tolist()
    assert want[1].item() == 1


def test_a_row_of_logits_behind_very_many_others_is_edited_as_if_alone(noise):
    """Among them the last token of the last row: by a record, by a token in flight, and by a mask."""
    size = 5000
    rows = rows_beyond(size)
    logits, alone = lazy(rows, size), torch.randn(1, size, generator=noise)
    logits[-1:] = alone

    def edits(count):
        starts, penalties = lazy(count + 1, dtype=torch.int32), lazy(3, count)
        starts[-1] = 2
        penalties[:, -1] = torch.tensor([1.3, 0.5, 0.1])
        return Edits(
            records=torch.tensor([[7, 2, 0, 0], [size - 1, 0, 0, 1]], dtype=torch.int32),
            starts=starts,
            penalties=penalties,
            masked=torch.tensor([count - 1], dtype=torch.int32),
            masks=torch.full((1, -(-size // 32)), 0x5A5A5A5A, dtype=torch.int32),
        )

    def of_the_last_row(grid):
        return last(grid) if grid[1] == 1 and grid[0] == rows else list(product(*map(range, grid)))

    for latest in (size - 1, 11):
        with watching(programs=of_the_last_row, poison=False):
            edit_logits(logits, edits(rows), torch.full((rows,), latest))
        edit(alone, edits(1), torch.tensor([latest]))
        assert torch.equal(logits[-1:], alone)
    assert not logits[-2].any()
