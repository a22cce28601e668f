"""SamplingParams, and the small functions that carry them out.

Every parameter has a neutral value at which it does nothing, and that is its default; a step pays only for
what its requests ask.  The rows of a step are sampled together, and each as if it were alone:

    logits ── edit ──┬─ greedy   the largest
                     ├─ whole    drawn from the whole distribution
                     └─ nucleus  drawn from its most likely part

What is drawn depends on the distribution, the sequence's seed and the token's position alone: not on the
other rows, and not on how often the sequence was interrupted.

What is edited is in engine/edit_records.py, and how in model/logit_edits.py.  A model that does so and
chooses on its own device (`Chooses`) is told how to choose in `Draws`; which of the
equally distributed tokens a seed draws is its own affair, and so the same on one backend only.
Reports are made here all the same.
"""

from __future__ import annotations

import hashlib
import math
import struct
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.edit_records import edits
from engine.errors import ConstraintFailed, EngineError, NonFinite
from model.draws import Draws
from model.logit_edits import edit

if TYPE_CHECKING:
    from engine.request import Sequence
    from model.transfer import Link

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy: dividing by them would overflow and change nothing else."""

FIRST_CANDIDATES = 1024
"""How many of the most likely tokens the filters look at first; while too few, eight times as many."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen: penalties and biases come first, then temperature, then the filters.

    temperature         0 is greedy; 1 leaves the model's distribution as it is
    top_p               nucleus: the smallest set of tokens whose probabilities reach top_p, of those that
                        top_k keeps (Holtzman et al. 2020)
    top_k               keep the k most likely; 0 keeps all
    min_p               keep tokens at least min_p times as likely as the most likely one
    repetition_penalty  divides positive, multiplies negative logits of tokens in prompt or answer
                        (Keskar et al. 2019)
    presence_penalty    subtracted once from the logit of each token already in the answer
    frequency_penalty   subtracted once for each time the token is in the answer
    logit_bias          token id → added to its logit
    seed                same seed, same prompt: same answer, whatever else is running; None draws one
    logprobs            None: report none; k: the chosen token's log-probability and the k most likely, of the
                        model's own distribution (temperature 1, before penalties and filters)
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def filters(self) -> bool:
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    @property
    def penalises(self) -> bool:
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True, slots=True)
class Logprob:
    """Of one position: the token's own log-probability, and the most likely alternatives, best first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Sampled:
    """What one step's logits said.

    tokens    one for each chunk that samples, in the plan's order; meaningless where there is an error
    logprobs  request id → of that token, where asked for
    prompt    request id → of the tokens after the chunk's scored positions
    errors    request id → why the sequence cannot go on
    """

    tokens: list[int]
    logprobs: dict[str, Logprob] = field(default_factory=dict)
    prompt: dict[str, list[Logprob]] = field(default_factory=dict)
    errors: dict[str, EngineError] = field(default_factory=dict)


def edit_and_choose(
    link: Link,
    logits: Tensor,
    sequences: list[Sequence],
    errors: dict[str, EngineError],
    latest: Tensor | None = None,
) -> Tensor:
    """By PyTorch: what the requests ask for, in place, then `choose`.

    latest  [N] int64, a token of each sequence that comes before and is not known yet; None: there is none
    """
    ahead = 0 if latest is None else 1
    asked = edits(sequences, logits.shape[1], link, errors, ahead)
    if asked is not None:
        edit(logits, asked, latest)
    return choose(logits, sequences, ahead)


def remembered(logits: Tensor, sequences: list[Sequence]) -> Tensor:
    """What `conclude` may ask of logits [N, V] that are about to be edited: all, or the largest alone [N, 1].

    A copy of all only where log-probabilities are wanted: those are of the model's own distribution.
    """
    if all(sequence.plain for sequence in sequences) or not any(sequence.edits for sequence in sequences):
        return logits
    if any(sequence.reports for sequence in sequences):
        return logits.clone()
    return logits.amax(-1, keepdim=True)


def conclude(
    chosen: list[list[int]], said: Tensor, sequences: list[Sequence], errors: dict[str, EngineError]
) -> Sampled:
    """What was chosen, told to the sequences' constraints; why there was no choice, where there was none.

    chosen  what `choose` returned
    said    what `remembered` returned before
    errors  those known already: request id → why the sequence cannot go on
    """
    tokens, good = chosen
    sampled = Sampled(tokens, errors=errors)
    if 0 in good:
        _explain(said, good, sequences, sampled)
    if not all(sequence.plain for sequence in sequences):
        _report(said, sequences, sampled)
        _tell_constraints(sequences, sampled)  # last: if memory runs out above, the step is made again
    return sampled


def _explain(said: Tensor, good: list[int], sequences: list[Sequence], sampled: Sampled) -> None:
    """Whether the model's numbers or a constraint left no choice.  Asked only now: it costs another wait."""
    for row, sequence in enumerate(sequences):
        if not good[row]:
            # NaN, if there is one, is the largest.
            broken = sequence.request.constraint is None or not torch.isfinite(said[row].max())
            error = NonFinite() if broken else ConstraintFailed("it allows no token")
            sampled.errors.setdefault(sequence.request.id, error)


