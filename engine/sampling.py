"""From logits to tokens: the functions that carry out SamplingParams (engine/request.py).

Every parameter has a neutral value at which it does nothing, and that is its default; a step computes only
what its requests ask for.  The rows of a step are sampled together, each with the same result as if it were
alone:

    logits ── edit ──┬─ greedy   the largest
                     ├─ full     drawn from the full distribution
                     └─ nucleus  drawn from its most likely part

The drawn token depends only on the distribution, the sequence's seed and the token's position: not on the
other rows, and not on how often the sequence was preempted.

Which tokens are edited is in engine/edit_records.py, and how in model/logit_edits.py.  A model that edits
and samples on its own device (`DeviceSampler`) gets the parameters in `Draws`.  It has its own random
numbers: the same seed gives the same answer on the same backend only.  Log-probabilities are computed here
for all models.
"""

from __future__ import annotations

import hashlib
import math
import struct
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.edit_records import EditRecords
from engine.errors import ConstraintFailed, EngineError, NonFinite
from engine.request import Logprob, Sampled, Sequence
from model.draws import Draws
from model.logit_edits import Edits, edit, upload

if TYPE_CHECKING:
    from model.transfer import Link

MASK_PATIENCE = 0.01
"""Seconds that one step waits for the masks of all its constraints together.  A sequence whose mask takes
longer gets no token in this step, and is left out of later steps until its mask is ready, so that it delays
no other."""

MANY, BLOCK = 8192, 128
"""Among more tokens than MANY, one is drawn by the sums of blocks of BLOCK neighbours.  PyTorch's cumulative
sum takes up to 5 ns an element: of 16 rows of 201,088 probabilities, 20 ms."""

FIRST_CANDIDATES = 1024
"""Number of most likely tokens that the filters examine first; if it is too small, eight times as many."""


def edit_and_choose(
    link: Link,
    logits: Tensor,
    sequences: list[Sequence],
    errors: dict[str, EngineError],
    latest: Tensor | None = None,
) -> Tensor:
    """Edit the logits in place, then `choose`: in PyTorch, for a model that does not sample on its device.

    latest  [N] int64, on the device: the last token of each sequence, if the host does not know it yet
    """
    ahead = 0 if latest is None else 1
    asked = logit_edits(sequences, logits.shape[1], link, errors, ahead)
    if asked is not None:
        edit(logits, asked, latest)
    return choose(logits, sequences, ahead)


def keep_raw(logits: Tensor, sequences: list[Sequence]) -> Tensor:
    """The part of logits [N, V] that `finish_sampling` needs after they were edited: all, or the largest [N,
    1].

    All are copied only if log-probabilities are wanted, because these are of the model's own distribution.
    """
    tokens_only = all(sequence.tokens_only for sequence in sequences)
    if tokens_only or not any(sequence.edits_logits for sequence in sequences):
        return logits
    if any(sequence.wants_logprobs for sequence in sequences):
        return logits.clone()
    return logits.amax(-1, keepdim=True)


def finish_sampling(
    chosen: list[list[int]], raw: Tensor, sequences: list[Sequence], errors: dict[str, EngineError]
) -> Sampled:
    """The tokens of a step with their log-probabilities and errors; advances the sequences' constraints.

    chosen  what `choose` returned
    raw     what `keep_raw` returned before
    errors  those known already: request id → why the sequence cannot continue
    """
    tokens, valid = chosen
    sampled = Sampled(tokens, errors=errors)
    if 0 in valid:
        _explain(raw, valid, sequences, sampled)
    if not all(sequence.tokens_only for sequence in sequences):
        _report(raw, sequences, sampled)
        _advance_constraints(sequences, sampled)  # last: if memory runs out above, the step is computed again
    return sampled


def _explain(raw: Tensor, valid: list[int], sequences: list[Sequence], sampled: Sampled) -> None:
    """Find out why a row had no token to choose: the logits are not finite, or the constraint allows none.

    Only called if there is such a row, because it waits for the device once more.
    """
    for row, sequence in enumerate(sequences):
        if not valid[row]:
            # NaN, if there is one, is the largest.
            broken = sequence.request.constraint is None or not torch.isfinite(raw[row].max())
            error = NonFinite() if broken else ConstraintFailed("it allows no token")
            sampled.errors.setdefault(sequence.request.id, error)


