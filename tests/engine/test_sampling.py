"""Sampling draws from the right distribution, and each row gets the same result as if it were alone."""

import dataclasses
import math
import struct

import pytest
import torch

from engine import sampling
from engine.errors import ConstraintFailed, NonFinite
from engine.request import Request, Sampled, SamplingParams, Sequence
from engine.sampling import (
    FIRST_CANDIDATES,
    MASK_PATIENCE,
    edit_and_choose,
    finish_sampling,
    keep_raw,
    uniform,
)
from model.transfer import Shared

V = 50


def sequence(tokens=(1, 2, 3), answer=(), seed=0, id="a", **options) -> Sequence:
    request_fields = {field.name for field in dataclasses.fields(Request)}
    of_request = {name: value for name, value in options.items() if name in request_fields}
    params = SamplingParams(**{name: value for name, value in options.items() if name not in request_fields})
    request = Request(id, list(tokens), 100, sampling=params, **of_request)
    return Sequence(request, [*tokens, *answer], limit=1000, seed=seed)


def sample(logits, sequences: list[Sequence]) -> Sampled:
    """Sample as the runner does for a model that does not sample itself; `logits` stay unchanged."""
    logits, errors = logits.clone(), {}
    raw = keep_raw(logits, sequences)
    chosen = edit_and_choose(Shared(), logits, sequences, errors)
    return finish_sampling(chosen.tolist(), raw, sequences, errors)


def random_logits(rows: int, size: int = V, seed: int = 0):
    return 2 * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def draw(logits, times: int, **options):
    """How often each token is drawn from one row of logits, with a different seed each time."""
    sequences = [sequence(seed=seed, **options) for seed in range(times)]
    return torch.bincount(
        torch.tensor(sample(logits.expand(times, -1), sequences).tokens), minlength=len(logits)
    )


def assert_drawn_from(counts, probabilities):
    """Pearson's chi-square test, at a level of about 1 in 10^5."""
    expected = probabilities.double() * counts.sum()
    assert (counts[probabilities == 0] == 0).all()
    common = expected >= 5
    expected, counts = expected[common], counts[common].double()
    degrees = max(1, int(common.sum()) - 1)
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert statistic < degrees + 4.3 * math.sqrt(2 * degrees) + 12


def filtered(logits, keep):
    """The softmax of `logits` where `keep`, and 0 elsewhere."""
    return torch.where(keep, logits, -torch.inf).softmax(-1)


def test_greedy_is_the_largest():
    logits = random_logits(7)
    assert sample(logits, [sequence(temperature=0)] * 7).tokens == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_temperature_divides_the_logits(temperature):
    logits = random_logits(1)[0]
    assert_drawn_from(draw(logits, 8_000, temperature=temperature), (logits / temperature).softmax(-1))


@pytest.mark.parametrize("size", [100, 128, 700])
@pytest.mark.parametrize("many", [0, 8192], ids=["in blocks", "at once"])
def test_tokens_are_drawn_from_all_blocks_and_none_that_has_no_probability(size, many, monkeypatch):
    monkeypatch.setattr(sampling, "MANY", many)
    logits = random_logits(1, size)[0]
    logits[::3] = -math.inf
    logits[130:300] = -math.inf  # a whole block too
    logits[-1:] = 3.0
    assert_drawn_from(draw(logits, 8_000), logits.softmax(-1))


@pytest.mark.parametrize("size", [2048, 201_088])
def test_a_row_of_a_large_vocabulary_is_drawn_as_if_it_were_alone(size):
    logits = random_logits(9, size)
    sequences = [sequence(seed=seed) for seed in range(9)]
    together = sample(logits, sequences).tokens
    assert together == [sample(logits[row : row + 1], sequences[row : row + 1]).tokens[0] for row in range(9)]
    # The same number picks the same token by a plain cumulative sum, but for its rounding.
    sums = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    for row, token in enumerate(together):
        wanted = uniform(row, 3) * sums[row, -1]
        assert (sums[row, token - 1] if token else 0) - 1e-6 < wanted < sums[row, token] + 1e-6


@pytest.mark.parametrize("top_k", [1, 3, 49])
def test_top_k_keeps_the_most_likely(top_k):
    logits = random_logits(1)[0]
    keep = logits >= logits.topk(top_k).values[-1]
    assert_drawn_from(draw(logits, 8_000, top_k=top_k), filtered(logits, keep))


@pytest.mark.parametrize("top_p", [0.0, 0.5, 0.95])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p):
    logits = random_logits(1)[0]
    likely, order = logits.softmax(-1).sort(descending=True)
    kept = order[: int((likely.cumsum(-1) < top_p).sum()) + 1]
    keep = torch.zeros(V, dtype=torch.bool).index_fill(0, kept, True)
    assert_drawn_from(draw(logits, 8_000, top_p=top_p), filtered(logits, keep))


