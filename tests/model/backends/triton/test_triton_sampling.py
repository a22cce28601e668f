"""Sampling on the device chooses the same tokens as the plain version, and from the right distribution."""

import math

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
from model.backends.triton.kernels import token_choice
from model.backends.triton.kernels.token_choice import choose_tokens, philox, plain_noise, plain_tokens
from model.batch import Batch
from model.draws import Draws

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine

SIZE = 2500
"""The size of a row: two and a half blocks."""


@pytest.fixture(autouse=True)
def _short_pass(monkeypatch):
    """Makes `settle` read a row in several pieces."""
    monkeypatch.setattr(token_choice, "PASS", 2048)


def draws(rows, *, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0, seeds=None, size=SIZE) -> Draws:
    def column(value, dtype):
        values = value if isinstance(value, list) else [value] * rows
        return torch.tensor(values, dtype=dtype, device=DEVICE)

    return Draws(
        seeds=column(seeds if seeds is not None else list(range(rows)), torch.int64),
        temperature=column(temperature, torch.float32),
        top_k=column(top_k or size, torch.int32),
        top_p=column(top_p, torch.float32),
        min_p=column(min_p, torch.float32),
        filters=any(
            value is not None and value != neutral
            for value, neutral in ((top_k, None), (top_p, 1.0), (min_p, 0.0))
        ),
    )


def batch(positions) -> Batch:
    """A batch with chunks of three tokens, whose last rows are sampled; nothing else of it is used."""
    of_token = torch.tensor([p + i for p in positions for i in (-2, -1, 0)], device=DEVICE)
    none = of_token[:0]
    samples = torch.arange(len(positions), device=DEVICE) * 3 + 2
    return Batch(of_token, of_token, none, none, none, none, samples)


def random_logits(rows, size=SIZE, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(rows, size, generator=noise)).to(DEVICE)


FILTERS = [
    {},
    {"temperature": 0.0},
    {"temperature": [0.0, 0.3, 1.0, 2.5, 0.7, 1.0, 1.0]},
    {"top_p": 0.9},
    {"top_p": [0.0, 0.05, 0.5, 0.95, 0.999, 1.0, 0.7], "temperature": 1.5},
    {"min_p": [0.0, 1.0, 0.5, 0.1, 0.01, 1e-4, 1e-30]},
    {"top_k": [1, 2, 3, 40, 1023, 2499, 2500], "temperature": 5.0},
    {"top_k": [1, 2, 30, 400, 1500, 2500, 5], "top_p": [0.5, 0.9, 0.9, 0.97, 0.6, 0.6, 0], "temperature": 3},
    {"top_k": 50, "top_p": 0.9, "min_p": 0.02, "temperature": [0.0, 0.3, 1.0, 2.5, 0.7, 1.0, 8.0]},
]  # fmt: skip
FEW = FILTERS[2], FILTERS[-1]


@pytest.mark.parametrize(
    "options",
    [pytest.param(each, marks=() if each in FEW else pytest.mark.exhaustive) for each in FILTERS],
    ids=str,
)
def test_the_kernels_choose_what_the_plain_version_does(options):
    """Rows of a wider tensor, as if the tokenizer had fewer tokens than the model."""
    wide = random_logits(7, SIZE + 9)
    wide[:, SIZE:] = 99.0
    wide[2, ::3] = -torch.inf
    logits = wide[:, :SIZE]
    for turn in range(2):
        asked = draws(7, seeds=[turn * 2**61 - n for n in range(7)], **options)
        where = batch([turn + 1000 * n for n in range(7)])
        got, want = choose_tokens(logits, asked, where), plain_tokens(logits, asked, where)
        assert got.tolist() == want.tolist()


@pytest.mark.exhaustive
def test_a_whole_row_of_filters_that_reject_most_winners():
    """With a flat distribution and a small top_k, many winners are rejected."""
    logits = (torch.rand(3, SIZE, generator=torch.Generator().manual_seed(3)) * 0.01).to(DEVICE)
    for options in ({"top_k": 2}, {"top_p": 0.01}, {"top_k": 30, "top_p": 0.1}, {"min_p": 0.9999}):
        asked, where = draws(3, **options), batch([5] * 3)
        assert choose_tokens(logits, asked, where).tolist() == plain_tokens(logits, asked, where).tolist()


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_p": 0.9, "top_k": 700}])
def test_a_row_is_chosen_as_if_it_were_alone(options):
    logits, where = random_logits(5), [3, 90, 7, 100_000, 0]
    together = choose_tokens(logits, draws(5, seeds=[9, 8, 7, 6, 5], **options), batch(where))
    for row in range(5):
        alone = choose_tokens(
            logits[row : row + 1], draws(1, seeds=[9 - row], **options), batch([where[row]])
        )
        assert alone[:, 0].tolist() == together[:, row].tolist()


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_p": 0.9, "top_k": 700}])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_told_and_their_tokens_exist(bad, options):
    logits = random_logits(4)
    logits[1, 2100] = bad
    logits[2] = -torch.inf
    logits[3, 1:] = -torch.inf
    tokens, finite = choose_tokens(logits, draws(4, **options), batch([1] * 4)).tolist()
    assert finite == [1, 0, 0, 1]
    assert tokens[3] == 0
    assert all(0 <= token < SIZE for token in tokens)


