"""plan → Batch → logits → token ids.  With sampling.py, the only file of engine/ that uses a device.

A batch is built in two arrays on the host, one of 64-bit and one of 32-bit numbers.  They become its tensors
without a copy; on a GPU, with one copy (model/transfer.py).  A step waits for the device once, when the
chosen tokens come back.

A step can be run (`run`), or launched and read later (`launch`, `LaunchedStep.read`).  A step that is
launched while the previous one is in flight takes that one's tokens from the device's memory.  Only a
constraint needs them on the host before the next token is chosen: then the choice is launched later
(`LaunchedStep.choose`), once the previous step is committed, while the device computes the logits.  The
device runs steps in the order of their launches.
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
from engine.errors import EngineError, NonFinite, OutOfMemory
from engine.request import Plan, Sampled, Sequence
from engine.sampling import draws, edit_and_choose, finish_sampling, keep_raw, logit_edits, logprobs
from model.batch import Batch, PerKind
from model.draws import DeviceSampler
from model.interfaces import PreparableModel
from model.transfer import link

if TYPE_CHECKING:
    from model.draws import Draws
    from model.interfaces import Model
    from model.transfer import Download

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class TokensInFlight:
    """The tokens that the device chooses in one step, while they are copied to the host.

    chosen  [2, N]  as `choose` returns them
    raw     what `keep_raw` kept of the logits before they were edited
    errors  request id → why no token can be chosen
    """

    sequences: list[Sequence]
    chosen: Tensor
    raw: Tensor
    errors: dict[str, EngineError]
    download: Download

    def read(self) -> Sampled:
        """Wait for the tokens: usually the step's only wait for the device."""
        return finish_sampling(self.download.wait(), self.raw, self.sequences, self.errors)


class LaunchedStep:
    """A step that was launched and not read yet; a `StepInFlight` for the engine."""

    def __init__(
        self,
        plan: Plan,
        chosen: TokensInFlight | None,
        choose_later: Callable[[], TokensInFlight] | None = None,
    ):
        """
        chosen        its tokens; None if they are still to be chosen
        choose_later  launches the choice then
        """
        self.plan = plan
        self._chosen = chosen
        self._choose_later = choose_later

    def choose(self) -> None:
        """Launch the choice of tokens, if that was left for later.  Raises OutOfMemory."""
        if self._chosen is None and self._choose_later is not None:
            self._chosen = self._choose_later()

    @property
    def tokens(self) -> Tensor:
        """[N] int64, on the device: the token of each sequence, in the plan's order."""
        assert self._chosen is not None, "choose() was not called"
        return self._chosen.chosen[0]

    def read(self) -> Sampled:
        """Wait for the tokens, and advance the sequences' constraints."""
        assert self._chosen is not None, "choose() was not called"
        return self._chosen.read()