def _tell_constraints(sequences: list[Sequence], sampled: Sampled) -> None:
    for token, sequence in zip(sampled.tokens, sequences, strict=True):
        request = sequence.request
        if request.constraint is not None and not sequence.ended and request.id not in sampled.errors:
            try:
                request.constraint.accept(token)
            except Exception as error:  # not our code: its request ends, the others go on
                sampled.errors[request.id] = ConstraintFailed(str(error))


def _report(logits: Tensor, sequences: list[Sequence], sampled: Sampled) -> None:
    """The log-probabilities of the tokens chosen, for those who asked."""
    asked = {row: s.request for row, s in enumerate(sequences) if s.request.sampling.logprobs is not None}
    if asked:
        rows = list(asked)
        alternatives = [request.sampling.logprobs or 0 for request in asked.values()]
        reports = logprobs(logits[rows], [sampled.tokens[row] for row in rows], alternatives)
        for request, report in zip(asked.values(), reports, strict=True):
            sampled.logprobs[request.id] = report


# Choosing


def choose(scores: Tensor, sequences: list[Sequence], ahead: int = 0) -> Tensor:
    """A token for each row of `scores` [N, V].

    ahead    tokens that come before it and are not known yet
    returns  [2, N] int64: the tokens, and 1, or 0 where there is no choice (NaN, infinite, nothing left)
    """
    ways: dict[Callable[[Tensor, list[Sequence], int], Tensor], list[int]] = {}
    for row, sequence in enumerate(sequences):
        params = sequence.request.sampling
        ways.setdefault(_greedy if params.greedy else _nucleus if params.filters else _whole, []).append(row)
    if len(ways) == 1:
        return next(iter(ways))(scores, sequences, ahead)
    chosen = torch.empty(2, len(sequences), dtype=torch.int64, device=scores.device)
    for way, rows in ways.items():
        chosen[:, rows] = way(scores[rows], [sequences[row] for row in rows], ahead)
    return chosen


def _greedy(scores: Tensor, sequences: list[Sequence], ahead: int) -> Tensor:
    best, chosen = scores.max(-1)  # NaN, if there is one, is the largest
    return torch.stack((chosen, best.isfinite()))


def _whole(scores: Tensor, sequences: list[Sequence], ahead: int) -> Tensor:
    """From all tokens."""
    return _draw((scores / _temperatures(scores, sequences)).softmax(-1), sequences, ahead)


def _nucleus(scores: Tensor, sequences: list[Sequence], ahead: int) -> Tensor:
    """From the beginning of the list of tokens, most likely first, that top_k, top_p and min_p agree on."""
    params = [sequence.request.sampling for sequence in sequences]
    size = scores.shape[1]
    top_k = _column([min(p.top_k or size, size) for p in params], scores)
    # Infinite, since the rounding of the sum must not end a nucleus that was to have no end.
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

    By inversion of the cumulative sum.  Also whether there was anything to choose, as `choose` returns it.
    """
    sums = weights.cumsum(-1, dtype=torch.float64)
    total = sums[:, -1:]
    drawn = [uniform(sequence.seed, len(sequence.tokens) + ahead) for sequence in sequences]
    target = total * torch.tensor(drawn, dtype=torch.float64, device=weights.device)[:, None]
    # right: the first index whose sum is larger, so an index of weight 0 is never drawn.
    chosen = torch.searchsorted(sums, target, right=True)[:, 0].clamp_(max=weights.shape[1] - 1)
    return torch.stack((chosen, total[:, 0].isfinite() & (total[:, 0] > 0)))


def uniform(seed: int, position: int) -> float:
    """A number in (0, 1) that depends on the seed (its lowest 64 bits) and the position alone."""
    counter = struct.pack("<QQ", seed & 0xFFFF_FFFF_FFFF_FFFF, position)
    number = int.from_bytes(hashlib.blake2b(counter, digest_size=6).digest(), "little")
    return (number + 0.5) / 2**48


def draws(sequences: list[Sequence], size: int, link: Link) -> Draws:
    """How the sequences choose among `size` tokens, as a model with a device of its own is told."""
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


# Reporting


def logprobs(logits: Tensor, tokens: list[int], alternatives: list[int]) -> list[Logprob]:
    """Of each row of `logits` [N, V]: the log-probability of its token, and as many alternatives as asked."""
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
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]
