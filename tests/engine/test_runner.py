"""From a plan to a Batch, and from logits to sampled tokens."""

import math
from dataclasses import replace

import pytest
import torch

from engine import faults
from engine.admission import Limits
from engine.engine import Engine
from engine.errors import DeadlineExceeded, NonFinite, UnknownToken
from engine.request import Chunk, Failure, Plan, SamplingParams, Sequence
from engine.runner import Runner
from model.batch import BANDED, FULL, Batch
from tests.tools.traffic.historian import (
    GREEDY,
    LIMITS,
    VOCABULARY,
    Historian,
    answer,
    ask,
    finish,
    ids,
    make_engine,
)
from tests.tools.traffic.traffic import Traffic

pytestmark = pytest.mark.usefixtures("order")


def test_chunks_are_laid_end_to_end():
    """The middle of a prompt, and a decode, with scattered pages."""
    runner = Runner(Historian(page_size=4, window=6), 30)
    prompt, decode = (
        Sequence(ask(id, range(prompt)), list(range(tokens)), limit=99, seed=0, computed=computed)
        for id, prompt, tokens, computed in (("prompt", 12, 12, 3), ("decode", 8, 10, 9))
    )
    prompt.pages.full.extend([20, 5, 11])
    prompt.pages.banded.extend([7, 2, 9])
    decode.pages.full.extend([8, 3, 12])
    decode.pages.banded.extend([99, 1, 4])  # the first is stale
    decode.pages.behind = 1
    batch = runner.batch(Plan([Chunk(decode, 1), Chunk(prompt, 6)]))
    assert batch.tokens.tolist() == [9, 3, 4, 5, 6, 7, 8]
    assert batch.positions.tolist() == [9, 3, 4, 5, 6, 7, 8]
    assert batch.slots[FULL].tolist() == [12 * 4 + 1, 20 * 4 + 3, 20, 21, 22, 23, 44]
    assert batch.slots[BANDED].tolist() == [4 * 4 + 1, 7 * 4 + 3, 8, 9, 10, 11, 36]
    assert batch.starts.tolist() == [0, 1, 7]
    assert batch.lengths.tolist() == [10, 9]
    assert batch.page_table[FULL].tolist() == [[8, 3, 12], [20, 5, 11]]
    assert batch.page_table[BANDED, :, 1:].tolist() == [[1, 4], [2, 9]]
    assert batch.prompts.tolist() == [8, 12]
    assert batch.samples.tolist() == [0], "the prompt does not reach its end"
    assert [t.dtype for t in (batch.tokens, batch.positions, batch.slots, batch.samples)] == [torch.int64] * 4
    of_32_bits = batch.starts, batch.lengths, batch.page_table, batch.prompts
    assert [t.dtype for t in of_32_bits] == [torch.int32] * 4


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [
        (GREEDY, 0.0),
        (SamplingParams(temperature=0.5), 0.5),
        (SamplingParams(temperature=0.7, top_p=0.9), 0.7),
        (replace(GREEDY, logprobs=2), math.inf),
        (replace(GREEDY, logit_bias={3: 1.0}), math.inf),
        (replace(GREEDY, presence_penalty=1.0), math.inf),
    ],
)
def test_the_batch_says_what_its_logits_are_for(sampling, wanted):
    """Only what choosing the token needs; log-probabilities and edits need all logits."""
    runner = Runner(Historian(page_size=4, window=6), 30)
    chunks = []
    for id, scored in (("plain", False), ("scored", True)):
        request = ask(id, range(3), sampling=sampling, prompt_logprobs=0 if scored else None)
        sequence = Sequence(request, [0, 1, 2], limit=99, seed=0, prompt_logprobs=[None] if scored else [])
        sequence.pages.full.append(1)
        sequence.pages.banded.append(1)
        chunks.append(Chunk(sequence, 3))
    batch = runner.batch(Plan(chunks))
    assert batch.samples.tolist() == [2, 5, 3, 4]
    assert batch.temperatures.tolist() == pytest.approx([wanted, wanted, math.inf, math.inf])


class Fixed(Historian):
    """A model that always gives the same logits."""

    def __init__(self, logits: list[float]):
        super().__init__(page_size=4, window=6)
        self.logits = torch.tensor(logits)

    def forward(self, batch, cache):
        return self.logits.expand(len(batch.samples), -1).clone()


