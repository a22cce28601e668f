"""The engine as a plain object: add, cancel, step.  No threads, no asyncio, no tensors.

    engine.add(request)
    while engine.busy:
        for event in engine.step():
            ...

A step is plan → run → commit: the scheduler chooses tokens, the runner computes them, the scheduler notes
what that meant.

Where a device computes while the host goes on (`Launches`), a step of plain decodes is launched before
the one before it is read, so that the device never waits for the host:

    host    launch 2 ── read 1 · commit 1 · hand out ── launch 3 ── read 2 · commit 2 · hand out ── …
    device  ──── 1 ─────────────┼──────────── 2 ────────────────────┼────── 3 ──

A sequence that ends with step 1 has a row in step 2 that nobody reads.  Its pages are free at once: whoever
gets them is computed by a later step, and the device takes one step after the other.  Whatever needs the
tokens of the last step before it can be planned (a prompt, pages running out) or its logits
(log-probabilities) is planned when nothing is under way, and so the answers are those of steps in turn.  A
constraint needs the last token only before the next is chosen: that is launched when it was read, while the
device still computes what to choose from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from engine.errors import DeadlineExceeded, OutOfMemory, UnknownToken
from engine.pages import Pages
from engine.request import Failure, Plan, Request, Sequence, Token
from engine.sampling import Sampled
from engine.scheduler import Limits, Scheduler


class Runs(Protocol):
    """What the engine needs of a runner (engine/runner.py; tests have others)."""

    vocab_size: int

    def run(self, plan: Plan) -> Sampled:
        """Compute the plan's chunks.

        Raises OutOfMemory, with nothing changed that matters, if a smaller plan could succeed.
        """


@runtime_checkable
class Launches(Runs, Protocol):
    """A runner that can begin with a step before the last one is read.

    overlaps  whether `launch` returns before the work is done, so that it is worth while
    """

    overlaps: bool

    def launch(self, plan: Plan, behind: Any = None) -> Flies:
        """Begin to compute a `launchable` plan.

        behind  what was launched before and is not read yet: the chunks are the tokens that it chooses.  The
                choice of the next may be left for `Flies.choose`

        Raises OutOfMemory, as `run`.
        """


class Flies(Protocol):
    """A step under way."""

    plan: Plan

    def choose(self) -> None:
        """Begin to choose its tokens, if that had to wait until those of the step before were noted.

        Raises OutOfMemory.
        """

    def read(self) -> Sampled:
        """Wait for what it chooses."""


@dataclass(frozen=True, slots=True)
class Stats:
    """How it goes: gauges (running … pages_free) and counters since the start.

    pages_free      pages a new sequence could be given, the prefix cache's unused ones included
    prefix_queries  prompt tokens looked up in the prefix cache
    prefix_hits     prompt tokens found there
    """

    running: int = 0
    waiting: int = 0
    pages_total: int = 0
    pages_free: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    steps: int = 0


class Engine:
    def __init__(
        self,
        runner: Runs,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        pages: Pages | None = None,
    ):
        self.limits = limits
        self._runner = runner
        self._scheduler = Scheduler(limits, pages)
        self._clock = clock
        self._sequences: dict[str, Sequence] = {}
        self._next_deadline = float("inf")  # the earliest, or earlier than that
        self._steps = 0
        self._launcher = runner if isinstance(runner, Launches) and runner.overlaps else None
        self._under_way: Flies | None = None  # launched, not read

    def check(self, request: Request) -> None:
        """Raise EmptyPrompt, PromptTooLong or UnknownToken if the request can never run.

        Any thread may ask.
        """
        self._scheduler.check(request)
        size = self._runner.vocab_size
        for token in (
            min(request.prompt),
            max(request.prompt),
            *request.sampling.logit_bias,
            *request.stop_tokens,
        ):
            if not 0 <= token < size:
                raise UnknownToken(token, size)

    def add(self, request: Request) -> None:
        """Queue a request.  Raises EmptyPrompt, PromptTooLong, UnknownToken or QueueFull."""
        assert request.id not in self._sequences, f"request {request.id} is under way already"
        self.check(request)
        deadline = (
            float("inf") if request.timeout_seconds is None else self._clock() + request.timeout_seconds
        )
        self._sequences[request.id] = self._scheduler.add(request, deadline)
        self._next_deadline = min(self._next_deadline, deadline)

    def cancel(self, request_id: str) -> None:
        """Forget a request; its pages are free at once.  Does nothing if it has ended already."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self._scheduler.remove(sequence)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._sequences)

    def step(self) -> list[Token | Failure]:
        """Advance every running sequence, and report what came of it."""
        events = self._expire()
        if self._launcher is not None:
            events += self._step_ahead(self._launcher)
        elif (plan := self._scheduler.plan()).chunks:
            events += self._step_in_turn(plan)
        for event in events:
            if isinstance(event, Failure) or event.finish is not None:
                self._sequences.pop(event.request_id, None)
        return events

    def _step_in_turn(self, plan: Plan) -> list[Token | Failure]:
        self._steps += 1
        try:
            sampled = self._runner.run(plan)
        except OutOfMemory:
            return self._scheduler.shed(plan)
        return self._scheduler.commit(plan, sampled)

    def _step_ahead(self, launcher: Launches) -> list[Token | Failure]:
        """Read the step under way, or the next one, but first launch the one after it."""
        scheduler = self._scheduler
        flight, self._under_way = self._under_way, None
        if flight is None or not scheduler.any_left(flight.plan):
            plan = scheduler.plan()
            if not plan.chunks:
                return []
            if not plan.launchable:
                return self._step_in_turn(plan)
            try:
                flight = launcher.launch(plan)
            except OutOfMemory:
                self._steps += 1
                return scheduler.shed(plan)
        following = scheduler.follow(flight.plan)
        if following is not None:
            with suppress(OutOfMemory):  # it is planned again with nothing beside it, and sheds load then
                self._under_way = launcher.launch(following, flight)
        self._steps += 1
        events = scheduler.commit(*scheduler.leave_out(flight.plan, flight.read()))
        if self._under_way is not None:
            try:
                self._under_way.choose()
            except OutOfMemory:
                self._under_way = None  # likewise
        return events

    def _expire(self) -> list[Token | Failure]:
        """End the requests whose time is up."""
        now = self._clock()
        if now < self._next_deadline:
            return []
        late = [sequence for sequence in self._sequences.values() if sequence.deadline <= now]
        for sequence in late:
            self.cancel(sequence.request.id)
        self._next_deadline = min(
            (sequence.deadline for sequence in self._sequences.values()), default=float("inf")
        )
        return [Failure(s.request.id, DeadlineExceeded(s.request.timeout_seconds or 0)) for s in late]

    def stats(self) -> Stats:
        scheduler = self._scheduler
        return Stats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            pages_total=scheduler.pages.num_pages,
            pages_free=scheduler.pages.available,
            prefix_queries=scheduler.prefix_queries,
            prefix_hits=scheduler.prefix_hits,
            prompt_tokens=scheduler.prompt_tokens,
            generation_tokens=scheduler.generation_tokens,
            preemptions=scheduler.preemptions,
            steps=self._steps,
        )
