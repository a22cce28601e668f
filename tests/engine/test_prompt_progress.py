"""While a prompt is computed, the engine reports the progress, and afterwards how long it took."""

from dataclasses import replace

import pytest

from tests.tools.traffic.historian import LIMITS, ask, finish, make_engine

pytestmark = pytest.mark.usefixtures("order")


def test_a_prompt_is_seen_to_advance_until_its_first_token():
    engine = make_engine(replace(LIMITS, max_tokens_per_step=16))
    engine.add(ask("old", [1, 2, 3], max_tokens=60))
    engine.step()
    engine.add(ask("long", range(50), max_tokens=4))
    seen = []
    while "long" in engine._sequences:
        events = [event for event in engine.step() if event.request_id == "long"]
        reading = engine.stats().reading
        assert not (events and "long" in reading), "no longer, once there is a token"
        assert "old" not in reading
        seen += [reading["long"]] if "long" in reading else []
    assert seen == sorted(seen)
    assert len(seen) >= 3
    assert all(0 < computed < total == 50 for computed, total in seen)


def test_the_time_of_a_prompt_is_that_from_its_first_step_to_its_first_token():
    now = [100.0]

    def clock():
        return now[0]

    engine = make_engine(replace(LIMITS, max_running=1), clock=clock)
    engine.add(ask("first", range(40), max_tokens=3))
    engine.add(ask("second", [*range(20), 5, 6, 7], max_tokens=3))
    events = []
    while engine.busy:
        events += engine.step()
        now[0] += 2.0
    first, second = (next(e.prefill for e in events if e.request_id == id) for id in ("first", "second"))
    assert (first.cached_tokens, first.computed_tokens) == (0, 40)
    assert first.seconds == 2.0 * 2, "40 tokens in steps of 16: two steps before the last one began"
    assert (second.cached_tokens, second.computed_tokens) == (20, 3), "the wait for the first is not counted"
    assert second.seconds == 0.0
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.prompt_tokens_computed, stats.prompt_seconds) == (63, 43, 4.0)


def test_nothing_is_read_once_all_is_answered():
    engine = make_engine(LIMITS)
    engine.add(ask("a", range(50)))
    finish(engine)
    assert engine.stats().reading == {}
