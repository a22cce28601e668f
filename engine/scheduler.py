"""Chooses the tokens of the next step (plan), and records its result (commit).  No tensors.

Requests are served in order of arrival; if several callers wait, they are served in turn
(engine/fairness.py).  One request with many answers takes only a share of the places (`Scheduler._next`).
"Older" means: began to run, or will begin, earlier.  All of `running` is older than `waiting`, and both are
sorted, oldest first.  Each step has a budget of tokens.  The oldest sequence takes from it first: one token
if it decodes, or as much of its prompt as budget and pages allow.  A prompt is begun only when the previous
one is planned to its end.  So decoding sequences are older than those in prefill, and a long prompt never
delays the answers being generated (chunked prefill).

If a sequence needs a page and there is none, the newest running sequence is preempted.  It keeps its tokens
and returns to the head of the queue; its keys and values are computed again later, or found in the prefix
cache.  Only the newest is ever preempted, and no sequence may grow beyond what the whole pool holds
(`Sequence.limit`).  So the oldest always advances, and every request ends.

If prefixes are also stored on disk, the head of the queue may wait for its pages to be read
(`Sequence.fetch`).  It holds them meanwhile, but loses them before any running sequence is preempted.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from engine.admission import Admission, Limits
from engine.disk.cache import DiskCache
from engine.errors import EmptyPrompt, EngineError, NonFinite, OutOfMemory, PromptTooLong, QueueFull
from engine.fairness import Rounds, first_within_share
from engine.pages import Pages
from engine.request import Chunk, Failure, Finish, Plan, Prefill, Request, Sampled, Sequence, Token

SCORED_PER_STEP = 64
"""Maximum prompt tokens whose log-probabilities are computed in a step: each needs a row of V logits."""

STEPS_TO_RECOVER = 64
"""After this many steps without running out of memory, the token budget doubles again."""


class _Budget:
    """The tokens that are left for one step."""

    def __init__(self, tokens: int):
        self._left = tokens
        self._to_score = SCORED_PER_STEP

    def offer(self, sequence: Sequence) -> int:
        """How many tokens `sequence` may have in this step."""
        length = sequence.pending
        if length > self._left:  # min() takes twice as long, and this runs for every token
            length = self._left
        return min(length, self._to_score) if sequence.wants_prompt_logprobs else length

    def spend(self, chunk: Chunk) -> None:
        self._left -= chunk.length
        if chunk.sequence.wants_prompt_logprobs:
            self._to_score -= chunk.length


class Scheduler:
    def __init__(
        self,
        limits: Limits,
        pages: Pages | None = None,
        disk: DiskCache | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.limits = limits
        self._clock = clock
        self.disk = disk
        self.pages = pages or Pages(limits.num_pages, limits.page_size, limits.window)
        self.admission = Admission(limits, self.pages, disk, clock)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._rounds = Rounds()
        self.prompt_tokens = self.generation_tokens = self.preemptions = 0
        self.prompt_tokens_computed, self.prompt_seconds = 0, 0.0
        self._budget = limits.max_tokens_per_step  # lower for a while after running out of memory
        self._good_steps = 0

    def reading(self) -> dict[str, tuple[int, int]]:
        """For each request whose prompt is being computed: computed and total tokens."""
        found = {}
        for sequence in reversed(self.running):  # decoding sequences are older
            if sequence.pending <= 1:
                break
            found[sequence.request.id] = (sequence.computed, len(sequence.tokens))
        return found

    # Adding and removing

    def check(self, request: Request) -> None:
        """Raise EmptyPrompt or PromptTooLong if the request can never run.

        Reads only constants: any thread may call it.
        """
        if not request.prompt:
            raise EmptyPrompt
        longest = min(self.limits.max_context - 1, self.pages.capacity)
        if len(request.prompt) > longest:
            raise PromptTooLong(len(request.prompt), longest)

    def add(self, request: Request, deadline: float = float("inf")) -> Sequence:
        """Queue a request.  Raises EmptyPrompt, PromptTooLong, or QueueFull."""
        self.check(request)
        if len(self.running) + len(self.waiting) >= self.limits.max_running + self.limits.max_queued:
            raise QueueFull(len(self.waiting))
        seed = request.sampling.seed
        sequence = Sequence(
            request,
            tokens=list(request.prompt),
            # The last token of an answer is never computed: it counts for the context, but needs no cache.
            limit=min(
                len(request.prompt) + max(1, request.max_tokens),
                self.limits.max_context,
                self.pages.capacity + 1,
            ),
            seed=random.getrandbits(64) if seed is None else seed,
            deadline=deadline,
        )
        if request.prompt_logprobs is not None:
            sequence.prompt_logprobs.append(None)  # nothing comes before the first token
        self._enqueue(sequence)
        return sequence

    def _enqueue(self, sequence: Sequence) -> None:
        """Queue it after those that wait for its round or an earlier one.  The head of the queue stays there,
        because work for it may have begun.
        """
        sequence.round = self._rounds.join(sequence.request.caller)
        place = len(self.waiting)
        while place > 1 and self.waiting[place - 1].round > sequence.round:
            place -= 1
        self.waiting.insert(place, sequence)

    def remove(self, sequence: Sequence) -> None:
        """End a sequence that runs or waits; its pages are free at once."""
        sequence.ended = True
        if sequence in self.running:
            self.running.remove(sequence)
            self.pages.release(sequence.pages)
            self.pages.refresh(sequence.hashes[: len(sequence.request.prompt) // self.limits.page_size])
        else:
            self.admission.give_up_fetch(sequence)
            self.waiting.remove(sequence)

    # Before the step

    def plan(self) -> Plan:
        """Choose the tokens of the next step, and give their sequences pages.

        Empty only if nothing is running or waiting.
        """
        decodes: list[Chunk] = []
        prefills: list[Chunk] = []
        budget = _Budget(self._budget)
        preemptions = self.preemptions
        held: list[Sequence] = []  # their masks are not computed yet

        place = 0
        while place < len(self.running):  # oldest first; a preemption removes the last
            sequence = self.running[place]
            wanted = budget.offer(sequence)
            if sequence.held and _still_held(sequence):
                held.append(sequence)
            elif wanted:
                chunk = Chunk(sequence, self._make_room(sequence, wanted))
                if not chunk.length:
                    break  # the sequence itself was the newest, and was preempted
                (decodes if sequence.pending == 1 else prefills).append(chunk)
                budget.spend(chunk)
            place += 1

        coming = self._completed_by(prefills)
        while (
            self._bring_next()
            and self.preemptions == preemptions  # a sequence that was just preempted would be preempted again
            and budget.offer(self.waiting[0])
            and self.admission.admit(self.waiting[0], coming)
        ):
            sequence = self.waiting.popleft()
            self._rounds.serve(sequence.round)
            self.running.append(sequence)
            chunk = Chunk(sequence, self._make_room(sequence, budget.offer(sequence)))
            prefills.append(chunk)
            budget.spend(chunk)
            coming |= self._completed_by([chunk])
        if not decodes and not prefills and held and _still_running(held[0]):
            decodes.append(Chunk(held[0], self._make_room(held[0], 1)))  # no others wait for its mask
        return Plan(decodes + prefills)

    def plan_ahead(self, plan: Plan) -> Plan | None:
        """The step after a `launchable` plan, while the tokens that `plan` chooses are still unknown.

        It has one chunk for each sequence, the unknown token, except for sequences that reach their limit
        with it.  If a sequence has ended with its token, its chunk is ignored later (`drop_ended`).

        None if plan() must wait for the tokens: a waiting sequence could run, `plan` does not have all
        running sequences, one of them is held, there are too few pages, or there is nothing to do.
        """
        chunks = [chunk for chunk in plan.chunks if _still_running(chunk.sequence)]
        if len(chunks) != len(self.running) or len(chunks) > self._budget:
            return None
        if any(chunk.sequence.held for chunk in chunks):  # these get no token in `plan`
            return None
        if self._next() is not None:
            return None
        following = []
        for chunk in chunks:
            sequence = chunk.sequence
            length = len(sequence.tokens) + 1
            if length == sequence.limit:
                continue
            if length > len(sequence.pages.full) * self.limits.page_size:
                # Not over what `plan` computes: it may complete a page, which is published afterwards.
                self.pages.slide(sequence.pages, sequence.computed)
                if not self.pages.grow(sequence.pages, length):
                    return None
            following.append(Chunk(sequence, 1))
        return Plan(following) if following else None

    def _next(self) -> int | None:
        """The place in the queue of the sequence that may begin next; None if none may."""
        if not self.waiting or len(self.running) >= self.limits.max_running:
            return None
        if self.waiting[0].fetch is not None:
            return 0
        return first_within_share(
            map(_group, self.waiting),
            map(_group, self.running),
            self.limits.max_running,
            self.limits.equal_shares,
        )

    def _bring_next(self) -> bool:
        """Bring the sequence that may begin next to the head of the queue.  Returns whether there is one."""
        place = self._next()
        if place:
            sequence = self.waiting[place]
            del self.waiting[place]
            self.waiting.appendleft(sequence)
        return place is not None

    def _make_room(self, sequence: Sequence, wanted: int) -> int:
        """Give `sequence` pages for up to `wanted` more tokens; preempt newer ones if there is no page.

        Returns the number of tokens; 0 if the sequence itself was the newest, and was preempted.
        """
        table = sequence.pages
        if sequence.computed + wanted <= len(table.full) * self.limits.page_size:
            return wanted
        self.pages.slide(table, sequence.computed)
        while (room := self.pages.reach(table) - sequence.computed) <= 0:
            if self.waiting and self.admission.give_up_fetch(self.waiting[0]):
                continue
            newest = self.running[-1]
            self._preempt(newest)
            if newest is sequence:
                return 0
        length = min(wanted, room)
        self.pages.grow(table, sequence.computed + length)
        return length

    def _preempt(self, sequence: Sequence) -> None:
        """The newest running sequence becomes the oldest waiting one."""
        assert sequence is self.running[-1]
        self.running.pop()
        self.pages.release(sequence.pages)
        sequence.computed = 0  # its tokens are kept; their keys and values are computed again
        sequence.held = False  # otherwise it would wait for its mask before it computes them
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _completed_by(self, prefills: list[Chunk]) -> set[bytes]:
        """The hashes of the pages that these chunks complete."""
        size = self.limits.page_size
        return {
            digest
            for chunk in prefills
            for digest in chunk.sequence.hashes[
                chunk.sequence.computed // size : (chunk.sequence.computed + chunk.length) // size
            ]
        }

    # After the step

    @staticmethod
    def any_running(plan: Plan) -> bool:
        """Whether any of the plan's sequences is still running."""
        return any(_still_running(chunk.sequence) for chunk in plan.chunks)

    @staticmethod
    def drop_ended(plan: Plan, sampled: Sampled) -> tuple[Plan, Sampled]:
        """The plan and its tokens, without the sequences that have ended since it was launched."""
        if all(_still_running(chunk.sequence) for chunk in plan.chunks):
            return plan, sampled
        kept = [
            (chunk, token)
            for chunk, token in zip(plan.chunks, sampled.tokens, strict=True)
            if _still_running(chunk.sequence)
        ]
        return Plan([chunk for chunk, _ in kept]), replace(sampled, tokens=[token for _, token in kept])

    def commit(self, plan: Plan, sampled: Sampled) -> list[Token | Failure]:
        """Record the result of a step; removes sequences that have ended, and frees their pages."""
        events: list[Token | Failure] = []
        sampled_tokens = iter(sampled.tokens)
        page_size = self.limits.page_size
        for chunk in plan.chunks:
            sequence = chunk.sequence
            request = sequence.request
            token = next(sampled_tokens) if chunk.samples else None
            if sampled.errors and request.id in sampled.errors:
                events.append(self._fail(sequence, sampled.errors[request.id]))
                continue
            held = sequence.held and chunk.samples
            sequence.computed += chunk.length - held  # the row for sampling is computed again
            if sequence.computed // page_size > sequence.pages.published:
                self._publish(sequence)
            if sampled.prompt and request.id in sampled.prompt:
                sequence.prompt_logprobs += sampled.prompt[request.id]
            if token is None or held:
                continue
            prefill = None if sequence.answered else self._prefill(sequence)
            sequence.tokens.append(token)
            self.generation_tokens += 1
            finish = None
            if token in request.stop_tokens:
                finish = Finish.STOP
            elif len(sequence.tokens) >= sequence.limit:
                finish = Finish.LENGTH
            if finish is not None:
                self.remove(sequence)
            events.append(Token(request.id, token, finish, sampled.logprobs.get(request.id), prefill))
        self._recover()
        return events

    def shed(self, plan: Plan) -> list[Token | Failure]:
        """A step ran out of memory, and its result is lost: take smaller steps for a while.

        The KV cache is allocated once, so all other memory of a step grows only with its number of tokens.
        """
        tokens = plan.num_tokens
        if tokens == 1:  # no smaller step is possible
            return [self._fail(plan.chunks[0].sequence, OutOfMemory())]
        self._budget = tokens // 2
        self._good_steps = 0
        return []

    def _recover(self) -> None:
        if self._budget < self.limits.max_tokens_per_step:
            self._good_steps += 1
            if self._good_steps >= STEPS_TO_RECOVER:
                self._budget = min(2 * self._budget, self.limits.max_tokens_per_step)
                self._good_steps = 0

    def _publish(self, sequence: Sequence) -> None:
        if self.limits.prefix_cache:
            first, complete = sequence.pages.published, sequence.computed // self.limits.page_size
            self.pages.extend_hashes(sequence.hashes, sequence.tokens, complete, sequence.request.cache_salt)
            self.pages.publish(sequence.pages, sequence.hashes, complete)
            if self.disk is not None:
                prompt = len(sequence.request.prompt)
                self.disk.computed(sequence.hashes, range(first, complete), prompt, sequence.used_ns)

    def _prefill(self, sequence: Sequence) -> Prefill:
        cached, seconds = sequence.cached_tokens or 0, self._clock() - sequence.began
        self.prompt_tokens += len(sequence.tokens)
        self.prompt_tokens_computed += len(sequence.tokens) - cached
        self.prompt_seconds += seconds
        if self.disk is not None:
            self.disk.used(sequence.hashes, sequence.used_ns)
        logprobs = None if sequence.request.prompt_logprobs is None else tuple(sequence.prompt_logprobs)
        return Prefill(cached, logprobs, len(sequence.tokens) - cached, seconds)

    def _fail(self, sequence: Sequence, error: EngineError) -> Failure:
        if isinstance(error, NonFinite):
            self.pages.withdraw(sequence.hashes)  # no other sequence may share pages that may hold NaN
            if self.disk is not None:
                self.disk.withdraw(sequence.hashes)
        self.remove(sequence)
        return Failure(sequence.request.id, error)


def _still_held(sequence: Sequence) -> bool:
    constraint = sequence.request.constraint
    return constraint is not None and not constraint.ready()


def _group(sequence: Sequence) -> str:
    return sequence.request.group or sequence.request.id


def _still_running(sequence: Sequence) -> bool:
    """Whether a sequence that was planned still runs: one that ended or was preempted holds no pages."""
    return bool(sequence.pages.full)
