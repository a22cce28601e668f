"""Random requests to an engine, with a model that shows its mistakes (historian.py)."""

import random
from dataclasses import replace
from pathlib import Path

from engine.admission import Limits
from engine.errors import QueueFull
from engine.request import Finish, Plan, Request, Sequence, Token
from tests.tools.traffic.historian import (
    EDITED,
    GREEDY,
    VOCABULARY,
    Follows,
    WatchedRunner,
    answer,
    make_engine,
)


class Traffic:
    """Random requests to an engine of random size; checks after each step everything that must hold."""

    def __init__(self, seed: int, own_pools: bool = False, disk: Path | None = None, disk_bytes: int = 2**30):
        """disk: folder for the prefix cache, of at most `disk_bytes`"""
        self.random = random.Random(seed)
        r = self.random
        page_size = r.choice((1, 2, 3, 4, 5))
        self.limits = Limits(
            num_pages=max(2, r.choice((8, 40, 80, 150, 400)) // page_size),
            page_size=page_size,
            window=r.choice((1, 3, 4, 7)),
            max_context=r.choice((12, 60, 200)),
            max_running=r.choice((1, 2, 5, 8)),
            max_tokens_per_step=r.choice((1, 3, 8, 20, 64)),
            max_queued=r.choice((0, 3, 20)),
            prefix_cache=r.random() < 0.7,
        )
        if own_pools:  # each kind of layer has its own pages, sometimes too few of one
            num_pages = (r.choice((1, 2, 5, 9, 30)), self.limits.num_pages)
            self.limits = replace(self.limits, num_pages=num_pages)
        self.engine = make_engine(self.limits, disk, disk_bytes)
        self.scheduler = self.engine._scheduler
        self.requests: dict[str, Request] = {}  # in order of arrival
        self.got: dict[str, list[Token]] = {}
        self.cancelled: set[str] = set()
        self.reached: dict[Sequence, int] = {}  # the next position to compute after all launched steps
        self.waits: set[Sequence] = set()  # for their masks, in the latest step
        self.groups = random.Random(f"groups {seed}")
        self.beginnings = [[r.randrange(VOCABULARY) for _ in range(60)] for _ in range(3)]

    def run(self, requests: int = 25) -> None:
        try:
            self._run(requests)
        finally:
            self.engine.close()

    def _run(self, requests: int) -> None:
        left = requests
        idle_steps = 0
        while left or self.engine.busy:
            while left and self.random.random() < 0.5:
                left -= 1
                self.ask()
            if self.requests and self.random.random() < 0.04:
                self.cancel(self.random.choice(list(self.requests)))
            self.step()
            idle_steps = idle_steps + 1 if not self.engine.busy else 0
            assert idle_steps < 1000
        assert self.scheduler.pages.available == self.scheduler.pages.num_pages
        for id, request in self.requests.items():
            if id not in self.cancelled:
                self.check_answer(request, self.got[id])

    def ask(self) -> None:
        r = self.random
        longest = min(self.limits.max_context - 1, self.scheduler.pages.capacity)
        start = r.choice((0, 0, self.limits.page_size))  # the same tokens after other ones are another page
        shared = r.choice(self.beginnings)[start : r.randrange(40)]
        prompt = shared + [r.randrange(VOCABULARY) for _ in range(r.randrange(8))] or [5]
        prompt = prompt[: min(longest, r.choice((longest, 12, 5)))]
        stop_tokens = frozenset((r.randrange(VOCABULARY), r.choice((5, 50, 60, 70))))
        request = Request(
            id=str(len(self.requests)),
            prompt=prompt,
            max_tokens=r.choice((1, 5, 30, 200)),
            stop_tokens=stop_tokens,
            sampling=r.choice((GREEDY, GREEDY, *EDITED)),
            constraint=Follows(stop_tokens, r.choice((0, 0, 1, 3, 9))) if r.random() < 0.25 else None,
            min_tokens=r.choice((0, 0, 4)),
            prompt_logprobs=r.choice((None, None, None, 1)),
            group=self.groups.choice(("", "", "many", "many", "few")),
        )
        try:
            self.engine.add(request)
        except QueueFull:
            waiting = len(self.scheduler.running) + len(self.scheduler.waiting)
            assert waiting == self.limits.max_running + self.limits.max_queued
        else:
            self.requests[request.id] = request
            self.got[request.id] = []

    def cancel(self, id: str) -> None:
        if id in self.engine._sequences:
            self.cancelled.add(id)
        self.engine.cancel(id)
        self.engine.cancel(id)
        assert id not in self.engine._sequences
        self.check_pages()

    def step(self) -> None:
        alive = [s for s in self.order() if s.request.id not in self.cancelled]
        decoding = [s for s in self.scheduler.running if s.computed > 0 and s.pending == 1]
        computed = {id(s): s.computed for s in self.scheduler.running}
        watched: WatchedRunner = self.engine._runner  # type: ignore[assignment]
        steps = len(watched.plans)
        under_way = self.engine._in_flight
        could_begin = self.scheduler._next() is not None
        known = {s.request.id: len(s.tokens) for s in alive}
        self.waits = {s for s in alive if s.held}  # waits for its mask, and must not be planned
        fetched = self.fetches  # the fetch may end in this step; then nothing is planned before the next
        events = self.engine.step()
        fetches = fetched or self.fetches
        self.waits |= {s for s in alive if s.held}
        plans = watched.plans[steps:]
        if watched.overlaps:
            assert len(plans) <= 2, "at most one step is launched ahead"
            left = (
                {c.sequence for c in under_way.plan.chunks if c.sequence.pages.full} if under_way else set()
            )
            masked = bool(left) and left <= self.waits  # the others in the step in flight were cancelled
            assert events or plans or not alive or fetches or masked, "something must happen"
            fresh = plans if under_way is None else []
            if under_way and could_begin and len(plans) == 1:
                assert self.engine._in_flight is None, "nobody who could begin waits for another overlap"
        else:
            fresh = plans
            assert len(plans) == bool(alive) or (fetches and not plans)
        for plan in fresh[:1]:
            self.check_plan(plan, alive, computed)
        for plan in plans:
            self.check_size(plan)
        self.check_progress([begun for step in watched.begun[steps:] for begun in step])
        for event in events:
            assert isinstance(event, Token)
            assert event.request_id not in self.cancelled
            self.got[event.request_id].append(event)
            known[event.request_id] += 1
        assert all(len(s.tokens) == known[s.request.id] for s in self.order())
        if self.limits.max_tokens_per_step > self.limits.max_running:
            told = {event.request_id for event in events}
            for s in decoding:
                stalled = s in self.scheduler.running and s.request.id not in told
                assert not stalled or s in self.waits, "an answer was stalled"
        self.check_pages()

    @property
    def fetches(self) -> bool:
        """Whether the head of the queue waits for the disk."""
        return bool(self.scheduler.waiting) and self.scheduler.waiting[0].fetch is not None

    def order(self) -> list[Sequence]:
        return [*self.scheduler.running, *self.scheduler.waiting]

    def check_size(self, plan: Plan) -> None:
        sequences = [chunk.sequence for chunk in plan.chunks]
        assert len(set(sequences)) == len(sequences), "a sequence was planned twice"
        assert all(chunk.length >= 1 for chunk in plan.chunks)
        assert plan.num_tokens <= self.limits.max_tokens_per_step
        assert len(sequences) <= self.limits.max_running

    def check_plan(self, plan: Plan, alive: list[Sequence], computed: dict[int, int]) -> None:
        """Check a plan that was made when all tokens were known."""
        planned = {chunk.sequence for chunk in plan.chunks}
        assert alive[0] in planned | self.waits, "the oldest must always advance"
        if self.limits.max_tokens_per_step > self.limits.max_running:
            for s in self.scheduler.running:  # those that still run
                was_decode = id(s) in computed and computed[id(s)] > 0 and len(s.tokens) - s.computed == 1
                assert not was_decode or s in planned | self.waits, "an answer under way was stalled"

    def check_progress(self, begun: list[tuple[Sequence, int, int]]) -> None:
        for sequence, start, length in begun:
            if sequence in self.reached:
                assert start == self.reached[sequence], "work resumes where it stopped"
            else:
                assert start % self.limits.page_size == 0, "or from whole pages of the prefix cache"
                assert start == 0 or self.limits.prefix_cache
            self.reached[sequence] = start + length
        under_way = self.engine._in_flight
        ahead = {chunk.sequence for chunk in under_way.plan.chunks} if under_way else set()
        if under_way and len(ahead) < self.limits.max_tokens_per_step:
            assert ahead >= set(self.scheduler.running), "all that run advance"
        for sequence in self.scheduler.running:
            if sequence in self.waits and sequence.computed + (sequence in ahead) < self.reached[sequence]:
                self.reached[sequence] -= 1  # it got no token, and its last row is computed again
            assert sequence.computed + (sequence in ahead) == self.reached[sequence]
        for sequence in self.scheduler.waiting:
            self.reached.pop(sequence, None)

    def check_pages(self) -> None:
        pages, size = self.scheduler.pages, self.limits.page_size
        pages.check()
        holders = [0] * pages.num_pages
        for sequence in self.scheduler.running:
            table = sequence.pages
            for page in (*table.full, *table.banded[table.behind :]):
                holders[page] += 1
            assert len(table.full) == len(table.banded) >= -(-sequence.computed // size)
            assert table.held <= pages.needed(sequence.computed) + 2 * self.limits.max_tokens_per_step
        for place, sequence in enumerate(self.scheduler.waiting):
            assert sequence.fetch is None or place == 0, "only the head of the queue waits for the disk"
            if sequence.fetch is None:
                assert sequence.pages.held == 0
            table = sequence.pages
            for page in (*table.full, *table.banded[table.behind :]):
                holders[page] += 1
        assert holders == pages._holders, "held pages are those of running sequences, or on their way to one"
        for sequence in self.scheduler.waiting:
            assert sequence.computed == 0
        by_group: dict[str, list[int]] = {}
        for sequence in self.order():
            by_group.setdefault(sequence.request.group, []).append(int(sequence.request.id))
        assert all(ids == sorted(ids) for ids in by_group.values()), "first come is first served"

    def check_answer(self, request: Request, tokens: list[Token]) -> None:
        room = min(
            request.max_tokens,
            self.limits.max_context - len(request.prompt),
            self.scheduler.pages.capacity + 1 - len(request.prompt),
        )
        window = self.limits.window
        wants = (request.stop_tokens, request.sampling, request.min_tokens, request.constraint is not None)
        expected = answer(request.prompt, room, window, *wants)
        assert [token.id for token in tokens] == expected
        if request.constraint is not None:
            assert isinstance(request.constraint, Follows)
            assert request.constraint.came == expected, "told each token, once"
            assert not request.constraint.asked_too_late
        stopped = expected[-1] in request.stop_tokens
        assert tokens[-1].finish is (Finish.STOP if stopped else Finish.LENGTH)
        assert all(token.finish is None for token in tokens[:-1])
        assert tokens[0].prefill is not None
        assert all(token.prefill is None for token in tokens[1:])
        assert tokens[0].prefill.cached_tokens < len(request.prompt)
        assert self.limits.prefix_cache or tokens[0].prefill.cached_tokens == 0
        if request.prompt_logprobs is not None:
            nothing, *told = tokens[0].prefill.logprobs or ()
            assert nothing is None
            best = [entry.top[0][0] for entry in told if entry is not None]
            assert best == [answer(request.prompt[:n], 1, window)[0] for n in range(1, len(request.prompt))]
