"""Around a real gpt-oss, tiny and random: however the work is cut, the answer is the same.

Nearly all sequences cross the window (7) and the initial context (16).  Log-probabilities are compared as
well as tokens: to the bit where the same kernels see the same shapes, else to float32's rounding.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from engine.engine import Engine, Stats
from engine.request import Request, Token
from engine.runner import Runner
from engine.sampling import SamplingParams
from engine.scheduler import Limits
from model.checkpoint import Checkpoint
from model.kernels import Model, reference
from tests import tiny_checkpoint
from tests.engine.historian import finish

PAGE_SIZE = 4
GREEDY = SamplingParams(temperature=0, logprobs=5)
SAMPLED = SamplingParams(temperature=1.0, top_p=0.95, seed=3, logprobs=5)
PROMPTS = [
    [(31 * n + 17 * i * i + i) % 211 for i in range(length)] for n, length in enumerate((40, 3, 23, 58, 12))
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.write(folder)
    checkpoint = Checkpoint.open(folder)
    return reference.build(checkpoint, torch.device("cpu"), dtype=torch.float32, page_size=PAGE_SIZE)


@dataclass
class Answers:
    tokens: list[list[int]]
    logprobs: list[list[float]]  # of the tokens and their alternatives
    cached: list[int]
    stats: Stats


def ask(model: Model, prompts: list[list[int]], sampling: SamplingParams, **changes) -> Answers:
    """Answers of 15 tokens, from a new engine over memory full of NaN, so that a wrong look shows."""
    limits = {
        "num_pages": 400,
        "page_size": PAGE_SIZE,
        "window": model.config.sliding_window,
        "max_context": 80,
        "max_tokens_per_step": 512,
        "prefix_cache": False,
    }
    limits = Limits(**(limits | changes))
    runner = Runner(model, limits.num_pages)
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
        [
            [p for token in row for p in (token.logprob.logprob, *(p for _, p in token.logprob.top))]
            for row in rows
        ],
        [row[0].prefill.cached_tokens for row in rows],
        engine.stats(),
    )


def all_logprobs(tokens: list[Token]) -> list[float]:
    return [p for token in tokens for p in (token.logprob.logprob, *(p for _, p in token.logprob.top))]


@pytest.fixture(scope="module")
def alone(model) -> dict[SamplingParams, Answers]:
    """Each prompt in one piece, with nobody beside it."""

    def one_by_one(sampling: SamplingParams) -> Answers:
        answers = [ask(model, [prompt], sampling) for prompt in PROMPTS]
        return Answers(
            [a.tokens[0] for a in answers], [a.logprobs[0] for a in answers], [0] * len(PROMPTS), Stats()
        )

    return {GREEDY.seed: one_by_one(GREEDY), SAMPLED.seed: one_by_one(SAMPLED)}


def assert_same(ours: Answers, theirs: Answers) -> None:
    assert ours.tokens == theirs.tokens
    for mine, other in zip(ours.logprobs, theirs.logprobs, strict=True):
        assert mine == pytest.approx(other, abs=2e-4)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
class TestTheAnswerIsTheSame:
    def test_batched_or_alone(self, model, alone, sampling):
        assert_same(ask(model, PROMPTS, sampling), alone[sampling.seed])

    @pytest.mark.parametrize("tokens", [1, 5, 16])
    def test_in_chunks_or_whole(self, model, alone, sampling, tokens):
        ours = ask(model, PROMPTS, sampling, max_tokens_per_step=tokens)
        assert ours.stats.steps > 20
        assert_same(ours, alone[sampling.seed])

    def test_preempted_or_undisturbed(self, model, alone, sampling):
        ours = ask(model, PROMPTS, sampling, num_pages=36, max_tokens_per_step=16)
        assert ours.stats.preemptions > 0
        assert_same(ours, alone[sampling.seed])

    def test_preempted_with_a_prefix_cache_or_undisturbed(self, model, alone, sampling):
        ours = ask(model, PROMPTS, sampling, num_pages=36, max_tokens_per_step=16, prefix_cache=True)
        assert ours.stats.preemptions > 0
        assert_same(ours, alone[sampling.seed])

    def test_from_the_prefix_cache_or_computed(self, model, alone, sampling):
        runner = Runner(model, 400)
        limits = Limits(400, PAGE_SIZE, model.config.sliding_window, max_context=80)
        engine = Engine(runner, limits)
        again(engine, PROMPTS, sampling)
        ours = again(engine, PROMPTS, sampling)
        assert ours.cached == [36, 0, 20, 56, 8]
        assert_same(ours, alone[sampling.seed])


def test_what_the_prefix_cache_had_is_what_would_be_computed_to_the_bit(model):
    """The chunks end in the same places, so the same kernels see the same shapes."""
    prompt = PROMPTS[0]  # 40 tokens; all but the last page can come from the cache
    limits = Limits(400, PAGE_SIZE, model.config.sliding_window, max_context=80, max_tokens_per_step=36)
    engine = Engine(Runner(model, 400), limits)
    computed = again(engine, [prompt], GREEDY)
    reused = again(engine, [prompt], GREEDY)
    assert (computed.cached, reused.cached) == ([0], [36])
    assert reused.tokens == computed.tokens
    assert reused.logprobs == computed.logprobs


def test_a_preempted_sequence_is_computed_again_to_the_bit(model):
    """Token by token, so that the same kernels see the same shapes."""
    prompt = PROMPTS[2]
    undisturbed = ask(model, [prompt], GREEDY, max_tokens_per_step=1)
    limits = Limits(400, PAGE_SIZE, model.config.sliding_window, max_context=80, max_tokens_per_step=1)
    for prefix_cache in (False, True):
        engine = Engine(Runner(model, 400), replace(limits, prefix_cache=prefix_cache))
        engine.add(Request("0", prompt, 15, sampling=GREEDY))
        events = []
        while engine.busy:
            events += engine.step()
            if len(events) in (1, 6) and engine.stats().preemptions < len(events) / 3:
                engine._scheduler._preempt(engine._scheduler.running[0])
        assert engine.stats().preemptions == 2
        assert [token.id for token in events] == undisturbed.tokens[0]
        assert all_logprobs(events) == undisturbed.logprobs[0]


def test_log_probabilities_of_a_prompt_are_those_of_its_tokens_as_answers(model, alone):
    """What the model said of its own answer, it says again when it reads it."""
    prompt, said = PROMPTS[2], alone[None].tokens[2]
    engine = Engine(Runner(model, 400), Limits(400, PAGE_SIZE, model.config.sliding_window, max_context=80))
    engine.add(Request("a", prompt + said, 1, sampling=GREEDY, prompt_logprobs=5))
    (token,) = finish(engine)["a"]
    told = token.prefill.logprobs[len(prompt) :]
    again = [p for entry in told for p in (entry.logprob, *(p for _, p in entry.top))]
    assert again == pytest.approx(alone[None].logprobs[2], abs=2e-4)