def fixed_engine(logits: list[float], **options) -> Engine:
    return Engine(
        Runner(Fixed(logits + [-50.0] * (VOCABULARY - len(logits))), LIMITS.num_pages, **options), LIMITS
    )


def test_tokens_the_tokenizer_does_not_know_never_come():
    logits = [1.0, 2.0, 3.0, 4.0, 5.0]
    engine = fixed_engine(logits, banned_from=4, banned=[3, 96])
    for n, sampling in enumerate(
        (GREEDY, SamplingParams(temperature=9.0), SamplingParams(top_k=80, temperature=9.0))
    ):
        engine.add(ask(str(n), max_tokens=90, sampling=sampling))
    events = finish(engine)
    assert set(ids(events["0"])) == {2}
    assert {0, 1, 2} <= set(ids(events["1"]) + ids(events["2"])) <= {0, 1, 2}
    with pytest.raises(UnknownToken, match="token 4 does not exist: the model knows 0 to 3"):
        engine.add(ask("a", [1, 4]))


@pytest.mark.parametrize("bad", [{"prompt": [1, -1]}, {"sampling": SamplingParams(logit_bias={97: 1.0})}])
def test_tokens_the_model_does_not_have_are_refused(bad):
    with pytest.raises(UnknownToken):
        make_engine(LIMITS).add(ask("a", **bad))


def test_log_probabilities_of_the_prompt_are_those_of_its_own_tokens():
    logits = [1.0, 2.0, 3.0]
    engine = fixed_engine(logits)
    prompt = [(n * n) % 3 for n in range(30)]  # longer than a step
    engine.add(ask("a", prompt, max_tokens=2, prompt_logprobs=2))
    engine.add(ask("b", prompt, max_tokens=2))
    first, second = finish(engine)["a"]
    own = torch.tensor(logits + [-50.0] * (VOCABULARY - 3)).log_softmax(-1)
    nothing, *told = first.prefill.logprobs
    assert nothing is None
    assert [entry.logprob for entry in told] == pytest.approx([float(own[token]) for token in prompt[1:]])
    assert all([id for id, _ in entry.top] == [2, 1] for entry in told)
    assert second.prefill is None


def test_a_preempted_prompt_is_told_its_log_probabilities_once():
    limits = Limits(num_pages=14, page_size=4, window=6, max_context=60, max_running=4, max_tokens_per_step=6)
    engine = make_engine(limits)
    engine.add(ask("old", range(7), max_tokens=20))
    engine.add(ask("new", range(20, 28), max_tokens=20, prompt_logprobs=0))
    engine.add(ask("newest", range(30, 38), max_tokens=20, prompt_logprobs=1))
    events = finish(engine)
    assert engine.stats().preemptions > 0
    for id in ("new", "newest"):
        assert len(events[id][0].prefill.logprobs) == 8
        assert len(ids(events[id])) == 20


def test_a_preempted_sequence_draws_what_it_would_have_drawn_undisturbed():
    sampling = SamplingParams(temperature=2.0, frequency_penalty=0.1, seed=1)
    requests = [ask(str(n), [n, 2, 3], max_tokens=30, sampling=sampling) for n in range(4)]

    def answers(num_pages: int) -> tuple[list[list[int]], int]:
        limits = Limits(
            num_pages, page_size=4, window=6, max_context=60, max_running=4, max_tokens_per_step=16
        )
        engine = make_engine(limits)
        for request in requests:
            engine.add(request)
        events = finish(engine)
        return [ids(events[request.id]) for request in requests], engine.stats().preemptions

    (undisturbed, none), (disturbed, some) = answers(100), answers(20)
    assert none == 0 < some
    assert undisturbed == disturbed


def test_a_deadline_passes_wherever_the_request_is():
    clock = [0.0]
    limits = Limits(
        num_pages=60, page_size=4, window=6, max_context=100, max_running=2, max_tokens_per_step=8
    )
    engine = make_engine(limits, clock=lambda: clock[0])
    engine.add(ask("decoding", max_tokens=90, timeout_seconds=5))
    engine.add(ask("prefilling", range(60), timeout_seconds=4))
    engine.add(ask("waiting", timeout_seconds=3))
    engine.add(ask("patient"))
    engine.step()
    late = []
    for clock[0] in (2.9, 3.0, 4.0, 5.0, 6.0):
        late += [event for event in engine.step() if isinstance(event, Failure)]
    assert [failure.request_id for failure in late] == ["waiting", "prefilling", "decoding"]
    assert all(isinstance(failure.error, DeadlineExceeded) for failure in late)
    assert ids(finish(engine)["patient"])[-1] == answer([1, 2, 3], 5, 6)[-1]
    assert engine.stats().pages_free == 60


