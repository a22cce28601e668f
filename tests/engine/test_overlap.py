"""Overlapping steps: what is launched when, and that rows of ended sequences are ignored.

The other tests of this folder run with and without overlap, and so check that the answers are the same.
"""

import pytest
import torch
from torch import Tensor

from engine.admission import Limits
from engine.engine import Engine
from engine.errors import ConstraintFailed, NonFinite
from engine.request import Failure, Finish, Sampled, SamplingParams
from engine.runner import Runner
from engine.scheduler import Scheduler
from model.batch import Batch, KVCache
from tests.tools.traffic.historian import LIMITS, Follows, Historian, answer, ask, finish, ids


class Diary(Runner):
    """Records its calls in order: "run 3", "launch 3", "read 3" for steps of three sequences."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, overlaps=True, **options)
        self.lines: list[str] = []

    def run(self, plan):
        self.lines.append(f"run {len(plan.chunks)}")
        return super().run(plan)

    def launch(self, plan, behind=None):
        self.lines.append(f"launch {len(plan.chunks)}" + (" behind" if behind else ""))
        flight = super().launch(plan, behind)
        read = flight.read

        def noted():
            self.lines.append(f"read {len(plan.chunks)}")
            return read()

        flight.read = noted
        return flight


def overlapped(limits: Limits = LIMITS) -> tuple[Engine, list[str]]:
    diary = Diary(Historian(limits.page_size, limits.window), limits.num_pages)
    return Engine(diary, limits), diary.lines


def test_a_step_is_launched_before_the_last_is_read_and_none_for_nothing():
    engine, lines = overlapped()
    engine.add(ask("a", max_tokens=4))
    events = finish(engine)["a"]
    assert ids(events) == answer([1, 2, 3], 4, 6)
    behind = ["launch 1 behind", "read 1"]
    assert lines == ["launch 1", *behind, *behind, *behind, "read 1"], "the limit is known beforehand"


def test_who_reaches_the_limit_is_not_computed_again_beside_others():
    engine, lines = overlapped()
    engine.add(ask("short", max_tokens=2))
    engine.add(ask("long", [5, 6], max_tokens=4))
    finish(engine)
    assert lines[:6] == [
        "launch 2",
        "launch 2 behind",
        "read 2",
        "launch 1 behind",
        "read 2",
        "launch 1 behind",
    ]


def test_a_row_launched_for_somebody_who_stopped_is_thrown_away():
    said = answer([1, 2, 3], 3, 6)
    engine, lines = overlapped()
    engine.add(ask("stops", max_tokens=50, stop_tokens=frozenset(said[2:])))
    engine.add(ask("other", [7, 8], max_tokens=8))
    events = finish(engine)
    assert ids(events["stops"]) == said
    assert events["stops"][-1].finish is Finish.STOP
    assert ids(events["other"]) == answer([7, 8], 8, 6)
    assert lines.count("launch 2 behind") == 3, "one of them for nothing"
    assert lines.count("launch 1 behind") == 4, "the other goes on without a stop"
    assert "launch 1" not in lines
    assert engine.stats().pages_free == 60
    assert engine.stats().generation_tokens == 3 + 8


def test_a_step_whose_sequences_have_all_gone_is_never_read():
    engine, lines = overlapped()
    engine.add(ask("a", max_tokens=50))
    for _ in range(3):
        engine.step()
    engine.cancel("a")
    assert engine.stats().pages_free == 60
    assert not engine.busy
    reads = lines.count("read 1")
    engine.add(ask("b", [9], max_tokens=3))
    assert ids(finish(engine)["b"]) == answer([9], 3, 6)
    assert lines.count("read 1") == reads + 3


def test_who_arrives_is_planned_when_nothing_is_under_way():
    engine, lines = overlapped()
    engine.add(ask("a", max_tokens=20))
    said = engine.step() + engine.step()
    lines.clear()
    engine.add(ask("b", range(40), max_tokens=3))  # longer than a step
    events = {"a": said}
    while engine.busy:
        for event in engine.step():
            events.setdefault(event.request_id, []).append(event)
    assert lines[:2] == ["read 1", "run 2"], "the step under way first, then the prompt's first piece"
    assert ids(events["a"]) == answer([1, 2, 3], 20, 6)
    assert ids(events["b"]) == answer(list(range(40)), 3, 6)


def test_log_probabilities_go_in_turn_with_all_beside_them():
    engine, lines = overlapped()
    engine.add(ask("plain", max_tokens=8))
    engine.add(ask("a", max_tokens=4, sampling=SamplingParams(temperature=0, logprobs=1)))
    events = finish(engine)
    assert len(ids(events["a"])) == 4
    assert ids(events["plain"]) == answer([1, 2, 3], 8, 6)
    assert lines[:5] == ["run 2", "run 2", "run 2", "run 2", "launch 1"]


@pytest.mark.parametrize(
    "needs",
    [
        {"min_tokens": 3, "stop_tokens": frozenset(answer([1, 2, 3], 4, 6))},
        {"sampling": SamplingParams(temperature=0, frequency_penalty=-10.0)},  # the same again and again
        {"sampling": SamplingParams(temperature=0, presence_penalty=10.0, repetition_penalty=2.0)},
        {"sampling": SamplingParams(temperature=0, logit_bias={3: 10.0}, frequency_penalty=3.0)},
    ],
    ids=lambda needs: " ".join(needs),
)
def test_what_the_device_can_know_by_itself_is_launched_ahead_with_all_beside_it(needs):
    engine, lines = overlapped()
    engine.add(ask("plain", max_tokens=8))
    engine.add(ask("a", max_tokens=12, **needs))
    events = finish(engine)
    assert ids(events["a"]) == answer([1, 2, 3], 12, 6, **needs)
    assert ids(events["a"]) != answer([1, 2, 3], 12, 6, needs.get("stop_tokens", frozenset()))
    assert ids(events["plain"]) == answer([1, 2, 3], 8, 6)
    assert lines.count("launch 2 behind") >= 3
    assert not any(line.startswith("run") for line in lines)


def test_what_a_constraint_allows_is_asked_when_the_last_token_was_told():
    """Meanwhile the next step's logits are computed.  A constraint whose sequence has ended is not used
    again.
    """
    said = answer([1, 2, 3], 12, 6, constrained=True)
    assert said != answer([1, 2, 3], 12, 6)
    stops = frozenset(said[7:8])
    constraint = Follows(stops)
    engine, lines = overlapped()
    engine.add(ask("plain", max_tokens=14))
    engine.add(ask("a", max_tokens=12, constraint=constraint, stop_tokens=stops))
    events = finish(engine)
    assert ids(events["a"]) == constraint.came == said[: said.index(*stops) + 1]
    assert ids(events["plain"]) == answer([1, 2, 3], 14, 6)
    assert not constraint.asked_too_late
    assert lines.count("launch 2 behind") == len(constraint.came), "one of them for nothing"
    assert not any(line.startswith("run") for line in lines)


def test_who_waits_for_a_mask_waits_alone():
    """The other sequences get a token in each step, and its answer is the same."""
    engine, lines = overlapped()
    slow = Follows(frozenset(), late=7)
    engine.add(ask("plain", max_tokens=14))
    engine.add(ask("a", max_tokens=6, constraint=slow))
    engine.add(ask("other", [7, 8], max_tokens=14, constraint=(quick := Follows(frozenset()))))
    events = {"plain": [], "a": [], "other": []}
    steps = 0
    while engine.busy:
        before = {id: len(came) for id, came in events.items()}
        for event in engine.step():
            events[event.request_id].append(event)
        steps += 1
        if steps <= 14:
            assert [len(events[id]) - before[id] for id in ("plain", "other")] == [1, 1]
        if steps == 14:
            assert len(events["a"]) > 2, "it goes on beside them once its mask is there"
    assert ids(events["a"]) == slow.came == answer([1, 2, 3], 6, 6, constrained=True)
    assert ids(events["other"]) == quick.came == answer([7, 8], 14, 6, constrained=True)
    assert ids(events["plain"]) == answer([1, 2, 3], 14, 6)
    assert "launch 2" in lines, "without the one that waits"
    assert engine.stats().pages_free == 60


def test_who_is_alone_is_waited_for():
    engine, _ = overlapped()
    slow = Follows(frozenset(), late=10**9)
    engine.add(ask("a", max_tokens=6, constraint=slow))
    assert ids(finish(engine)["a"]) == slow.came == answer([1, 2, 3], 6, 6, constrained=True)


class Fails(Follows):
    """A constraint that fails after three tokens: with an exception in one of its methods, or by allowing no
    token.
    """

    def __init__(self, how: str):
        super().__init__(frozenset())
        self._how = how

    def mask(self):
        if len(self.came) == 3 and self._how == "mask":
            raise KeyError("lost")
        return memoryview(bytes(16)) if len(self.came) == 3 else super().mask()

    def accept(self, token):
        super().accept(token)
        if len(self.came) == 3 and self._how == "accept":
            raise KeyError("lost")


@pytest.mark.parametrize("how", ["mask", "accept", "nothing is allowed"])
def test_a_constraint_that_fails_ahead_ends_its_own_request_alone(how):
    engine, _ = overlapped()
    engine.add(ask("a", max_tokens=12, constraint=Fails(how)))
    engine.add(ask("plain", max_tokens=9))
    events = finish(engine)
    *tokens, failure = events["a"]
    assert ids(tokens) == answer([1, 2, 3], 3 - (how == "accept"), 6, constrained=True)
    assert isinstance(failure.error, ConstraintFailed)
    assert ids(events["plain"]) == answer([1, 2, 3], 9, 6)
    assert engine.stats().pages_free == 60


def test_no_memory_to_choose_costs_nothing_that_was_under_way(monkeypatch):
    engine, lines = overlapped()
    choose, calls = Runner._choose, []

    def choose_or_not(self, *arguments):
        calls.append(None)
        if len(calls) in (3, 6):
            raise torch.OutOfMemoryError
        return choose(self, *arguments)

    monkeypatch.setattr(Runner, "_choose", choose_or_not)
    engine.add(ask("a", max_tokens=12, constraint=Follows(frozenset())))
    engine.add(ask("plain", max_tokens=9))
    events = finish(engine)
    assert ids(events["a"]) == answer([1, 2, 3], 12, 6, constrained=True)
    assert ids(events["plain"]) == answer([1, 2, 3], 9, 6)
    assert lines.count("launch 2") == 3, "planned again, twice"


@pytest.mark.parametrize("sampling", [{}, {"top_p": 0.9}, {"top_k": 9, "min_p": 0.01}])
def test_a_seed_draws_the_same_in_both_orders(sampling):
    def said(overlaps: bool) -> list[list[int]]:
        model = Flat(page_size=4, window=6)
        engine = Engine(Runner(model, LIMITS.num_pages, overlaps=overlaps), LIMITS)
        for n in range(6):
            engine.add(ask(str(n), [n, 1], 12, SamplingParams(temperature=1.5, seed=n, **sampling)))
        events = finish(engine)
        return [ids(events[str(n)]) for n in range(6)]

    in_turn = said(overlaps=False)
    assert said(overlaps=True) == in_turn
    assert len({tuple(each) for each in in_turn}) == 6


class Flat(Historian):
    """A model whose logits are all equal, so that random draws differ."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        return super().forward(batch, cache).roll(3, dims=1) / 9