def _advance_constraints(sequences: list[Sequence], sampled: Sampled) -> None:
    for token, sequence in zip(sampled.tokens, sequences, strict=True):
        request = sequence.request
        if request.constraint is None or sequence.ended or sequence.held:
            continue
        if request.id not in sampled.errors:
            try:
                request.constraint.accept(token)
            except Exception as error:  # not our code: its request ends, the others continue
                sampled.errors[request.id] = ConstraintFailed(str(error))


def _report(logits: Tensor, sequences: list[Sequence], sampled: Sampled) -> None:
    """Compute the log-probabilities of the chosen tokens, for the requests that want them."""
    asked = {row: s.request for row, s in enumerate(sequences) if s.request.sampling.logprobs is not None}
    if asked:
        rows = list(asked)
        alternatives = [request.sampling.logprobs or 0 for request in asked.values()]
        reports = logprobs(logits[rows], [sampled.tokens[row] for row in rows], alternatives)
        for request, report in zip(asked.values(), reports, strict=True):
            sampled.logprobs[request.id] = report


# Editing


def logit_edits(
    sequences: list[Sequence], size: int, link: Link, errors: dict[str, EngineError], ahead: int = 0
) -> Edits | None:
    """The changes of the sequences to their logits [N, size], on the device; None if there are none.

    errors  gets the constraints that fail: request id → why
    ahead   tokens of each sequence before the one to be chosen that the host does not know yet: 0 or 1
    """
    if not any(sequence.edits_logits for sequence in sequences):
        return None
    masks = _masks(sequences, size, errors)
    records = [_records(sequence, ahead) for sequence in sequences]
    if not masks and all(each is None for each in records):
        return None
    all_params = [sequence.request.sampling for sequence in sequences]
    penalties = [(p.repetition_penalty, p.presence_penalty, p.frequency_penalty) for p in all_params]
    return upload(link, [each or _NO_RECORDS for each in records], penalties, masks)


_NO_RECORDS = array("i")


def _records(sequence: Sequence, ahead: int) -> array[int] | None:
    """The sequence's records up to date; None if they change nothing."""
    request, params = sequence.request, sequence.request.sampling
    # With a constraint they are not withheld: it may allow nothing but the end.
    withholds = sequence.answered + ahead < request.min_tokens and request.constraint is None
    if not withholds and not params.logit_bias and not params.penalises:
        return None
    if sequence.records is None:
        sequence.records = EditRecords(
            request.prompt if params.repetition_penalty != 1 else (),
            params.logit_bias,
            request.stop_tokens if request.min_tokens else frozenset(),
            len(request.prompt) if params.penalises else None,
        )
    sequence.records.update(sequence.tokens, withholds)
    return sequence.records.flat


