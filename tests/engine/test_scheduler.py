"""The scheduler's policy: properties that the traffic tests do not check."""

import pytest

from engine.admission import Limits
from engine.errors import EmptyPrompt, NonFinite, OutOfMemory, PromptTooLong, QueueFull
from engine.request import Failure, Finish, Logprob, Request, Sampled, SamplingParams, Token
from engine.scheduler import SCORED_PER_STEP, STEPS_TO_RECOVER, Scheduler

LIMITS = {
    "num_pages": 60,
    "page_size": 4,
    "window": 6,
    "max_context": 80,
    "max_running": 4,
    "max_tokens_per_step": 10,
}


def scheduler(**changes) -> Scheduler:
    return Scheduler(Limits(**{**LIMITS, **changes}))


def ask(id: str, prompt: int | list[int] = 3, max_tokens: int = 10, **options) -> Request:
    return Request(id, list(range(prompt)) if isinstance(prompt, int) else prompt, max_tokens, **options)


def step(scheduler: Scheduler, **outcome) -> list[tuple[str, int]]:
    """Run one step, in which every sequence that samples gets token 50.  Returns what was computed."""
    plan = scheduler.plan()
    work = [(chunk.sequence.request.id, chunk.length) for chunk in plan.chunks]
    samples = sum(chunk.samples for chunk in plan.chunks)
    scheduler.events = scheduler.commit(plan, Sampled([50] * samples, **outcome))
    return work


def test_a_prompt_is_read_in_chunks_between_the_tokens_of_others():
    s = scheduler(prefix_cache=False)
    s.add(ask("a", 3))
    s.add(ask("long", 25))
    s.add(ask("c", 2))
    assert step(s) == [("a", 3), ("long", 7)]
    assert step(s) == [("a", 1), ("long", 9)]
    assert step(s) == [("a", 1), ("long", 9)]
    assert step(s) == [("a", 1), ("long", 1), ("c", 2)]


def test_the_last_token_of_a_prompt_counts_as_a_decode_and_samples():
    s = scheduler()
    s.add(ask("a", 11))
    assert step(s) == [("a", 10)]
    assert s.events == []
    assert step(s) == [("a", 1)]
    (token,) = s.events
    assert (token.request_id, token.id) == ("a", 50)


class NotReady:
    """A constraint whose mask never comes."""

    def ready(self, seconds: float | None = 0) -> bool:
        return False


def test_who_is_preempted_while_its_mask_is_missing_computes_its_tokens_again():
    s = scheduler(prefix_cache=False)
    s.add(ask("a", 25, constraint=NotReady()))
    assert [step(s) for _ in range(3)] == [[("a", 10)], [("a", 10)], [("a", 5)]]
    (a,) = s.running
    a.held = True
    s.add(ask("b", 2))
    assert step(s) == [("b", 2)], "a waits for its mask"
    s.remove(s.running[1])
    s._preempt(a)
    s.add(ask("c", 2))
    assert [step(s) for _ in range(2)] == [[("a", 10)], [("a", 10)]], "it does not need the mask yet"


def test_first_come_is_first_served_even_if_the_next_would_fit():
    s = scheduler(num_pages=16, max_tokens_per_step=100)
    s.add(ask("a", 20))
    s.add(ask("large", list(range(100, 120))))
    s.add(ask("small", 1))
    assert step(s) == [("a", 20)]
    assert [waiting.request.id for waiting in s.waiting] == ["large", "small"]
    s.remove(s.running[0])
    assert step(s) == [("large", 20), ("small", 1)]


def test_the_newest_gives_way_keeps_its_tokens_and_its_place():
    s = scheduler(num_pages=12, max_tokens_per_step=100, prefix_cache=False)
    s.add(ask("old", 8, 60))
    s.add(ask("new", 7, 60))
    s.add(ask("newest", 4, 60))
    for _ in range(30):
        step(s)
        if s.preemptions:
            break
    assert [r.request.id for r in s.running] == ["old", "new"]
    (waiting,) = s.waiting
    assert waiting.request.id == "newest"
    assert waiting.answered > 0
    assert waiting.computed == waiting.pages.held == 0


def test_prompts_that_cannot_fit_are_refused_with_both_numbers():
    s = scheduler()
    s.check(ask("fits", 79))
    with pytest.raises(PromptTooLong, match="has 80 tokens; at most 79 fit"):
        s.add(ask("a", 80))
    small = scheduler(num_pages=9)  # six of the full kind, three of the other
    small.check(ask("fits", 24))
    with pytest.raises(PromptTooLong, match="has 25 tokens; at most 24 fit"):
        small.add(ask("a", 25))
    with pytest.raises(EmptyPrompt):
        s.add(ask("a", 0))