def test_a_prompt_whose_log_probabilities_are_wanted_is_read_in_turn():
    engine, lines = overlapped()
    engine.add(ask("a", max_tokens=3, prompt_logprobs=1))
    (first, *_) = finish(engine)["a"]
    assert len(first.prefill.logprobs) == 3
    assert lines == ["run 1", "launch 1", "launch 1 behind", "read 1", "read 1"]


def test_numbers_that_are_not_finite_end_their_own_request_alone(monkeypatch):
    monkeypatch.setenv("GPTOSS_FAULT", "step:3=nan")
    engine, _ = overlapped()
    for id in "ab":
        engine.add(ask(id, max_tokens=9))
    events = finish(engine)
    assert isinstance(events["a"][-1], Failure)
    assert isinstance(events["a"][-1].error, NonFinite)
    assert ids(events["a"]) == answer([1, 2, 3], 2, 6)
    assert ids(events["b"]) == answer([1, 2, 3], 9, 6)


def test_running_out_of_memory_ahead_costs_nothing_that_was_under_way(monkeypatch):
    monkeypatch.setenv("GPTOSS_FAULT", "step:3=oom,step:4=oom")
    engine, _ = overlapped()
    for id in "ab":
        engine.add(ask(id, max_tokens=9))
    events = finish(engine)
    assert ids(events["a"]) == ids(events["b"]) == answer([1, 2, 3], 9, 6)


def test_a_step_that_has_no_room_for_all_is_planned_with_all():
    """After memory ran out, steps are half as large; which sequence is next depends on which one ends."""
    scheduler = Scheduler(LIMITS)
    for id in "abcd":
        scheduler.add(ask(id))
    plan = scheduler.plan()
    assert scheduler.plan_ahead(plan) is not None
    scheduler.commit(plan, Sampled([50] * 4))
    scheduler.shed(scheduler.plan())
    half = scheduler.plan()
    assert half.num_tokens == 2
    assert scheduler.plan_ahead(half) is None
