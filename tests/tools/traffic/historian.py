"""A model whose answers change with every mistake of the engine; traffic.py generates requests for it.

The next token depends on all keys that the layers should see, and on their positions.  So the answer changes
if tokens are out of order, if a page is lost, shared too early or overwritten, or if a window is too short.
The model reads keys through the page table of a Batch that the real Runner built.  Memory is overwritten with
wrong values whenever a page is freed or given to another sequence.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.admission import Limits
from engine.disk.cache import DiskCache
from engine.disk.files import PageFiles
from engine.disk.store import PageStore
from engine.engine import Engine
from engine.pages import Pages
from engine.request import Failure, Plan, Request, Sampled, SamplingParams, Sequence, Token
from engine.runner import LaunchedStep, Runner
from model.batch import BANDED, FULL, Batch, KVCache, PerKind
from model.loading.synthetic import GPT_OSS_20B
from model.page_copies import PageCopies

VOCABULARY = 97
POISON = -(10**6)
LARGEST = 9.0
"""The logit of the next token; all others are 0."""

LIMITS = Limits(num_pages=60, page_size=4, window=6, max_context=100, max_running=4, max_tokens_per_step=16)
"""Limits of a small engine."""

GREEDY = SamplingParams(temperature=0)
EDITED = (
    SamplingParams(temperature=0, frequency_penalty=4.0, logit_bias={5: 30.0}),  # 5, six times
    SamplingParams(
        temperature=0, repetition_penalty=2.0, presence_penalty=2.0, logit_bias={3: 6.0, 96: -1.0}
    ),
)
"""Parameters with which the chosen token is often not the model's; all sums are exact."""


def key(before: int, token: int, position: int) -> int:
    """The key of a token: like a real model's, it depends on all tokens before it, and on its position."""
    return (31 * before + 7 * token + position) % 1009


def answer(
    prompt: list[int],
    length: int,
    window: int,
    stop_tokens: frozenset[int] = frozenset(),
    sampling: SamplingParams = GREEDY,
    min_tokens: int = 0,
    constrained: bool = False,
) -> list[int]:
    """The whole greedy answer, computed directly: full layers see all keys, banded ones the last `window`."""
    tokens, keys = list(prompt), [0]
    while len(tokens) < len(prompt) + length and not (
        len(tokens) > len(prompt) and tokens[-1] in stop_tokens
    ):
        for position in range(len(keys) - 1, len(tokens)):
            keys.append(key(keys[-1], tokens[position], position))
        last = len(tokens) - 1
        everything = sum((i + 1) * k for i, k in enumerate(keys[1:]))
        band = sum((last - i + 1) * keys[i + 1] for i in range(max(0, last - window + 1), last + 1))
        logits = [0.0] * VOCABULARY
        logits[(7 * everything + 3 * band + last) % VOCABULARY] = LARGEST
        said = tokens[len(prompt) :]
        if sampling != GREEDY or min_tokens:
            withheld = stop_tokens if len(said) < min_tokens and not constrained else frozenset()
            logits = edited(logits, tokens, said, withheld, sampling)
        if constrained and said:
            allowed = Follows.after(said[-1])
            logits = [x if token in allowed else -math.inf for token, x in enumerate(logits)]
        tokens.append(logits.index(max(logits)))
    return tokens[len(prompt) :]


def edited(
    logits: list[float],
    tokens: list[int],
    said: list[int],
    withheld: frozenset[int],
    sampling: SamplingParams,
) -> list[float]:
    """The logits with the edits of the request, computed one by one."""
    result = []
    for token, x in enumerate(logits):
        if token in tokens:
            x = x / sampling.repetition_penalty if x > 0 else x * sampling.repetition_penalty
        if token in said:
            x -= sampling.presence_penalty + sampling.frequency_penalty * said.count(token)
        x += sampling.logit_bias.get(token, 0.0)
        result.append(-math.inf if token in withheld else x)
    return result


class Follows:
    """A constraint that depends on the last token.  After a stop token it must not be asked for a mask.

    late  how often `ready` is false before every second mask, unless the caller waits
    """

    def __init__(self, stop_tokens: frozenset[int], late: int = 0):
        self.came: list[int] = []
        self.asked_too_late = False
        self._stop_tokens = stop_tokens
        self._late, self._asked, self._ready = late, 0, False

    @staticmethod
    def after(token: int) -> set[int]:
        return {(3 * token + 11 * i * i + 1) % VOCABULARY for i in range(7)}

    def mask(self) -> memoryview | None:
        self._still_going()
        assert self._ready, "somebody would have waited"
        if not self.came:
            return None
        mask = sum(1 << token for token in self.after(self.came[-1]))
        return memoryview(mask.to_bytes(16, "little"))

    def ready(self, seconds: float | None = 0) -> bool:
        self._still_going()
        self._asked += 1
        self._ready = seconds is None or self._asked > self._late or len(self.came) % 2 == 0
        return self._ready

    def accept(self, token: int) -> None:
        self._still_going()
        assert not self.came or token in self.after(self.came[-1])
        self.came.append(token)
        self._asked, self._ready = 0, False

    def _still_going(self) -> None:
        self.asked_too_late |= bool(self.came) and self.came[-1] in self._stop_tokens