def test_min_p_keeps_what_is_nearly_as_likely_as_the_most_likely():
    logits = random_logits(1)[0]
    likely = logits.softmax(-1)
    assert_drawn_from(draw(logits, 8_000, min_p=0.1), filtered(logits, likely >= 0.1 * likely.max()))


def test_top_p_is_of_what_top_k_keeps():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    # Of the best two, 0.57 : 0.43, the first alone reaches 0.5.
    assert draw(logits, 1000, top_k=2, top_p=0.5).tolist() == [1000, 0, 0, 0]
    assert (draw(logits, 1000, top_p=0.5) > 0).tolist() == [True, True, False, False]


def test_filters_look_as_far_as_they_must():
    """The nucleus of a flat distribution is larger than the first candidates."""
    size = 20 * FIRST_CANDIDATES
    logits = torch.zeros(size)
    sequences = [sequence(seed=seed, top_p=0.9) for seed in range(300)]
    tokens = sample(logits.expand(300, -1), sequences).tokens
    kept = logits.topk(size).indices[: int(0.9 * size)].tolist()
    assert len(set(tokens)) > 250
    assert set(tokens) <= set(kept)
    wide = sequence(top_k=3 * FIRST_CANDIDATES, top_p=0.9999)
    assert len({sample(logits[None], [dataclasses.replace(wide, seed=s)]).tokens[0] for s in range(50)}) > 40


def test_neutral_values_change_nothing():
    logits = random_logits(1)
    plain = sample(logits, [sequence(seed=5)])
    named = {field.name: field.default for field in dataclasses.fields(SamplingParams)}
    del named["logit_bias"], named["seed"]
    assert sample(logits, [sequence(seed=5, **named)]) == plain
    edits = sequence(seed=5, logit_bias={7: 0.0}, stop_tokens=frozenset({9}), min_tokens=0)
    assert sample(logits, [edits]) == plain


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0},
        {"top_p": 0.8},
        {"top_k": 4, "min_p": 0.01},
        {"presence_penalty": 1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.3},
        {"logit_bias": {4: 3.0}},
        {"min_tokens": 9, "stop_tokens": frozenset({int(random_logits(12)[3].argmax())})},
    ],
)
def test_a_row_is_sampled_as_if_it_were_alone(options):
    logits = random_logits(12)
    others = [
        sequence(
            id=str(n), seed=n, answer=[n] * n, temperature=(n % 3) / 2, top_k=n % 4, presence_penalty=n % 2
        )
        for n in range(12)
    ]
    mine = [sequence(seed=seed, answer=[7, 8, 7], **options) for seed in range(20)]
    for row in (0, 3, 11):
        together = [sample(logits, [*others[:row], one, *others[row + 1 :]]).tokens[row] for one in mine]
        assert together == [sample(logits[row : row + 1], [one]).tokens[0] for one in mine]


def test_what_is_drawn_depends_on_seed_and_position_and_changes_with_both():
    logits = torch.zeros(1, V)
    drawn = [[sample(logits, [sequence([1] * n, seed=s)]).tokens[0] for n in range(1, 30)] for s in range(30)]
    assert len({tuple(row) for row in drawn}) == 30
    assert len(set(zip(*drawn, strict=True))) == 29
    again = [[sample(logits, [sequence([2] * n, seed=s)]).tokens[0] for n in range(1, 30)] for s in range(30)]
    assert again == drawn


def test_uniform_is_uniform_and_takes_any_seed():
    numbers = torch.tensor([uniform(seed, position) for seed in range(200) for position in range(200)])
    assert_drawn_from(torch.histc(numbers, 64, 0, 1).long(), torch.full((64,), 1 / 64))
    pairs = torch.histogramdd(numbers.view(-1, 2), [8, 8], range=[0.0, 1.0, 0.0, 1.0]).hist
    assert_drawn_from(pairs.flatten().long(), torch.full((64,), 1 / 64))
    assert 0 < uniform(-1, 0) < 1
    assert uniform(2**64 + 3, 0) == uniform(3, 0)


def test_logprobs_are_of_the_models_own_distribution():
    logits = random_logits(2)
    ask = {"temperature": 0.5, "logit_bias": {3: 100.0}, "top_k": 2}
    sampled = sample(logits, [sequence(id="a", logprobs=3, **ask), sequence(id="b", logprobs=0, **ask)])
    own = logits.log_softmax(-1)
    assert sampled.tokens == [3, 3]
    assert sampled.logprobs["a"].logprob == pytest.approx(float(own[0, 3]), abs=1e-5)
    assert sampled.logprobs["b"].logprob == pytest.approx(float(own[1, 3]), abs=1e-5)
    assert sampled.logprobs["b"].top == ()
    best = own[0].topk(3)
    assert [id for id, _ in sampled.logprobs["a"].top] == best.indices.tolist()
    assert [p for _, p in sampled.logprobs["a"].top] == pytest.approx(best.values.tolist(), abs=1e-5)


