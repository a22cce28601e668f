"""The result of checking one kernel, and the small model on which each backend checks its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from model.config import ModelConfig

SMALL = ModelConfig(
    vocab_size=300,
    hidden_size=192,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=64,
    num_experts=5,
    experts_per_token=3,
    intermediate_size=96,
    sliding_window=20,
    swiglu_limit=7.0,
    rope_theta=1000.0,
    rope_scaling_factor=4.0,
    rope_ntk_alpha=1.0,
    rope_ntk_beta=32.0,
    initial_context_length=1024,
)
"""Sizes that all differ, so that no swapped axis can pass; a window that a short prompt crosses."""


@dataclass(frozen=True, slots=True)
class Check:
    """The difference between a result and the correct one.

    tokens     number of tokens in the step
    error      relative error of the whole result
    tolerance  the largest error that rounding can cause
    """

    name: str
    tokens: int
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # false for NaN too


def relative_error(got: Tensor, want: Tensor) -> float:
    """Relative error of the whole tensor in the Euclidean norm; NaN if `got` has a NaN, infinity if shapes
    differ.
    """
    if got.shape != want.shape:
        return math.inf
    got, want = got.double(), want.double()
    return float((got - want).norm() / want.norm().clamp(min=1e-30))
