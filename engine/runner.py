"""plan → Batch → logits → token ids.  The only file of engine/, besides sampling.py, that touches a device.

A batch is put together in two arrays on the host, 64-bit and 32-bit, that become its tensors without a
copy; on a GPU, with one (model/transfer.py).  The step waits for the device once, when the chosen tokens come
back.

A step can be run (`run`), or launched and read later (`launch`, `Flight.read`).  A step launched behind one
that is not read yet needs only to know where its tokens will be: they never leave the device.  What it may
choose itself can depend on them as the host sees them, if there is a constraint; so then its choice is
launched when they are noted (`Flight.choose`), while the device computes the logits.  The device computes in
the order of launches.
"""

from __future__ import annotations

import logging
import math
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from engine import faults
from engine.edit_records import edits
from engine.errors import EngineError, NonFinite, OutOfMemory
from engine.request import Plan, Sequence
from engine.sampling import Sampled, conclude, draws, edit_and_choose, logprobs, remembered
from model.batch import Batch, PerKind
from model.draws import Chooses
from model.transfer import link

if TYPE_CHECKING:
    from model.backends import Model
    from model.draws import Draws
    from model.transfer import Arrival

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class Choice:
    """Tokens that the device chooses, on their way here.

    chosen  [2, N]  as `choose` returns them
    said    of the logits before edits, what somebody may ask
    errors  request id → why there is nothing to choose
    """

    sequences: list[Sequence]
    chosen: Tensor
    said: Tensor
    errors: dict[str, EngineError]
    arrival: Arrival

    def read(self) -> Sampled:
        """Wait for the tokens: as a rule the step's only wait for the device."""
        return conclude(self.arrival.wait(), self.said, self.sequences, self.errors)


class Flight:
    """A step that was launched and not read yet.

    plan  what it computes
    """

    def __init__(self, plan: Plan, choice: Choice | None, choose: Callable[[], Choice] | None = None):
        """
        choice  of its tokens; None: it is left for later
        choose  launches it then
        """
        self.plan = plan
        self._choice = choice
        self._choose = choose

    def choose(self) -> None:
        """Launch the choice of tokens, if that was left for later.  Raises OutOfMemory."""
        if self._choice is None and self._choose is not None:
            self._choice = self._choose()

    @property
    def tokens(self) -> Tensor:
        """[N] int64, on the device: what its sequences choose, in the plan's order."""
        assert self._choice is not None, "the step before was not noted"
        return self._choice.chosen[0]

    def read(self) -> Sampled:
        """Wait for the tokens, and tell them to the sequences' constraints."""
        assert self._choice is not None, "the step before was not noted"
        return self._choice.read()


