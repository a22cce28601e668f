"""With a tiny random gpt-oss: however the work is divided into steps, the answers are the same.

Nearly all sequences are longer than a page, the window (7) and the initial context (16).  Tokens and
log-probabilities are compared.  With the CPU kernels they must be bit-identical; with the reference backend
only if the same kernels get the same shapes, because otherwise float32 may round differently.
"""

from dataclasses import dataclass

import pytest
import torch

from engine.admission import Limits
from engine.engine import Engine, Stats
from engine.request import Request, SamplingParams, Token
from engine.runner import Runner
from model.backends import load
from model.interfaces import Model
from model.loading.checkpoint import Checkpoint
from tests import tiny_checkpoint
from tests.tools.traffic.historian import finish

pytestmark = pytest.mark.usefixtures("order")

GREEDY = SamplingParams(temperature=0, logprobs=5)
SAMPLED = SamplingParams(temperature=1.0, top_p=0.95, seed=3, logprobs=5)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Place:
    """A model on one backend, and sizes that suit its pages.

    lengths      of the prompts
    max_context  that they and their answers have room in
    scarce       too few pages for all of them at once
    tolerance    of log-probabilities, where shapes differ
    """

    model: Model
    lengths: tuple[int, ...]
    max_context: int
    scarce: int
    tolerance: float

    @property
    def prompts(self) -> list[list[int]]:
        return [
            [(31 * n + 17 * i * i + i) % 211 for i in range(length)] for n, length in enumerate(self.lengths)
        ]

    def limits(self, **changes) -> Limits:
        limits = {
            "num_pages": 400,
            "page_size": self.model.page_size,
            "window": self.model.config.sliding_window,
            "max_context": self.max_context,
        }
        return Limits(**(limits | changes))


@pytest.fixture(scope="module", params=["reference", "cpu"])
def place(request, tmp_path_factory) -> Place:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.write(folder)
    checkpoint = Checkpoint.open(folder)
    backend = load(CPU, request.param)
    if request.param == "reference":
        model = backend.build(checkpoint, CPU, dtype=torch.float32, page_size=4)
        return Place(model, (40, 3, 23, 58, 12), max_context=80, scarce=36, tolerance=2e-4)
    try:
        model = backend.build(checkpoint, CPU, threads=2)
    except ImportError as missing:
        pytest.skip(str(missing))
    return Place(model, (100, 3, 40, 150, 33), max_context=180, scarce=11, tolerance=0)


@dataclass
class Answers:
    tokens: list[list[int]]
    logprobs: list[list[float]]  # of the tokens and their alternatives
    cached: list[int]
    stats: Stats


def ask(place: Place, prompts: list[list[int]], sampling: SamplingParams, **changes) -> Answers:
    """Answers of 15 tokens from a new engine, whose cache is full of NaN, so that wrong reads are noticed."""
    limits = place.limits(**({"prefix_cache": False} | changes))
    runner = Runner(place.model, limits.num_pages)
    runner.cache.keys.fill_(torch.nan)
    runner.cache.values.fill_(torch.nan)
    return again(Engine(runner, limits), prompts, sampling)


def again(engine: Engine, prompts: list[list[int]], sampling: SamplingParams) -> Answers:
    for n, prompt in enumerate(prompts):
        engine.add(Request(str(n), prompt, 15, sampling=sampling))
    events = finish(engine)
    rows: list[list[Token]] = [events[str(n)] for n in range(len(prompts))]
    return Answers(
        [[token.id for token in row] for row in rows],
        [all_logprobs(row) for row in rows],
        [row[0].prefill.cached_tokens for row in rows],
        engine.stats(),
    )


def all_logprobs(tokens: list[Token]) -> list[float]:
    return [p for token in tokens for p in (token.logprob.logprob, *(p for _, p in token.logprob.top))]