def test_the_gauges_return_to_zero():
    engine = make_engine(LIMITS)
    for n in range(8):
        engine.add(ask(str(n)))
    engine.step()
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (4, 4)
    finish(engine)
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.pages_free == stats.pages_total == 60
    assert stats.generation_tokens == 40
    assert stats.prompt_tokens == 24


def faulty_engine(monkeypatch, fault: str) -> Engine:
    monkeypatch.setenv("GPTOSS_FAULT", fault)
    return make_engine(LIMITS)


def test_fault_raise_is_an_exception_nobody_catches(monkeypatch):
    engine = faulty_engine(monkeypatch, "step:2=raise")
    engine.add(ask("a"))
    with pytest.raises(faults.InjectedFault):
        finish(engine)
    assert engine.stats().generation_tokens <= 1


def test_fault_nan_ends_one_sequence_and_its_neighbours_do_not_notice(monkeypatch):
    engine = faulty_engine(monkeypatch, "step:3=nan,step:8=nan")
    for id in "abc":
        engine.add(ask(id, [ord(id) % 50, 1]))
    events = finish(engine)
    *tokens, failure = events["a"]
    assert isinstance(failure.error, NonFinite)
    assert ids(tokens) == answer([ord("a") % 50, 1], 5, 6)[:2]
    for id in "bc":
        assert ids(events[id]) == answer([ord(id) % 50, 1], 5, 6)
    while engine.stats().steps < 6:  # step 8 will be in the middle of this prompt
        engine.add(ask(f"filler {engine.stats().steps}", max_tokens=1))
        finish(engine)
    engine.add(ask("long", range(40)))
    (failure,) = finish(engine)["long"]
    assert isinstance(failure.error, NonFinite)
    assert engine.stats().pages_free == 60


def test_fault_oom_changes_no_answer(monkeypatch):
    engine = faulty_engine(monkeypatch, "step:1=oom,step:2=oom,step:5=oom")
    for id in "abc":
        engine.add(ask(id, range(ord(id) % 50, ord(id) % 50 + 20)))
    events = finish(engine)
    for id in "abc":
        assert ids(events[id]) == answer(list(range(ord(id) % 50, ord(id) % 50 + 20)), 5, 6)


@pytest.mark.parametrize("text", ["step:x=nan", "nan", "step:3=explode", "step:3", "3=nan"])
def test_a_fault_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match="GPTOSS_FAULT"):
        faults.parse(text)


def test_faults_are_read_from_one_line():
    assert faults.parse("step:3=nan, step:10=hang") == {3: "nan", 10: "hang"}
    assert faults.parse("") == {}


@pytest.mark.parametrize("seed", range(5))
def test_a_runners_batches_are_those_of_their_chunks(seed, monkeypatch):
    """For speed it builds them from arrays of the host; everything else uses `Batch.of`."""
    made = Runner.batch

    def compared(self, plan):
        batch = made(self, plan)
        tables = [(chunk.sequence.pages.banded, chunk.sequence.pages.full) for chunk in plan.chunks]
        width = max(len(full) for _, full in tables)
        rows = [
            [[*pages, *[0] * (width - len(pages))] for pages in each] for each in zip(*tables, strict=True)
        ]
        known = [(chunk.sequence.computed, chunk.length) for chunk in plan.chunks]
        words = [c.sequence.tokens[c.sequence.computed :][: c.length] for c in plan.chunks]
        same = Batch.of(
            known, torch.tensor(rows), self.model.page_size, torch.tensor([t for each in words for t in each])
        )
        for name in ("tokens", "positions", "slots", "starts", "lengths", "page_table"):
            assert torch.equal(getattr(batch, name), getattr(same, name)), name
        sampling = [chunk.samples for chunk in plan.chunks]
        assert batch.samples[: sum(sampling)].tolist() == same.samples[torch.tensor(sampling)].tolist()
        return batch

    monkeypatch.setattr(Runner, "batch", compared)
    Traffic(seed).run()