def test_an_answer_ends_where_the_context_does():
    s = scheduler(max_context=8)
    s.add(ask("a", 5, max_tokens=1000))
    for _ in range(3):
        step(s)
    assert s.events[-1].finish is Finish.LENGTH
    assert not s.running


def test_the_queue_is_bounded():
    s = scheduler(max_queued=2)
    for n in range(6):
        s.add(ask(str(n)))
    with pytest.raises(QueueFull):
        s.add(ask("one too many"))


def test_a_prompt_that_somebody_is_reading_is_not_read_twice():
    s = scheduler(max_tokens_per_step=100)
    for id in "abc":
        s.add(ask(id, 18))
    assert step(s) == [("a", 18)], "the others wait for its pages"
    assert step(s) == [("a", 1), ("b", 2), ("c", 2)]
    cached = {event.request_id: event.prefill.cached_tokens for event in s.events if event.prefill}
    assert cached == {"b": 16, "c": 16}
    assert (s.admission.prefix_queries, s.admission.prefix_hits) == (54, 32)


def test_prompts_with_different_salts_share_nothing():
    s = scheduler(max_tokens_per_step=100)
    cached = {}
    for id, salt in (("a", b"x"), ("b", b"y"), ("c", b"x"), ("d", b"")):
        s.add(ask(id, 18, max_tokens=1, cache_salt=salt))
        step(s)
        cached[id] = s.events[0].prefill.cached_tokens
    assert cached == {"a": 0, "b": 0, "c": 16, "d": 0}


def test_the_second_turn_of_a_chat_reads_only_what_is_new():
    s = scheduler(max_tokens_per_step=100)
    s.add(ask("first", 24, max_tokens=4))
    while s.running or s.waiting:
        step(s)
    history = [*range(24), 50, 50, 50]
    s.add(ask("second", [*history, 60, 61, 62]))
    assert step(s) == [("second", 6)]
    assert s.events[0].prefill.cached_tokens == 24


def test_without_a_prefix_cache_nothing_is_shared():
    s = scheduler(max_tokens_per_step=100, prefix_cache=False)
    s.add(ask("a", 18))
    s.add(ask("b", 18))
    assert step(s) == [("a", 18), ("b", 18)]
    assert s.events[1].prefill.cached_tokens == 0


def test_out_of_memory_makes_steps_smaller_for_a_while():
    s = scheduler()
    s.add(ask("a", 70, max_tokens=10))
    assert s.shed(s.plan()) == []
    assert step(s) == [("a", 5)]
    assert s.shed(s.plan()) == []
    assert step(s) == [("a", 2)]
    for _ in range(STEPS_TO_RECOVER):
        s.add(ask("filler", 1, max_tokens=1)) if not s.waiting else None
        step(s)
    s.add(ask("b", list(range(200, 230)), max_tokens=1))
    assert max(length for _, length in step(s)) > 2


def test_a_single_token_that_runs_out_of_memory_fails():
    s = scheduler()
    s.add(ask("a", 3))
    while s.plan().num_tokens > 1:
        assert s.shed(s.plan()) == []
    (failure,) = s.shed(s.plan())
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, OutOfMemory)
    assert s.pages.available == 60


def test_damaged_pages_are_not_inherited():
    s = scheduler(max_tokens_per_step=100)
    s.add(ask("a", 18))
    step(s)
    step(s, errors={"a": NonFinite()})
    (failure,) = s.events
    assert isinstance(failure.error, NonFinite)
    s.add(ask("b", 18))
    assert step(s) == [("b", 18)]


def test_log_probabilities_of_a_prompt_are_computed_in_pieces_and_never_taken_from_the_cache():
    s = scheduler(max_tokens_per_step=1000, max_context=500, num_pages=500)
    s.add(ask("before", 150, max_tokens=1))
    step(s)
    s.add(ask("scored", 150, prompt_logprobs=0))
    lengths, scored = [], []
    while not scored or scored[-1] < 148:
        plan = s.plan()
        (chunk,) = plan.chunks
        lengths.append(chunk.length)
        scored += chunk.scored
        told = {"scored": [Logprob(-float(position)) for position in chunk.scored]}
        s.events = s.commit(plan, Sampled([50] * chunk.samples, prompt=told))
    assert lengths == [SCORED_PER_STEP, SCORED_PER_STEP, 150 - 2 * SCORED_PER_STEP]
    assert scored == list(range(149))
    (token,) = s.events
    assert token.prefill.cached_tokens == 0
    assert [entry and entry.logprob for entry in token.prefill.logprobs] == [
        None,
        *(-float(p) for p in range(149)),
    ]