class Runner:
    """A model, and the KV cache it works on.

    vocab_size  tokens that may come and go
    overlaps    whether the next step can be launched while the device computes this one
    """

    def __init__(
        self,
        model: Model,
        num_pages: PerKind,
        banned_from: int | None = None,
        banned: Iterable[int] = (),
        overlaps: bool | None = None,
    ):
        """
        num_pages    of the KV cache, for both kinds of layer or each; allocated here once and for all
        banned_from  token ids from here on do not exist for the tokenizer: they are never sampled (None:
                     all exist)
        banned       single token ids that are never sampled either
        overlaps     None: if the model computes and chooses on a device of its own
        """
        self.model = model
        self._link = link(model.device)
        self._chooser = model if isinstance(model, Chooses) else None
        if overlaps is None:
            overlaps = self._chooser is not None and model.device.type == "cuda"
        self.overlaps = overlaps
        self._drawing: tuple[list[Sequence], Draws] | None = None  # the latest, which mostly serves again
        self.cache = model.new_cache(num_pages)
        self.vocab_size = min(banned_from or model.config.vocab_size, model.config.vocab_size)
        never = [token for token in sorted(set(banned)) if 0 <= token < self.vocab_size]
        self._banned = torch.tensor(never, dtype=torch.int64, device=model.device) if never else None
        self._steps = 0
        self._faults = faults.from_environment()
        if self._faults:
            log.warning("GPTOSS_FAULT is set: this engine will break on purpose, %s", self._faults)

    @torch.inference_mode()
    def run(self, plan: Plan) -> Sampled:
        """Compute the plan's chunks, and choose the next token of those that reach their end.

        Raises OutOfMemory; what was written into the cache by then is written again by the next attempt.
        """
        return self._step(plan, None, self._read)

    @torch.inference_mode()
    def launch(self, plan: Plan, behind: Flight | None = None) -> Flight:
        """Have the device begin with a `launchable` plan; waits for nothing.

        behind  the step launched before, if it is not read yet: the plan's chunks are single tokens, those
                that it chooses.  To be followed by `Flight.choose` when they are noted

        Raises OutOfMemory, as `run`; `behind` is what it was.
        """
        return self._step(plan, behind, partial(self._depart, behind is not None))

    def _step(
        self, plan: Plan, behind: Flight | None, finish: Callable[[Plan, Batch, Tensor], Outcome]
    ) -> Outcome:
        self._steps += 1
        fault = self._faults.pop(self._steps, None) if self._faults else None
        with self._memory_for(plan):
            if fault is not None:
                _strike(fault)
            batch = self.batch(plan) if behind is None else self._batch_behind(plan, behind)
            logits = self.model.forward(batch, self.cache)[:, : self.vocab_size]
            if fault == "nan" and len(logits) == 0:  # a prompt's middle: nothing to spoil yet
                self._faults[self._steps + 1] = fault
            elif fault == "nan":
                logits[0] = math.nan
            return finish(plan, batch, logits)

    @contextmanager
    def _memory_for(self, plan: Plan) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            log.warning("out of memory in a step of %d tokens: %s", plan.num_tokens, error)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            raise OutOfMemory from error

    def _depart(self, ahead: bool, plan: Plan, batch: Batch, logits: Tensor) -> Flight:
        """logits [N, V]: a row for each chunk."""
        if self._banned is not None:
            logits.index_fill_(1, self._banned, -math.inf)
        sequences = [chunk.sequence for chunk in plan.chunks]
        if ahead and not all(sequence.plain for sequence in sequences):  # some have constraints
            return Flight(plan, None, partial(self._choose_later, plan, batch, logits, sequences))
        return Flight(plan, self._choose(batch, ahead, logits, sequences))

    @torch.inference_mode()
    def _choose_later(self, plan: Plan, batch: Batch, logits: Tensor, sequences: list[Sequence]) -> Choice:
        with self._memory_for(plan):
            return self._choose(batch, False, logits, sequences)

    def _choose(self, batch: Batch, ahead: bool, logits: Tensor, sequences: list[Sequence]) -> Choice:
        """Edits and chooses where the model does, if it does.  Changes logits in place.

        batch  of which the logits are the first samples
        ahead  whether its tokens, one of each sequence, are none of theirs yet
        """
        said = remembered(logits, sequences)
        errors: dict[str, EngineError] = {}
        latest = batch.tokens if ahead else None
        if self._chooser is None:
            chosen = edit_and_choose(self._link, logits, sequences, errors, latest)
        else:
            asked = edits(sequences, logits.shape[1], self._link, errors, int(ahead))
            if asked is not None:
                self._chooser.edit(logits, asked, latest)
            chosen = self._chooser.choose(logits, self._draws(sequences), batch)
        return Choice(sequences, chosen, said, errors, self._link.download(chosen))

    def _draws(self, sequences: list[Sequence]) -> Draws:
        if self._drawing is None or self._drawing[0] != sequences:
            self._drawing = sequences, draws(sequences, self.vocab_size, self._link)
        return self._drawing[1]

    def _read(self, plan: Plan, batch: Batch, logits: Tensor) -> Sampled:
        """logits [N, V]: first a row for each chunk that samples, then those of all scored positions."""
        sampling = [chunk.sequence for chunk in plan.chunks if chunk.samples]
        if self._banned is not None:
            logits[: len(sampling)].index_fill_(1, self._banned, -math.inf)
        row = len(sampling)
        sampled = Sampled(tokens=[])
        if sampling:
            sampled = self._choose(batch, False, logits[:row], sampling).read()
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
        temperatures = array("f")
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
                temperatures.append(_use_of_logits(sequence))
            if sequence.wants_prompt_logprobs:
                scored.extend(row + position - first for position in chunk.scored)
            starts.append(row + length)
            lengths.append(end)

        temperatures.extend(math.inf for _ in scored)
        rows = samples + scored
        return self._pack(plan, tokens, positions, banded + full, rows, temperatures, starts, lengths)

    def _batch_behind(self, plan: Plan, behind: Flight) -> Batch:
        """A token of each sequence, behind those that are known."""
        size = self.model.page_size
        places = {chunk.sequence: place for place, chunk in enumerate(behind.plan.chunks)}
        places_of, positions, lengths = array("q"), array("q"), array("i")
        banded, full = array("q"), array("q")  # slots
        for chunk in plan.chunks:
            sequence = chunk.sequence
            position = len(sequence.tokens)
            page, table = position // size, sequence.pages
            places_of.append(places[sequence])
            positions.append(position)
            banded.append((table.banded[page] - page) * size + position)
            full.append((table.full[page] - page) * size + position)
            lengths.append(position + 1)
        rows = range(len(lengths))
        starts = array("i", range(len(lengths) + 1))
        temperatures = array("f", [_use_of_logits(chunk.sequence) for chunk in plan.chunks])
        samples, slots = array("q", rows), banded + full
        batch = self._pack(plan, places_of, positions, slots, samples, temperatures, starts, lengths)
        if len(places) == len(rows) and list(places_of) == list(rows):
            return replace(batch, tokens=behind.tokens)
        return replace(batch, tokens=behind.tokens.index_select(0, batch.tokens))

    def _pack(
        self,
        plan: Plan,
        tokens: array[int],
        positions: array[int],
        slots: array[int],
        samples: array[int],
        temperatures: array[float],
        starts: array[int],
        lengths: array[int],
    ) -> Batch:
        T, S, N = len(tokens), len(lengths), len(samples)
        page_table, width = _page_table(plan)
        longs, ints = self._link.upload(tokens + positions + slots + samples, starts + lengths + page_table)
        return Batch(
            tokens=longs[:T],
            positions=longs[T : 2 * T],
            slots=longs[2 * T : 4 * T].view(2, T),
            samples=longs[4 * T : 4 * T + N],
            starts=ints[: S + 1],
            lengths=ints[S + 1 : 2 * S + 1],
            page_table=ints[2 * S + 1 :].view(2, S, width),
            temperatures=torch.frombuffer(temperatures, dtype=torch.float32) if temperatures else None,
        )


def _use_of_logits(sequence: Sequence) -> float:
    """What its next token's logits are for, as in `Batch.temperatures`."""
    params = sequence.request.sampling
    if sequence.edits or sequence.reports:
        return math.inf
    return 0.0 if params.greedy else params.temperature


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