@pytest.fixture(scope="module")
def alone(place) -> dict[int | None, Answers]:
    """Seed → the answers, each prompt in one chunk and alone."""

    def one_by_one(sampling: SamplingParams) -> Answers:
        answers = [ask(place, [prompt], sampling) for prompt in place.prompts]
        return Answers(
            [a.tokens[0] for a in answers], [a.logprobs[0] for a in answers], [0] * len(answers), Stats()
        )

    return {each.seed: one_by_one(each) for each in (GREEDY, SAMPLED)}


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
class TestTheAnswerIsTheSame:
    @pytest.fixture
    def same(self, place, alone, sampling):
        def check(ours: Answers) -> None:
            theirs = alone[sampling.seed]
            assert ours.tokens == theirs.tokens
            for mine, other in zip(ours.logprobs, theirs.logprobs, strict=True):
                assert mine == pytest.approx(other, abs=place.tolerance, rel=0)

        return check

    def test_batched_or_alone(self, place, same, sampling):
        same(ask(place, place.prompts, sampling))

    @pytest.mark.parametrize(
        "tokens",
        [pytest.param(1, marks=pytest.mark.exhaustive), 5, pytest.param(16, marks=pytest.mark.exhaustive)],
    )
    def test_in_chunks_or_whole(self, place, same, sampling, tokens):
        ours = ask(place, place.prompts, sampling, max_tokens_per_step=tokens)
        assert ours.stats.steps > 20
        same(ours)

    @pytest.mark.parametrize("prefix_cache", [False, True])
    def test_preempted_or_undisturbed(self, place, same, sampling, prefix_cache):
        ours = ask(
            place,
            place.prompts,
            sampling,
            num_pages=place.scarce,
            max_tokens_per_step=16,
            prefix_cache=prefix_cache,
        )
        assert ours.stats.preemptions > 0
        same(ours)

    def test_from_the_prefix_cache_or_computed(self, place, same, sampling):
        engine = Engine(Runner(place.model, 400), place.limits())
        again(engine, place.prompts, sampling)
        ours = again(engine, place.prompts, sampling)
        size = place.model.page_size
        assert ours.cached == [(length - 1) // size * size for length in place.lengths]
        same(ours)


def test_what_the_prefix_cache_had_is_what_would_be_computed_to_the_bit(place):
    """Chunks end at the same positions, so the same kernels get the same shapes."""
    prompt, size = place.prompts[0], place.model.page_size
    whole_pages = (len(prompt) - 1) // size * size
    engine = Engine(Runner(place.model, 400), place.limits(max_tokens_per_step=whole_pages))
    computed = again(engine, [prompt], GREEDY)
    reused = again(engine, [prompt], GREEDY)
    assert (computed.cached, reused.cached) == ([0], [whole_pages])
    assert reused.tokens == computed.tokens
    assert reused.logprobs == computed.logprobs


def test_a_preempted_sequence_is_computed_again_to_the_bit(place):
    """Computed token by token, so that the same kernels get the same shapes."""
    prompt = place.prompts[2]
    undisturbed = ask(place, [prompt], GREEDY, max_tokens_per_step=1)
    for prefix_cache in (False, True):
        limits = place.limits(max_tokens_per_step=1, prefix_cache=prefix_cache)
        engine = Engine(Runner(place.model, 400), limits)
        engine.add(Request("0", prompt, 15, sampling=GREEDY))
        events = []
        while engine.busy:
            events += engine.step()
            if len(events) in (1, 6) and engine.stats().preemptions < len(events) / 3:
                engine._scheduler._preempt(engine._scheduler.running[0])
        assert engine.stats().preemptions == 2
        assert [token.id for token in events] == undisturbed.tokens[0]
        assert all_logprobs(events) == undisturbed.logprobs[0]


def test_log_probabilities_of_a_prompt_are_those_of_its_tokens_as_answers(place, alone):
    """The log-probabilities of an answer are the same when it is part of a prompt."""
    prompt, said = place.prompts[2], alone[None].tokens[2]
    engine = Engine(Runner(place.model, 400), place.limits())
    engine.add(Request("a", prompt + said, 1, sampling=GREEDY, prompt_logprobs=5))
    (token,) = finish(engine)["a"]
    told = token.prefill.logprobs[len(prompt) :]
    again = [p for entry in told for p in (entry.logprob, *(p for _, p in entry.top))]
    assert again == pytest.approx(alone[None].logprobs[2], abs=place.tolerance, rel=0)
