"""Changes of logits before a token is chosen: the formulas, and the counts of tokens."""

import math
import random

import pytest
import torch
from torch import Tensor

from engine.errors import ConstraintFailed
from engine.request import Sequence
from engine.sampling import logit_edits
from model.logit_edits import edit
from model.transfer import Shared
from tests.engine.test_sampling import Broken, Only, random_logits, sequence


def edited_logits(logits: Tensor, *sequences: Sequence, latest=None, errors=None) -> Tensor:
    """A copy with the edits of the sequences.

    latest  of each sequence a token that it does not know yet
    """
    ahead = 0 if latest is None else 1
    asked = logit_edits(list(sequences), logits.shape[1], Shared(), {} if errors is None else errors, ahead)
    scores = logits.clone()
    if asked is not None:
        edit(scores, asked, None if latest is None else torch.tensor(latest))
    return scores


def test_penalties_are_those_of_the_formulas():
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.5, 0.1]])
    for params, expected in [
        ({"repetition_penalty": 2.0}, [1.0, -4.0, 0.5, 0.25, 0.1]),
        ({"presence_penalty": 0.25}, [2.0, -2.0, 0.75, 0.25, 0.1]),
        ({"frequency_penalty": 0.25}, [2.0, -2.0, 0.5, 0.25, 0.1]),
    ]:
        one = sequence(tokens=[0, 1], answer=[2, 2, 3], **params)
        scores = edited_logits(logits, one)
        torch.testing.assert_close(scores, torch.tensor([expected]))


def test_counts_are_kept_up_to_date_token_by_token():
    one = sequence(tokens=[0, 1], frequency_penalty=1.0)
    logits = torch.zeros(1, 5)
    for n, token in enumerate([3, 3, 4, 0, 3], start=1):
        one.tokens.append(token)
        expected = -torch.bincount(torch.tensor(one.tokens[2:]), minlength=5).float()
        torch.testing.assert_close(edited_logits(logits, one)[0], expected)
        assert one.answered == n


def test_biases_are_added_and_stop_tokens_withheld():
    one = sequence(logit_bias={1: 2.5, 3: -100.0}, stop_tokens=frozenset({0, 1}), min_tokens=2, answer=[9])
    expected = torch.tensor([[-torch.inf, -torch.inf, 0.0, -100.0, 0.0]])
    torch.testing.assert_close(edited_logits(torch.zeros(1, 5), one), expected)
    one.tokens.append(9)  # now there are enough
    expected = torch.tensor([[0.0, 2.5, 0.0, -100.0, 0.0]])
    torch.testing.assert_close(edited_logits(torch.zeros(1, 5), one), expected)


def said_so_far(one: Sequence, token: int) -> Sequence:
    """An independent copy of the sequence with `token` appended."""
    return Sequence(one.request, [*one.tokens, token], one.limit, one.seed)


def wanted(x: float, token: int, one: Sequence) -> float:
    """The expected logit, computed directly."""
    params, request = one.request.sampling, one.request
    answer = one.tokens[len(request.prompt) :]
    if request.constraint is None and len(answer) < request.min_tokens and token in request.stop_tokens:
        return -math.inf
    if token in one.tokens and params.repetition_penalty != 1:
        x = x / params.repetition_penalty if x > 0 else x * params.repetition_penalty
    x -= params.presence_penalty * (token in answer) + params.frequency_penalty * answer.count(token)
    return x + params.logit_bias.get(token, 0.0)


def random_sequence(draw: random.Random, size: int) -> Sequence:
    """A sequence with a random selection of parameters, or none."""
    some = range(draw.choice((3, size)))  # tokens come once, or again and again
    options = {
        "repetition_penalty": draw.choice((1.0, 1.3, 0.5)),
        "presence_penalty": draw.choice((0.0, 0.0, 1.5, -2.0)),
        "frequency_penalty": draw.choice((0.0, 0.25, -0.5)),
        "logit_bias": {draw.randrange(size): draw.choice((-100.0, 3.5)) for _ in range(draw.choice((0, 4)))},
        "min_tokens": draw.choice((0, 3, 50)),
        "stop_tokens": frozenset(draw.sample(range(size), 3)),
    }
    options = {name: value for name, value in options.items() if draw.random() < 0.6}
    prompt, answer = (draw.choices(some, k=draw.randrange(least, 9)) for least in (1, 0))
    return sequence(prompt, answer, **options)


@pytest.mark.parametrize("seed", range(20))
def test_every_logit_is_what_the_request_asks_for(seed):
    draw, size = random.Random(seed), 40
    rows = [random_sequence(draw, size) for _ in range(9)]
    logits = random_logits(9, size, seed)
    for _ in range(3):
        expected = [[wanted(float(logits[n, t]), t, one) for t in range(size)] for n, one in enumerate(rows)]
        torch.testing.assert_close(edited_logits(logits, *rows), torch.tensor(expected))
        for one in rows:
            one.tokens.append(draw.randrange(size))


@pytest.mark.parametrize("seed", range(20))
def test_a_token_that_only_the_device_knows_counts_like_any_other(seed):
    """Bit-identical, because steps with and without overlap must choose the same tokens."""
    draw, size = random.Random(seed), 40
    rows = [random_sequence(draw, size) for _ in range(9)]
    logits = random_logits(9, size, seed)
    for _ in range(4):
        latest = [draw.randrange(draw.choice((3, size))) for _ in rows]
        known = [said_so_far(one, token) for one, token in zip(rows, latest, strict=True)]
        ahead = edited_logits(logits, *rows, latest=latest)
        assert torch.equal(ahead, edited_logits(logits, *known))
        for one, token in zip(rows, latest, strict=True):
            one.tokens.append(token)


def test_who_wants_nothing_now_costs_nothing():
    early = sequence(min_tokens=2, stop_tokens=frozenset({3}), answer=[7])
    assert logit_edits([sequence()], 50, Shared(), {}) is None
    assert logit_edits([sequence(), early], 50, Shared(), {}) is not None
    assert logit_edits([sequence(), early], 50, Shared(), {}, ahead=1) is None


@pytest.mark.parametrize("size", [50, 64, 31])
def test_a_mask_is_cut_or_filled_up_to_the_vocabulary(size):
    rows = [sequence(), sequence(constraint=Only(0, 30, words=1)), sequence(constraint=Only(5, 30, words=4))]
    scores = edited_logits(torch.zeros(3, size), *rows)
    come = [(row == 0).nonzero()[:, 0].tolist() for row in scores]
    assert come == [list(range(size)), [0, 30], [5, 30]]


def test_a_constraint_that_fails_is_noted_and_the_others_rows_are_masked():
    errors = {}
    rows = [sequence(id="a", constraint=Broken("mask")), sequence(id="b", constraint=Only(7))]
    scores = edited_logits(torch.zeros(2, 50), *rows, errors=errors)
    assert list(errors) == ["a"]
    assert isinstance(errors["a"], ConstraintFailed)
    assert scores[0].isfinite().all()
    assert scores[1].isfinite().nonzero().tolist() == [[7]]
