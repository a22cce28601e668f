"""Draws: the sampling parameters of a step's rows, for a model that samples on its own device.

The names are those of SamplingParams (engine/request.py).  Penalties, biases and masks, which change the
logits before, are in model/logit_edits.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from model.batch import Batch
from model.logit_edits import Edits


@dataclass(frozen=True, slots=True)
class Draws:
    """The parameters of N rows.

    seeds         [N] int64    a row's random numbers depend on its seed and its position only
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
    """A `Model` that samples on its device, without waiting for the host."""

    def edit(self, logits: Tensor, edits: Edits, latest: Tensor | None = None) -> None:
        """What `model.logit_edits.edit` does, bit for bit."""

    def choose(self, logits: Tensor, draws: Draws, batch: Batch) -> Tensor:
        """A token for each row of logits [N, V] float32, which are not changed.

        batch    the rows belong to its first N samples: a token's position is its sample's plus one
        returns  [2, N] int64: the tokens, and 1, or 0 where none can be chosen (NaN, infinite, none allowed)
        """