def test_several_prompts_share_the_rows_there_are_for_log_probabilities():
    s = scheduler(max_tokens_per_step=1000, max_context=500, num_pages=500)
    for n in range(3):
        s.add(ask(str(n), [n] * 50, prompt_logprobs=0))
    plan = s.plan()
    assert [chunk.length for chunk in plan.chunks] == [50, 14]


def test_a_seed_is_drawn_for_whoever_brings_none():
    s = scheduler()
    seeds = {s.add(ask(str(n))).seed for n in range(4)}
    assert len(seeds) == 4
    assert s.add(ask("own", sampling=SamplingParams(seed=7))).seed == 7


def test_tokens_are_counted():
    s = scheduler()
    s.add(ask("a", 12, max_tokens=3))
    while s.running or s.waiting:
        step(s)
    assert (s.prompt_tokens, s.generation_tokens) == (12, 3)
    assert all(isinstance(event, Token) for event in s.events)


@pytest.mark.parametrize("name", ["page_size", "window", "max_running", "max_tokens_per_step", "num_pages"])
def test_limits_that_allow_nothing_are_refused(name):
    with pytest.raises(ValueError, match=name):
        Limits(**{**LIMITS, name: 0})


def test_callers_that_wait_take_turns_and_each_keeps_its_order():
    s = scheduler(max_running=1, max_tokens_per_step=100)
    for i in range(6):
        s.add(ask(f"a{i}", max_tokens=1, caller="a"))
    step(s)
    for i in range(3):
        s.add(ask(f"b{i}", max_tokens=1, caller="b"))
    s.add(ask("a6", max_tokens=1, caller="a"))
    order = []
    while s.waiting:
        order += [id for id, _ in step(s)]
    assert [id for id in order if id[0] == "a"] == [f"a{i}" for i in range(1, 7)]
    assert [id for id in order if id[0] == "b"] == ["b0", "b1", "b2"]
    assert order.index("b2") <= 6  # and not behind all that came before it


def test_a_prompt_is_looked_through_once_for_all_its_answers():
    """Finding the smallest and largest of 131,072 ids for each of 128 answers blocked the event loop."""
    from engine.engine import Engine

    class Once(list):
        looks = 0

        def __iter__(self):
            Once.looks += 1
            return super().__iter__()

    class Runner:
        vocab_size = 100

    engine = Engine(Runner(), Limits(**LIMITS))
    prompt = Once([1, 2, 3])
    for i in range(5):
        engine.check(Request(f"r{i}", prompt, 4, extremes=(1, 3)))
    assert Once.looks == 0
    engine.check(Request("r", prompt, 4))
    assert Once.looks == 2


def begun(scheduler: Scheduler) -> str:
    """The first letters of those that run, after a step."""
    step(scheduler)
    return "".join(sorted(sequence.request.id[0] for sequence in scheduler.running))


def many(letter: str, answers: int) -> list[Request]:
    return [ask(f"{letter}{i}", [i], group=letter) for i in range(answers)]


def test_one_request_with_many_answers_takes_a_quarter_of_the_places_while_others_run():
    s = scheduler(max_running=8, max_tokens_per_step=100)
    for request in [ask("x"), *many("a", 6), *many("b", 6), ask("y"), ask("z")]:
        s.add(request)
    assert begun(s) == "aabbxyz"
    for sequence in list(s.running):
        if sequence.request.id in ("a0", "y"):
            s.remove(sequence)
    assert begun(s) == "aabbxz", "its next answer begins when one of its own ends"
    assert [each.request.id for each in s.running if each.request.group == "a"] == ["a1", "a2"]


def test_where_rows_cost_time_many_requests_share_the_places_equally():
    s = scheduler(max_running=12, max_tokens_per_step=100, equal_shares=True)
    for request in [*many("a", 6), *many("b", 6)]:
        s.add(request)
    assert begun(s) == "aaabbb", "still at most a quarter each"
    for letter in "vwxyz":
        s.add(ask(letter))
    for sequence in list(s.running):
        s.remove(sequence)
    assert begun(s) == "abvwxyz", "seven requests: one place each"


def test_alone_it_takes_all_and_who_comes_then_begins_before_its_other_answers():
    s = scheduler(max_running=8, max_tokens_per_step=100)
    for request in many("a", 12):
        s.add(request)
    assert begun(s) == "aaaaaaaa"
    s.add(ask("x"))
    assert begun(s) == "aaaaaaaa"
    s.remove(s.running[3])
    assert begun(s) == "aaaaaaax"
    for sequence in s.running[:6]:
        s.remove(sequence)
    assert begun(s) == "aax"
    s.remove(next(sequence for sequence in s.running if sequence.request.id == "x"))
    assert begun(s) == "aaaaa", "alone again"
