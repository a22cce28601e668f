"""Draws: how the rows of one step choose their tokens, for a model that chooses on its own device.

The words are those of SamplingParams (engine/sampling.py), row by row.  What changes logits before is in
model/logit_edits.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from model.batch import Batch
from model.logit_edits import Edits


@dataclass(frozen=True, slots=True)
class Draws:
    """Of N rows.

    seeds         [N] int64    each row's own random numbers; with its position, all that they depend on
    temperature   [N] float32  0: the largest logit is chosen
    top_k         [N] int32    at least 1; as many as there are logits: no limit
    top_p, min_p  [N] float32  1 and 0: no limit
    filters       whether any row has a limit
    """

    seeds: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    filters: bool


@runtime_checkable
class DeviceSampler(Protocol):
    """A `Model` (model/backends) that chooses tokens itself, without asking the host for anything."""

    def edit(self, logits: Tensor, edits: Edits, latest: Tensor | None = None) -> None:
        """What model.logit_edits.edit does, to the same bits."""

    def choose(self, logits: Tensor, draws: Draws, batch: Batch) -> Tensor:
        """A token for each row of logits [N, V] float32; left as they are.

        batch    whose first N samples they are: a token's position is one behind its sample's
        returns  [2, N] int64: the tokens, and 1, or 0 where there is no choice (NaN, infinite, nothing left)
        """
