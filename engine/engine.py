"""The engine as a plain object: add, cancel, step.  No threads, no asyncio, no tensors.

    engine.add(request)
    while engine.busy:
        for event in engine.step():
            ...

A step is plan → run → commit: the scheduler plans which tokens to compute, the runner computes them, and the
scheduler records the result.

If a device computes while the host continues (`OverlappingRunner`), two steps can be in flight.  A step of
decodes is launched before the previous one is read, so that the device never waits for the host:

    host    launch 2 ── read 1 · commit 1 · deliver ── launch 3 ── read 2 · commit 2 · deliver ── …
    device  ──── 1 ─────────────┼──────────── 2 ───────────────────┼────── 3 ──

A sequence that ends with step 1 still has a row in step 2; that row is ignored.  Its pages are free at once:
the device runs one step after the other, so the next owner of the pages writes them later.  Two kinds of
step are planned only when nothing is in flight: those that need the tokens of the last step to be planned (a
prompt, no pages left), and those that need its logits on the host (log-probabilities).  So the answers are
the same as without overlap.  A constraint needs the last token only before the next one is chosen: that
choice is launched as soon as the token was read, while the device still computes the logits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from engine.admission import Limits
from engine.disk.cache import DiskCache
from engine.errors import DeadlineExceeded, OutOfMemory, UnknownToken
from engine.pages import Pages
from engine.request import Failure, Plan, Request, Sampled, Sequence, Token
from engine.scheduler import Scheduler


class StepRunner(Protocol):
    """Computes steps for the engine: engine/runner.py, or a test's stand-in."""

    vocab_size: int

    def run(self, plan: Plan) -> Sampled:
        """Compute the plan's chunks, and sample.

        Raises OutOfMemory if a smaller plan could succeed; the step can then be planned again.
        """


@runtime_checkable
class OverlappingRunner(StepRunner, Protocol):
    """A runner that can launch a step before the previous one is read.

    overlaps  whether `launch` returns before the device is done; if not, the engine uses `run` only
    """

    overlaps: bool

    def launch(self, plan: Plan, previous: Any = None) -> StepInFlight:
        """Start to compute a `launchable` plan.

        previous  the step in flight, if there is one: each chunk is then the one token that it chooses for
                  that sequence.  Call `StepInFlight.choose` on the new step once `previous` is committed

        Raises OutOfMemory, as `run`.
        """


class StepInFlight(Protocol):
    """A step that was launched and not read yet."""

    plan: Plan

    def choose(self) -> None:
        """Start to choose its tokens, if that had to wait until the previous step was committed.

        Raises OutOfMemory.
        """

    def read(self) -> Sampled:
        """Wait for its tokens."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Gauges (running … disk_bytes), and counters since the start (prefix_queries … steps).

    pages_free              pages for new sequences, including those that only the prefix cache uses
    reading                 for each request whose prompt is being computed: computed and total tokens
    disk_bytes              size of the prefix cache on disk
    prefix_queries          prompt tokens looked up in the prefix cache
    prefix_hits             prompt tokens found in the prefix cache
    prefix_disk_hits        prompt tokens whose pages were read from disk
    disk_faults             files of the prefix cache that could not be read or written
    prompt_tokens           prompt tokens of answered requests
    prompt_tokens_computed  those that were not in the prefix cache, computed in `prompt_seconds`
    """

    running: int = 0
    waiting: int = 0
    pages_total: int = 0
    pages_free: int = 0
    reading: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    disk_bytes: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prefix_disk_hits: int = 0
    disk_faults: int = 0
    prompt_tokens: int = 0
    prompt_tokens_computed: int = 0
    prompt_seconds: float = 0.0
    generation_tokens: int = 0
    preemptions: int = 0
    steps: int = 0