def _masks(
    sequences: list[Sequence], size: int, errors: dict[str, EngineError]
) -> dict[int, memoryview | bytes]:
    """Row → its mask, in whole words for `size` tokens."""
    masks: dict[int, memoryview | bytes] = {}
    num_bytes = 4 * -(-size // 32)
    _hold_slow(sequences)
    for row, sequence in enumerate(sequences):
        if sequence.request.constraint is None or sequence.ended or sequence.held:
            continue
        try:
            words = sequence.request.constraint.mask()
        except Exception as error:  # not our code: its request ends, the others continue
            errors[sequence.request.id] = ConstraintFailed(str(error))
            continue
        if words is not None:
            octets = words.cast("B")[:num_bytes]
            masks[row] = octets if len(octets) == num_bytes else bytes(octets).ljust(num_bytes, b"\0")
    return masks


def _hold_slow(sequences: list[Sequence]) -> None:
    """Mark the sequences that get no token in this step, because their masks would delay the others.

    A step does not wait for a sequence that was held before.  But if all are held, it waits for the first.
    """
    deadline = time.monotonic() + MASK_PATIENCE
    going = False
    for sequence in sequences:
        constraint = sequence.request.constraint
        if constraint is not None and not sequence.ended:
            patience = 0.0 if sequence.held else max(0.0, deadline - time.monotonic())
            sequence.held = not constraint.ready(patience)
        going |= not (sequence.held or sequence.ended)
    if not going and (first := next((each for each in sequences if each.held), None)):
        assert first.request.constraint is not None
        first.held = not first.request.constraint.ready(None)


# Choosing


def choose(scores: Tensor, sequences: list[Sequence], ahead: int = 0) -> Tensor:
    """A token for each row of `scores` [N, V].

    ahead    tokens of each sequence before the one to be chosen that the host does not know yet: 0 or 1
    returns  [2, N] int64: the tokens, and 1, or 0 where no token can be chosen (NaN, infinite, none allowed)
    """
    ways: dict[Callable[[Tensor, list[Sequence], int], Tensor], list[int]] = {}
    for row, sequence in enumerate(sequences):
        params = sequence.request.sampling
        ways.setdefault(_greedy if params.greedy else _nucleus if params.filters else _full, []).append(row)
    if len(ways) == 1:
        return next(iter(ways))(scores, sequences, ahead)
    chosen = torch.empty(2, len(sequences), dtype=torch.int64, device=scores.device)
    for way, rows in ways.items():
        chosen[:, rows] = way(scores[rows], [sequences[row] for row in rows], ahead)
    return chosen


def _greedy(scores: Tensor, sequences: list[Sequence], ahead: int) -> Tensor:
    best, chosen = scores.max(-1)  # NaN, if there is one, is the largest
    return torch.stack((chosen, best.isfinite()))


def _full(scores: Tensor, sequences: list[Sequence], ahead: int) -> Tensor:
    """From the full distribution."""
    return _draw((scores / _temperatures(scores, sequences)).softmax(-1), sequences, ahead)


def _nucleus(scores: Tensor, sequences: list[Sequence], ahead: int) -> Tensor:
    """From the most likely tokens: those that top_k, top_p and min_p all keep."""
    params = [sequence.request.sampling for sequence in sequences]
    size = scores.shape[1]
    top_k = _column([min(p.top_k or size, size) for p in params], scores)
    # Infinite for 1: otherwise a rounding error of the sum could cut off tokens although none should be.
    top_p = _column([p.top_p if p.top_p < 1 else math.inf for p in params], scores)
    min_p = _column([p.min_p for p in params], scores)
    scores = scores / _temperatures(scores, sequences)
    everything = scores.logsumexp(-1, keepdim=True)

    candidates = min(max(FIRST_CANDIDATES, *(p.top_k for p in params)), size)
    while True:
        best, tokens = scores.topk(candidates)
        likely = (best - everything).exp() * (torch.arange(candidates, device=scores.device) < top_k)
        mass = torch.where(top_k < size, likely.sum(-1, keepdim=True), 1)
        before = likely.cumsum(-1, dtype=torch.float64) - likely
        kept = (before < top_p * mass) & (likely > 0) & (likely >= min_p * likely[:, :1])
        kept[:, 0] = True  # even for top_p = 0
        if candidates == size or not kept[:, -1].any():
            break
        candidates = min(8 * candidates, size)
    place, finite = _draw(likely * kept, sequences, ahead)
    return torch.stack((tokens.gather(1, place[:, None])[:, 0], finite))


def _draw(weights: Tensor, sequences: list[Sequence], ahead: int) -> Tensor:
    """One index of each row of `weights` [N, M], with a probability proportional to its weight.

    By inversion of the cumulative sum.  Returns what `choose` returns.
    """
    drawn = array("d", [uniform(sequence.seed, len(sequence.tokens) + ahead) for sequence in sequences])
    shares = torch.frombuffer(drawn, dtype=torch.float64).to(weights.device)[:, None]
    # right: the first index whose sum is larger, so an index of weight 0 is never drawn.
    if weights.shape[1] <= MANY:
        sums = weights.cumsum(-1, dtype=torch.float64)
        total = sums[:, -1:]
        chosen = torch.searchsorted(sums, total * shares, right=True)
    else:
        chosen, total = _draw_from_many(weights, shares)
    chosen = chosen[:, 0].clamp_(max=weights.shape[1] - 1)
    return torch.stack((chosen, total[:, 0].isfinite() & (total[:, 0] > 0)))


def _draw_from_many(weights: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The index [N, 1] in each row of `weights` [N, M] where the cumulative sum exceeds a share [N, 1] of the
    total [N, 1]: first among the sums of blocks, then within one block.
    """
    if short := -weights.shape[1] % BLOCK:
        weights = torch.nn.functional.pad(weights, (0, short))
    blocks = weights.view(len(weights), -1, BLOCK)
    sums = blocks.sum(-1).cumsum(-1, dtype=torch.float64)
    total = sums[:, -1:]
    target = total * shares
    block = torch.searchsorted(sums, target, right=True).clamp_(max=sums.shape[1] - 1)
    end = sums.gather(1, block)
    begin = torch.where(block > 0, sums.gather(1, (block - 1).clamp_(min=0)), 0)
    within = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0].cumsum(-1, dtype=torch.float64)
    # The sum over the block was rounded differently from the sums within it, so take the share of the block.
    most = within[:, -1:]
    target = torch.minimum((target - begin) / (end - begin) * most, most.nextafter(torch.zeros_like(most)))
    return block * BLOCK + torch.searchsorted(within, target, right=True).clamp_(max=BLOCK - 1), total


def uniform(seed: int, position: int) -> float:
    """A number in (0, 1) that depends on the seed (its lowest 64 bits) and the position alone."""
    counter = struct.pack("<QQ", seed & 0xFFFF_FFFF_FFFF_FFFF, position)
    number = int.from_bytes(hashlib.blake2b(counter, digest_size=6).digest(), "little")
    return (number + 0.5) / 2**48


def draws(sequences: list[Sequence], size: int, link: Link) -> Draws:
    """The sequences' sampling parameters, on the device, for a choice among `size` tokens."""
    all_params = [sequence.request.sampling for sequence in sequences]
    limits = [(size, 1.0, 0.0) if p.greedy else (p.top_k or size, p.top_p, p.min_p) for p in all_params]
    top_k, top_p, min_p = zip(*limits, strict=True)
    temperatures = [0.0 if p.greedy else p.temperature for p in all_params]
    floats = array("f", [*temperatures, *top_p, *min_p])
    wide, narrow = link.upload(
        array("Q", [sequence.seed & 0xFFFF_FFFF_FFFF_FFFF for sequence in sequences]),
        array("i", [min(k, size) for k in top_k]) + array("i", floats.tobytes()),
    )
    rows = narrow.view(4, len(sequences))
    temperature, p, least = rows[1:].view(torch.float32)
    filters = any(limit != (size, 1.0, 0.0) for limit in limits)
    return Draws(wide, temperature, rows[0], top_p=p, min_p=least, filters=filters)


# Log-probabilities


def logprobs(logits: Tensor, tokens: list[int], alternatives: list[int]) -> list[Logprob]:
    """The log-probability of each row's token in `logits` [N, V], and as many alternatives as wanted."""
    everything = logits.logsumexp(-1, keepdim=True)
    own = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None]) - everything
    best, which = logits.topk(min(max(alternatives), logits.shape[1]))
    tops = zip(which.tolist(), (best - everything).tolist(), strict=True)
    return [
        Logprob(logprob, tuple(zip(ids[:count], values[:count], strict=True)))
        for logprob, (ids, values), count in zip(own[:, 0].tolist(), tops, alternatives, strict=True)
    ]


def _temperatures(scores: Tensor, sequences: list[Sequence]) -> Tensor:
    return _column([sequence.request.sampling.temperature for sequence in sequences], scores)


def _column(values: list[float], like: Tensor) -> Tensor:
    """[N, 1] float32 on the device of `like`."""
    return torch.frombuffer(array("f", values), dtype=torch.float32).to(like.device)[:, None]