class Historian:
    """The model.  Keys are numbers; those of banded layers have another sign."""

    device = torch.device("cpu")
    weight_bytes = 0

    def __init__(self, page_size: int, window: int):
        self.page_size, self.window = page_size, window
        self.page_bytes = page_size
        self.config = replace(GPT_OSS_20B, vocab_size=VOCABULARY, sliding_window=window)

    def new_cache(self, num_pages: PerKind) -> KVCache:
        total = num_pages if isinstance(num_pages, int) else sum(num_pages)
        memory = torch.full((1, total, self.page_size, 1, 1), POISON, dtype=torch.int64)
        return KVCache(memory, memory)

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        memory = cache.keys.view(-1)
        starts, positions = batch.starts.tolist(), batch.positions.tolist()
        for s, (first, end) in enumerate(itertools.pairwise(starts)):
            page, offset = divmod(positions[first] - 1, self.page_size)
            before = (
                int(memory[batch.page_table[FULL, s, page] * self.page_size + offset]) if page >= 0 else 0
            )
            for row in range(first, end):
                before = key(before, int(batch.tokens[row]), positions[row])
                memory[batch.slots[FULL, row]] = before
                memory[batch.slots[BANDED, row]] = -before
        logits = torch.zeros(len(batch.samples), VOCABULARY)
        owners = torch.searchsorted(batch.starts, batch.samples, right=True) - 1
        for n, (row, s) in enumerate(zip(batch.samples.tolist(), owners.tolist(), strict=True)):
            position = int(batch.positions[row])
            assert position == int(batch.lengths[s]) - int(batch.starts[s + 1]) + row
            i = torch.arange(position + 1)
            slots = batch.page_table[:, s, i // self.page_size] * self.page_size + i % self.page_size
            everything = (i + 1) * memory[slots[FULL]]
            band = (position - i + 1) * -memory[slots[BANDED]]
            token = 7 * everything.sum() + 3 * band[-self.window :].sum() + position
            logits[n, token % VOCABULARY] = LARGEST
        return logits


class PoisonedPages(Pages):
    """Overwrites pages that are neither held nor cached, and pages that are given to another sequence."""

    memory: Tensor  # [pages, page_size]

    def _take(self, kind: int) -> int:
        page = super()._take(kind)
        self.memory[page] = POISON
        return page

    def _drop_holder(self, page: int) -> None:
        super()._drop_holder(page)
        free = self._pool_of(page).free
        if free and free[-1] == page:
            self.memory[page] = POISON


@dataclass
class WatchedRunner:
    """The real runner; records what it computes."""

    runner: Runner
    plans: list[Plan] = field(default_factory=list)
    begun: list[list[tuple[Sequence, int, int]]] = field(
        default_factory=list
    )  # sequence, first position, number of tokens
    vocab_size: int = VOCABULARY

    @property
    def overlaps(self) -> bool:
        return self.runner.overlaps

    def run(self, plan: Plan) -> Sampled:
        self.plans.append(plan)
        self.begun.append([(chunk.sequence, chunk.sequence.computed, chunk.length) for chunk in plan.chunks])
        return self.runner.run(plan)

    def launch(self, plan: Plan, previous: LaunchedStep | None = None) -> LaunchedStep:
        self.plans.append(plan)
        self.begun.append(
            [
                (
                    chunk.sequence,
                    len(chunk.sequence.tokens) if previous else chunk.sequence.computed,
                    chunk.length,
                )
                for chunk in plan.chunks
            ]
        )
        return self.runner.launch(plan, previous)


def make_engine(
    limits: Limits, disk: Path | None = None, disk_bytes: int = 2**30, **options: object
) -> Engine:
    """A real engine and runner with this model and these pages.

    disk  folder for the prefix cache; then the engine must be closed
    """
    runner = Runner(Historian(limits.page_size, limits.window), limits.num_pages)
    memory = runner.cache.keys[0, :, :, 0, 0]
    if disk is None:
        pages = PoisonedPages(limits.num_pages, limits.page_size, limits.window)
        pages.memory = memory
        return Engine(WatchedRunner(runner), limits, pages=pages, **options)
    files = PageFiles(disk, f"historian {limits.page_size} {limits.window}")
    pages = PoisonedPages(limits.num_pages, limits.page_size, limits.window, files.names_key)
    pages.memory = memory
    copies = PageCopies(runner.cache, torch.device("cpu"))
    cache = DiskCache(PageStore(files, disk_bytes), copies, pages)
    return Engine(WatchedRunner(runner), limits, pages=pages, disk=cache, **options)


def ask(
    id: str,
    prompt: Iterable[int] = (1, 2, 3),
    max_tokens: int = 5,
    sampling: SamplingParams = GREEDY,
    **options: Any,
) -> Request:
    return Request(id, list(prompt), max_tokens, sampling=sampling, **options)


def finish(engine: Engine, steps: int = 10_000) -> dict[str, list[Token | Failure]]:
    """Run steps until the engine is idle.  Returns the events of each request."""
    events: dict[str, list[Token | Failure]] = {}
    while engine.busy:
        steps -= 1
        assert steps >= 0, "it does not end"
        for event in engine.step():
            events.setdefault(event.request_id, []).append(event)
    return events


def ids(events: list[Token | Failure]) -> list[int]:
    return [event.id for event in events if isinstance(event, Token)]
