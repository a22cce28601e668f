"""plan → Batch → logits → token ids.  The only file of engine/, besides sampling.py, that touches a device.

A batch is put together in two arrays on the host, 64-bit and 32-bit, that become its tensors without a
copy; on a GPU, with one: through one pinned buffer.  The step waits for the device once, when the chosen
tokens come back.

A note for whoever overlaps planning with computing: the next step's decodes need only the *places* of this
step's tokens, so a plan can be made before they are known, and the tokens put into the next Batch on the
device.  commit() would run one step behind.
"""

from __future__ import annotations

import logging
import math
import time
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine import faults
from engine.errors import NonFinite, OutOfMemory
from engine.request import Plan
from engine.sampling import Sampled, logprobs, sample
from model.batch import Batch

if TYPE_CHECKING:
    from model.kernels import Model

log = logging.getLogger(__name__)


class Runner:
    """A model, and the KV cache it works on.

    vocab_size  tokens that may come and go
    """

    def __init__(
        self, model: Model, num_pages: int, banned_from: int | None = None, banned: Iterable[int] = ()
    ):
        """
        num_pages    of the KV cache, allocated here once and for all
        banned_from  token ids from here on do not exist for the tokenizer: they are never sampled (None:
        all exist) banned       single token ids that are never sampled either
        """
        self.model = model
        self.cache = model.new_cache(num_pages)
        self.vocab_size = min(banned_from or model.config.vocab_size, model.config.vocab_size)
        self._banned = [token for token in sorted(set(banned)) if 0 <= token < self.vocab_size]
        self._staging = torch.empty(0, dtype=torch.uint8)
        self._copied: torch.cuda.Event | None = None  # when the device has read `_staging`
        self._steps = 0
        self._faults = faults.from_environment()
        if self._faults:
            log.warning("GPTOSS_FAULT is set: this engine will break on purpose, %s", self._faults)

    @torch.inference_mode()
    def run(self, plan: Plan) -> Sampled:
        """Compute the plan's chunks, and choose the next token of those that reach their end.

        Raises OutOfMemory; what was written into the cache by then is written again by the next attempt.
        """
        self._steps += 1
        fault = self._faults.pop(self._steps, None) if self._faults else None
        try:
            if fault is not None:
                _strike(fault)
            logits = self.model.forward(self.batch(plan), self.cache)[:, : self.vocab_size]
            if fault == "nan" and len(logits) == 0:  # a prompt's middle: nothing to spoil yet
                self._faults[self._steps + 1] = fault
            elif fault == "nan":
                logits[0] = math.nan
            return self._read(plan, logits)
        except torch.OutOfMemoryError as error:
            log.warning("out of memory in a step of %d tokens: %s", plan.num_tokens, error)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            raise OutOfMemory from error

    def _read(self, plan: Plan, logits: Tensor) -> Sampled:
        """logits [N, V]: first a row for each chunk that samples, then those of all scored positions."""
        sampling = [chunk.sequence for chunk in plan.chunks if chunk.samples]
        if self._banned:
            logits[: len(sampling), self._banned] = -math.inf
        sampled = sample(logits[: len(sampling)], sampling) if sampling else Sampled(tokens=[])
        row = len(sampling)
        for chunk in plan.chunks:
            if not chunk.sequence.wants_prompt_logprobs or not (scored := chunk.scored):
                continue
            request = chunk.sequence.request
            following = request.prompt[scored.start + 1 : scored.stop + 1]
            count = request.prompt_logprobs or 0
            reports = logprobs(logits[row : row + len(scored)], following, [count] * len(scored))
            row += len(scored)
            sampled.prompt[request.id] = reports
            if not all(math.isfinite(report.logprob) for report in reports):
                sampled.errors.setdefault(request.id, NonFinite())
        return sampled

    def batch(self, plan: Plan) -> Batch:
        """Lay the chunks end to end."""
        size = self.model.page_size
        tokens, positions, samples, scored = array("q"), array("q"), array("q"), array("q")
        banded, full = array("q"), array("q")  # slots
        starts, lengths = array("i", [0]), array("i")
        for chunk in plan.chunks:
            sequence, length = chunk.sequence, chunk.length
            first = sequence.computed
            row, end = len(tokens), first + length
            table = sequence.pages
            if length == 1:  # the same as below, in a third of the time: nearly all chunks are decodes
                page = first // size
                tokens.append(sequence.tokens[first])
                positions.append(first)
                banded.append((table.banded[page] - page) * size + first)
                full.append((table.full[page] - page) * size + first)
            else:
                tokens.extend(sequence.tokens[first:end])
                positions.extend(range(first, end))
                for page in range(first // size, (end - 1) // size + 1):
                    begin, stop = max(first, page * size), min(end, (page + 1) * size)
                    for slots, pages in ((banded, table.banded), (full, table.full)):
                        base = (
                            pages[page] - page
                        ) * size  # slot = page * page_size + offset = base + position
                        slots.extend(range(base + begin, base + stop))
            if end == len(sequence.tokens):
                samples.append(row + length - 1)
            if sequence.wants_prompt_logprobs:
                scored.extend(row + position - first for position in chunk.scored)
            starts.append(row + length)
            lengths.append(end)

        T, S, N = len(tokens), len(lengths), len(samples) + len(scored)
        page_table, width = _page_table(plan)
        longs, ints = self._to_device(
            tokens + positions + banded + full + samples + scored, starts + lengths + page_table
        )
        return Batch(
            tokens=longs[:T],
            positions=longs[T : 2 * T],
            slots=longs[2 * T : 4 * T].view(2, T),
            samples=longs[4 * T : 4 * T + N],
            starts=ints[: S + 1],
            lengths=ints[S + 1 : 2 * S + 1],
            page_table=ints[2 * S + 1 :].view(2, S, width),
        )

    def _to_device(self, wide: array[int], narrow: array[int]) -> tuple[Tensor, Tensor]:
        """Both arrays as tensors, int64 and int32, on the model's device."""
        longs, ints = torch.frombuffer(wide, dtype=torch.int64), torch.frombuffer(narrow, dtype=torch.int32)
        if self.model.device.type == "cpu":
            return longs, ints  # they share the arrays' memory, and keep it alive
        both = longs.nbytes + ints.nbytes
        if self._staging.nbytes < both:
            self._staging = torch.empty(2 * both, dtype=torch.uint8, pin_memory=True)
        # A step that samples waited for its tokens, which came after its copy; one in the middle of a prompt
        # waits for nothing, and its copy may still be to come.
        if self._copied is not None:
            self._copied.synchronize()
        self._staging[: longs.nbytes].copy_(longs.view(torch.uint8))
        self._staging[longs.nbytes : both].copy_(ints.view(torch.uint8))
        there = self._staging[:both].to(self.model.device, non_blocking=True)
        with torch.cuda.device(self.model.device):
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        return there[: longs.nbytes].view(torch.int64), there[longs.nbytes :].view(torch.int32)


def _page_table(plan: Plan) -> tuple[array[int], int]:
    """The pages of all sequences, banded then full, each filled up to the longest; and how many that is."""
    tables = [chunk.sequence.pages for chunk in plan.chunks]
    width = max(len(table.full) for table in tables)
    filler = array("i", bytes(4 * width))
    flat = array("i")
    for rows in ([table.banded for table in tables], [table.full for table in tables]):
        for pages in rows:
            flat += pages
            if len(pages) < width:
                flat += filler[len(pages) :]
    return flat, width


def _strike(fault: str) -> None:
    if fault == "raise":
        raise faults.InjectedFault("GPTOSS_FAULT asked for it")
    if fault == "oom":
        raise torch.OutOfMemoryError("GPTOSS_FAULT asked for it")
    while fault == "hang":
        time.sleep(3600)