@pytest.mark.exhaustive
def test_equal_logits_are_kept_together():
    logits = torch.full((12, SIZE), -9.0, device=DEVICE)
    logits[:, [7, 1900, 2400]] = 4.0
    for options in ({"top_k": 2}, {"top_p": 0.1}, {"top_k": 1, "top_p": 0.1}, {"min_p": 1.0}):
        tokens, _ = choose_tokens(logits, draws(12, **options), batch([1] * 12)).tolist()
        assert set(tokens) == {7, 1900, 2400}


ROWS = 4000


@pytest.mark.parametrize(
    "options",
    [
        *(
            pytest.param(each, marks=pytest.mark.exhaustive)
            for each in ({}, {"temperature": 0.5}, {"top_k": 7}, {"top_p": 0.8}, {"min_p": 0.1})
        ),
        {"top_k": 12, "top_p": 0.9},
    ],
    ids=str,
)
@pytest.mark.parametrize("varied", ["seeds", pytest.param("positions", marks=pytest.mark.exhaustive)])
def test_tokens_come_as_often_as_they_should(options, varied, monkeypatch):
    """Pearson's chi-square test of the plain version over 50 tokens; the kernels choose the same tokens."""
    logits = random_logits(1, 50).expand(ROWS, -1)
    asked = draws(ROWS, seeds=range_or(varied == "seeds", 11), size=50, **options)
    tokens, finite = plain_tokens(logits, asked, batch(range_or(varied == "positions", 3)))
    few = slice(0, 20)
    some = Draws(*(getattr(asked, name)[few] for name in Draws.__slots__[:-1]), asked.filters)
    ours = choose_tokens(logits[few], some, batch(range_or(varied == "positions", 3)[few]))
    assert ours[0].tolist() == tokens[few].tolist()
    assert finite.all()

    probabilities = expected(logits[0], **options)
    counts = torch.bincount(tokens, minlength=50)
    assert (counts[probabilities == 0] == 0).all()
    common = probabilities * ROWS >= 5
    want, got = (probabilities * ROWS)[common], counts[common]
    degrees = max(1, int(common.sum()) - 1)
    assert float(((got - want) ** 2 / want).sum()) < degrees + 4.3 * math.sqrt(2 * degrees) + 12


def range_or(varies, constant) -> list[int]:
    return list(range(ROWS)) if varies else [constant] * ROWS


def expected(logits, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    likely, order = (logits.double() / temperature).softmax(-1).sort(descending=True)
    likely[top_k or len(likely) :] = 0
    likely /= likely.sum()
    kept = (likely.cumsum(-1) - likely < top_p) & (likely >= min_p * likely[0])
    return torch.zeros_like(likely).scatter(0, order, likely * kept / (likely * kept).sum())


def test_philox_is_the_published_one():
    """Compared with the known answers of the authors' Random123 (kat_vectors: philox4x32, 10 rounds)."""
    zero = torch.zeros(1, dtype=torch.int64)
    assert philox(zero, zero, zero)[0].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_noise_is_that_of_an_exponential_race():
    """Mean, variance and tail of -log E for an exponential E are those of Gumbel's distribution."""
    drawn = plain_noise(torch.arange(64), torch.full((64,), 5), 4096).double()
    assert drawn.isfinite().all()
    assert float(drawn.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(drawn.var()) == pytest.approx(math.pi**2 / 6, rel=0.02)
    above = float((drawn > 7).double().mean())
    assert above == pytest.approx(1 - math.exp(-math.exp(-7)), rel=0.2)


def test_noise_depends_on_seed_and_position_and_token():
    one = plain_noise(torch.tensor([3]), torch.tensor([5]), 40)[0]
    assert len(set(one.tolist())) == 40
    for seed, position in ((4, 5), (3, 6), (3 + 2**32, 5), (3 - 2**63, 5)):
        other = plain_noise(torch.tensor([seed]), torch.tensor([position]), 40)[0]
        assert not (one == other).any()
    assert torch.equal(one[:10], plain_noise(torch.tensor([3]), torch.tensor([5]), 10)[0])
