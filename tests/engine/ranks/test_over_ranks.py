"""The engine with a model on several ranks gives the same answers as with one rank.

The checks are those of test_invariances.py, with a model that two or four ranks compute together.
"""

import statistics
from dataclasses import replace

import pytest
import torch

from engine.engine import Engine
from engine.runner import Runner
from model.backends import load
from model.loading.checkpoint import Checkpoint
from tests import tiny_checkpoint
from tests.engine import test_invariances
from tests.engine.test_invariances import GREEDY, SAMPLED, Answers, Place, again, ask
from tests.engine.test_invariances import (  # noqa: F401
    test_a_preempted_sequence_is_computed_again_to_the_bit as test_preempted_to_the_bit,
)
from tests.engine.test_invariances import (  # noqa: F401
    test_what_the_prefix_cache_had_is_what_would_be_computed_to_the_bit as test_cached_to_the_bit,
)
from tests.model.parallel.threads import led

pytestmark = pytest.mark.usefixtures("order")

CPU = torch.device("cpu")
CONFIG = replace(tiny_checkpoint.CONFIG, num_heads=24, num_kv_heads=4, num_experts=8)

OPTIONS = {"reference": {"dtype": torch.float32, "page_size": 4}, "cpu": {"threads": 1}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.write(folder, "hf", CONFIG)
    return Checkpoint.open(folder)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("reference", 2), marks=pytest.mark.exhaustive),
        ("cpu", 2),
        pytest.param(("cpu", 4), marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def places(request, checkpoint):
    """The same model on several ranks, and on one."""
    name, size = request.param
    backend, options = load(CPU, name), OPTIONS[name]
    sizes = (
        ((40, 3, 23, 58, 12), 80, 36, 2e-4) if name == "reference" else ((100, 3, 40, 150, 33), 180, 11, 0)
    )
    one = Place(backend.build(checkpoint, CPU, **options), *sizes)

    def build(ranks):
        return backend.build(checkpoint.part(ranks), CPU, ranks=ranks, **options)

    with led(size, build, CONFIG) as model:
        yield Place(model, *sizes), one


@pytest.fixture(scope="module")
def place(places):
    return places[0]


@pytest.fixture(scope="module")
def alone(place) -> dict[int | None, Answers]:
    """The answers on several ranks, each prompt in one chunk and alone."""
    answers = {}
    for sampling in (GREEDY, SAMPLED):
        each = [ask(place, [prompt], sampling) for prompt in place.prompts]
        tokens, logprobs = [a.tokens[0] for a in each], [a.logprobs[0] for a in each]
        answers[sampling.seed] = Answers(tokens, logprobs, [0] * len(each), each[0].stats)
    return answers


class TestTheAnswerIsTheSame(test_invariances.TestTheAnswerIsTheSame):
    pass


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_it_is_that_of_one_rank(places, alone, sampling):
    one, ours = ask(places[1], places[1].prompts, sampling), alone[sampling.seed]
    if places[1].tolerance:  # float32, where no rounding chooses another expert
        for mine, theirs in zip(ours.logprobs, one.logprobs, strict=True):
            assert mine == pytest.approx(theirs, abs=0.02, rel=0)
        assert ours.tokens == one.tokens
        return
    off = [
        abs(a - b)
        for mine, theirs in zip(ours.logprobs, one.logprobs, strict=True)
        for a, b in zip(mine[:6], theirs[:6], strict=True)  # of the first token, before answers may differ
    ]
    # Roundings choose another expert for some tokens of a random model; a wrong sum is off by several.
    assert statistics.median(off) < 0.25


def test_a_prompt_is_scored_as_by_one_rank(places):
    told = []
    for place in places:
        engine = Engine(Runner(place.model, 400), place.limits(max_tokens_per_step=16))
        prompt = place.prompts[0]
        engine.add(test_invariances.Request("a", prompt, 1, sampling=GREEDY, prompt_logprobs=2))
        (token,) = test_invariances.finish(engine)["a"]
        told.append([entry.logprob for entry in token.prefill.logprobs[1:]])
    off = [abs(ours - theirs) for ours, theirs in zip(*told, strict=True)]
    assert statistics.median(off) < 0.05
    assert not places[0].tolerance or max(off) < 0.02


def test_a_second_engine_has_a_cache_of_its_own(place):
    """As when a second server is assembled in one process."""
    first = Engine(Runner(place.model, 400), place.limits())
    want = again(first, place.prompts[:2], GREEDY)
    second = Engine(Runner(place.model, 300), place.limits(num_pages=300))
    got = again(second, place.prompts[:2], GREEDY)
    assert got.tokens == want.tokens