class Runner:
    """A model, and the KV cache it works on.

    vocab_size  tokens that may be in a prompt or be sampled
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
        num_pages    of the KV cache, which is allocated here
        banned_from  token ids from here on do not exist for the tokenizer: they are never sampled (None:
                     all exist)
        banned       token ids that are never sampled either
        overlaps     None: only if the model samples on a GPU
        """
        self.model = model
        self._link = link(model.device)
        self._sampler = model if isinstance(model, DeviceSampler) else None
        if overlaps is None:
            overlaps = self._sampler is not None and model.device.type == "cuda"
        self.overlaps = overlaps
        self._latest_draws: tuple[list[Sequence], Draws] | None = None  # usually valid for the next step too
        self.cache = model.new_cache(num_pages)
        self.vocab_size = min(banned_from or model.config.vocab_size, model.config.vocab_size)
        never = [token for token in sorted(set(banned)) if 0 <= token < self.vocab_size]
        self._banned = torch.tensor(never, dtype=torch.int64, device=model.device) if never else None
        self._steps = 0
        self._faults = faults.from_environment()

    def prepare(self, rows: int) -> None:
        """Prepare the model, so that the first decode steps of up to `rows` sequences are not slow."""
        if isinstance(self.model, PreparableModel):
            self.model.prepare(self.cache, rows)
        if self._faults:
            log.warning("GPTOSS_FAULT is set: this engine will fail on purpose, %s", self._faults)

    @torch.inference_mode()
    def run(self, plan: Plan) -> Sampled:
        """Compute the plan's chunks, and choose the next token of those that reach their end.

        Raises OutOfMemory; the next attempt overwrites what was written into the cache by then.
        """
        return self._step(plan, None, self._read)

    @torch.inference_mode()
    def launch(self, plan: Plan, previous: LaunchedStep | None = None) -> LaunchedStep:
        """Have the device start with a `launchable` plan; does not wait for it.

        previous  the step in flight, if there is one: each chunk of the plan is then the one token that it
                  chooses for that sequence.  Call `LaunchedStep.choose` once `previous` is committed

        Raises OutOfMemory, as `run`; `previous` can still be read.
        """
        return self._step(plan, previous, partial(self._launch_sampling, previous is not None))

    def _step(
        self, plan: Plan, previous: LaunchedStep | None, finish: Callable[[Plan, Batch, Tensor], Outcome]
    ) -> Outcome:
        self._steps += 1
        fault = self._faults.pop(self._steps, None) if self._faults else None
        with self._reporting_out_of_memory(plan):
            if fault is not None:
                _inject(fault)
            batch = self.batch(plan) if previous is None else self._batch_after(plan, previous)
            logits = self.model.forward(batch, self.cache)[:, : self.vocab_size]
            if fault == "nan" and len(logits) == 0:  # only the middle of a prompt: it has no logits
                self._faults[self._steps + 1] = fault
            elif fault == "nan":
                logits[0] = math.nan
            return finish(plan, batch, logits)

    @contextmanager
    def _reporting_out_of_memory(self, plan: Plan) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            log.warning("out of memory in a step of %d tokens: %s", plan.num_tokens, error)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            raise OutOfMemory from error

    def _launch_sampling(self, ahead: bool, plan: Plan, batch: Batch, logits: Tensor) -> LaunchedStep:
        """logits [N, V]: a row for each chunk."""
        if self._banned is not None:
            logits.index_fill_(1, self._banned, -math.inf)
        sequences = [chunk.sequence for chunk in plan.chunks]
        if ahead and not all(sequence.tokens_only for sequence in sequences):  # some have constraints
            return LaunchedStep(plan, None, partial(self._choose_later, plan, batch, logits, sequences))
        return LaunchedStep(plan, self._choose(batch, ahead, logits, sequences))

    @torch.inference_mode()
    def _choose_later(
        self, plan: Plan, batch: Batch, logits: Tensor, sequences: list[Sequence]
    ) -> TokensInFlight:
        with self._reporting_out_of_memory(plan):
            return self._choose(batch, False, logits, sequences)

    def _choose(self, batch: Batch, ahead: bool, logits: Tensor, sequences: list[Sequence]) -> TokensInFlight:
        """Edit the logits in place and choose, on the model's device if it is a `DeviceSampler`.

        batch  the logits belong to its first samples
        ahead  whether the batch's tokens, one for each sequence, are not committed yet
        """
        raw = keep_raw(logits, sequences)
        errors: dict[str, EngineError] = {}
        latest = batch.tokens if ahead else None
        if self._sampler is None:
            chosen = edit_and_choose(self._link, logits, sequences, errors, latest)
        else:
            asked = logit_edits(sequences, logits.shape[1], self._link, errors, int(ahead))
            if asked is not None:
                self._sampler.edit(logits, asked, latest)
            chosen = self._sampler.choose(logits, self._draws(sequences), batch)
        return TokensInFlight(sequences, chosen, raw, errors, self._link.download(chosen))

    def _draws(self, sequences: list[Sequence]) -> Draws:
        if self._latest_draws is None or self._latest_draws[0] != sequences:
            self._latest_draws = sequences, draws(sequences, self.vocab_size, self._link)
        return self._latest_draws[1]

    def _read(self, plan: Plan, batch: Batch, logits: Tensor) -> Sampled:
        """logits [N, V]: a row for each chunk that samples, then a row for each scored position."""
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
        """The batch of all chunks, concatenated."""
        size = self.model.page_size
        tokens, positions, samples, scored = array("q"), array("q"), array("q"), array("q")
        banded, full = array("q"), array("q")  # slots
        starts, lengths, prompts = array("i", [0]), array("i"), array("i")
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
                        base = (pages[page] - page) * size  # slot = base + position
                        slots.extend(range(base + begin, base + stop))
            if end == len(sequence.tokens):
                samples.append(row + length - 1)
                temperatures.append(_batch_temperature(sequence))
            if sequence.wants_prompt_logprobs:
                scored.extend(row + position - first for position in chunk.scored)
            starts.append(row + length)
            lengths.append(end)
            prompts.append(len(sequence.request.prompt))

        temperatures.extend(math.inf for _ in scored)
        rows = samples + scored
        batch = self._pack(plan, tokens, positions, banded + full, rows, temperatures, starts, lengths)
        return replace(batch, prompts=torch.frombuffer(prompts, dtype=torch.int32))

    def _batch_after(self, plan: Plan, previous: LaunchedStep) -> Batch:
        """One token of each sequence: the one that `previous` chooses."""
        size = self.model.page_size
        places = {chunk.sequence: place for place, chunk in enumerate(previous.plan.chunks)}
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
        temperatures = array("f", [_batch_temperature(chunk.sequence) for chunk in plan.chunks])
        samples, slots = array("q", rows), banded + full
        batch = self._pack(plan, places_of, positions, slots, samples, temperatures, starts, lengths)
        if len(places) == len(rows) and list(places_of) == list(rows):
            return replace(batch, tokens=previous.tokens)
        return replace(batch, tokens=previous.tokens.index_select(0, batch.tokens))

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


def _batch_temperature(sequence: Sequence) -> float:
    """The value for the sequence in `Batch.temperatures`."""
    params = sequence.request.sampling
    if sequence.edits_logits or sequence.wants_logprobs:
        return math.inf
    return 0.0 if params.greedy else params.temperature


def _page_table(plan: Plan) -> tuple[array[int], int]:
    """The banded pages of all sequences, then the full ones, each padded to the longest; and that length."""
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


def _inject(fault: str) -> None:
    if fault == "raise":
        raise faults.InjectedFault("GPTOSS_FAULT asked for it")
    if fault == "oom":
        raise torch.OutOfMemoryError("GPTOSS_FAULT asked for it")
    while fault == "hang":
        time.sleep(3600)