class Only:
    """A constraint that allows a set of tokens, and records the sampled ones."""

    def __init__(self, *allowed: int, words: int = 2):
        mask = sum(1 << token for token in allowed)
        self.words = memoryview(
            struct.pack(f"<{words}I", *((mask >> 32 * i) & 0xFFFFFFFF for i in range(words)))
        )
        self.came: list[int] = []

    def mask(self):
        return self.words

    def ready(self, seconds=0):
        return True

    def accept(self, token):
        self.came.append(token)


class Broken(Only):
    def __init__(self, where: str):
        super().__init__(3)
        self.where = where

    def mask(self):
        if self.where == "mask":
            raise KeyError("lost")
        return super().mask()

    def accept(self, token):
        raise KeyError("lost")


class Anything(Only):
    def mask(self):
        return None


@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"top_p": 0.9}])
def test_constraints_decide_what_may_come(options):
    logits = random_logits(3)
    narrow, wide, short = Only(5, 33, 49), Anything(), Only(31, words=1)
    tokens = set()
    for seed in range(20):
        rows = [
            sequence(id=str(n), seed=seed, constraint=constraint, **options)
            for n, constraint in enumerate((narrow, wide, short))
        ]
        sampled = sample(logits, rows)
        assert not sampled.errors
        tokens.add(sampled.tokens[0])
        assert sampled.tokens[1] == sample(logits[1:2], [sequence(seed=seed, **options)]).tokens[0]
        assert sampled.tokens[2] == 31, "tokens past the last word may not come"
    assert tokens <= {5, 33, 49}
    assert narrow.came
    assert set(narrow.came) == tokens
    assert len(wide.came) == 20


def test_a_constraint_that_allows_only_the_end_is_not_kept_from_it():
    one = sequence(constraint=Only(3), stop_tokens=frozenset({3}), min_tokens=50)
    sampled = sample(random_logits(1), [one])
    assert (sampled.tokens, sampled.errors) == ([3], {})


@pytest.mark.parametrize("constraint", [Broken("mask"), Broken("accept"), Only()])
@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"top_p": 0.9}])
def test_a_constraint_that_fails_ends_its_own_request_alone(constraint, options):
    logits = random_logits(3)
    alone = sample(logits, [sequence(id=id, **options) for id in "abc"])
    sampled = sample(
        logits,
        [
            sequence(id="a", **options),
            sequence(id="b", constraint=constraint, **options),
            sequence(id="c", **options),
        ],
    )
    assert list(sampled.errors) == ["b"]
    assert isinstance(sampled.errors["b"], ConstraintFailed)
    assert (sampled.tokens[0], sampled.tokens[2]) == (alone.tokens[0], alone.tokens[2])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {}, {"top_p": 0.9}, {"constraint": Anything()}, {"logprobs": 2}]
)
def test_numbers_that_are_not_finite_end_their_own_request_alone(bad, options):
    logits = random_logits(3)
    logits[1, 7] = bad
    sampled = sample(logits, [sequence(id=id, **options) for id in "abc"])
    assert list(sampled.errors) == ["b"]
    assert isinstance(sampled.errors["b"], NonFinite)
    logits[1] = -math.inf
    assert isinstance(sample(logits, [sequence(id=id, **options) for id in "abc"]).errors["b"], NonFinite)


class Late(Only):
    """A constraint that is ready only after some calls, or if the caller waits without a limit."""

    def __init__(self, asked: int):
        super().__init__(3)
        self.left, self.waits = asked, []

    def ready(self, seconds=0):
        self.waits.append(seconds)
        self.left = 0 if seconds is None else max(0, self.left - 1)
        return not self.left


def test_a_step_waits_for_masks_so_long_and_for_one_that_was_late_before_not_at_all():
    late, other = sequence(id="late", constraint=Late(2)), sequence(id="other", constraint=Only(5))
    sampled = sample(random_logits(2), [late, other])
    assert (late.held, other.held) == (True, False)
    assert 0 < late.request.constraint.waits[0] <= MASK_PATIENCE
    assert (late.request.constraint.came, other.request.constraint.came) == ([], [5])
    assert not sampled.errors
    sample(random_logits(2), [late, other])
    assert late.request.constraint.waits == [late.request.constraint.waits[0], 0]
    assert late.request.constraint.came == [3]


def test_masks_of_one_step_share_its_patience(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(sampling.time, "monotonic", lambda: now[0])

    class TakesItAll(Late):
        def ready(self, seconds=0):
            now[0] += seconds or 0
            return super().ready(seconds)

    rows = [sequence(id=str(i), constraint=TakesItAll(9)) for i in range(3)] + [sequence(id="free")]
    sample(random_logits(4), rows)
    assert [row.held for row in rows] == [True, True, True, False]
    assert [row.request.constraint.waits for row in rows[:3]] == [[MASK_PATIENCE], [0], [0]]


def test_if_nobody_else_is_there_the_first_mask_is_waited_for():
    rows = [sequence(id=str(i), constraint=Late(9)) for i in range(2)]
    sample(random_logits(2), rows)
    assert [row.held for row in rows] == [False, True]
    assert [row.request.constraint.came for row in rows] == [[3], []]