class Engine:
    def __init__(
        self,
        runner: StepRunner,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        pages: Pages | None = None,
        disk: DiskCache | None = None,
    ):
        self.limits = limits
        self._runner = runner
        self._scheduler = Scheduler(limits, pages, disk, clock)
        self._disk = disk
        self._clock = clock
        self._sequences: dict[str, Sequence] = {}
        self._next_deadline = float("inf")  # the earliest, or earlier than that
        self._steps = 0
        self._overlapping = runner if isinstance(runner, OverlappingRunner) and runner.overlaps else None
        self._in_flight: StepInFlight | None = None

    def check(self, request: Request) -> None:
        """Raise EmptyPrompt, PromptTooLong or UnknownToken if the request can never run.

        Any thread may ask.
        """
        self._scheduler.check(request)
        size = self._runner.vocab_size
        for token in (
            *(request.extremes or (min(request.prompt), max(request.prompt))),
            *request.sampling.logit_bias,
            *request.stop_tokens,
        ):
            if not 0 <= token < size:
                raise UnknownToken(token, size)

    def add(self, request: Request) -> None:
        """Queue a request.  Raises EmptyPrompt, PromptTooLong, UnknownToken or QueueFull."""
        assert request.id not in self._sequences, f"request {request.id} is in the engine already"
        self.check(request)
        deadline = (
            float("inf") if request.timeout_seconds is None else self._clock() + request.timeout_seconds
        )
        self._sequences[request.id] = self._scheduler.add(request, deadline)
        self._next_deadline = min(self._next_deadline, deadline)

    def cancel(self, request_id: str) -> None:
        """End a request without an event; its pages are free at once.  Safe to call twice."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self._scheduler.remove(sequence)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._sequences) or (self._disk is not None and self._disk.pending)

    def step(self) -> list[Token | Failure]:
        """Run one step; returns its tokens and the requests that failed."""
        events = self._expire()
        steps = self._steps
        if self._disk is not None:
            self._disk.turn()
        if self._overlapping is not None:
            events += self._step_overlapped(self._overlapping)
        elif (plan := self._scheduler.plan()).chunks:
            events += self._step_alone(plan)
        for event in events:
            if isinstance(event, Failure) or event.finish is not None:
                self._sequences.pop(event.request_id, None)
        if self._disk is not None and self._steps == steps and not events:
            self._disk.wait()  # because there was nothing to compute
        return events

    def _step_alone(self, plan: Plan) -> list[Token | Failure]:
        self._steps += 1
        try:
            sampled = self._runner.run(plan)
        except OutOfMemory:
            return self._scheduler.shed(plan)
        return self._scheduler.commit(plan, sampled)

    def _step_overlapped(self, runner: OverlappingRunner) -> list[Token | Failure]:
        """Read the step in flight (if there is none, launch one), but first launch the step after it."""
        scheduler = self._scheduler
        current, self._in_flight = self._in_flight, None
        if current is None or not scheduler.any_running(current.plan):
            plan = scheduler.plan()
            if not plan.chunks:
                return []
            if not plan.launchable:
                return self._step_alone(plan)
            try:
                current = runner.launch(plan)
            except OutOfMemory:
                self._steps += 1
                return scheduler.shed(plan)
        following = scheduler.plan_ahead(current.plan)
        if following is not None:
            with suppress(
                OutOfMemory
            ):  # planned again when nothing is in flight; then smaller steps are taken
                self._in_flight = runner.launch(following, current)
        self._steps += 1
        events = scheduler.commit(*scheduler.drop_ended(current.plan, current.read()))
        if self._in_flight is not None:
            try:
                self._in_flight.choose()
            except OutOfMemory:
                self._in_flight = None  # planned again, as above
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

    def close(self) -> None:
        """Call after the last step: writes pages to the prefix cache on disk.  Safe to call twice."""
        if self._disk is not None:
            self._disk.close()

    def stats(self) -> Stats:
        scheduler = self._scheduler
        return Stats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            pages_total=scheduler.pages.num_pages,
            pages_free=scheduler.pages.available,
            reading=scheduler.reading(),
            prefix_queries=scheduler.admission.prefix_queries,
            prefix_hits=scheduler.admission.prefix_hits,
            prefix_disk_hits=scheduler.admission.prefix_disk_hits,
            disk_bytes=0 if self._disk is None else self._disk.store.bytes,
            disk_faults=0 if self._disk is None else self._disk.store.faults,
            prompt_tokens=scheduler.prompt_tokens,
            prompt_tokens_computed=scheduler.prompt_tokens_computed,
            prompt_seconds=scheduler.prompt_seconds,
            generation_tokens=scheduler.generation_tokens,
            preemptions=scheduler.preemptions,
            steps=self._steps,
        )
