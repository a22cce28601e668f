"""Random weights with the exact shapes of a gpt-oss, to measure speed and memory, and to compare backends.

`Synthetic` is a `TensorSource` that makes each tensor when it is read.  A tensor depends only on the seed and
its name.  Weights are uniformly distributed, with a scale that keeps activations near 1; the model's answers
are noise.  bench/synthetic.py writes the same tensors to disk.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from model.config import ModelConfig
from model.loading.tensors import DeviceTensors, ReadAndMoved, nbytes, shapes

GPT_OSS_20B = ModelConfig(
    vocab_size=201088,
    hidden_size=2880,
    num_layers=24,
    num_heads=64,
    num_kv_heads=8,
    head_dim=64,
    num_experts=32,
    experts_per_token=4,
    intermediate_size=2880,
    sliding_window=128,
    swiglu_limit=7.0,
    rope_theta=150000.0,
    rope_scaling_factor=32.0,
    rope_ntk_alpha=1.0,
    rope_ntk_beta=32.0,
    initial_context_length=4096,
)
SIZES = {"20b": GPT_OSS_20B, "120b": replace(GPT_OSS_20B, num_layers=36, num_experts=128)}


class Synthetic:
    """A random checkpoint in memory."""

    def __init__(self, config: ModelConfig, seed: int = 0):
        self.config = config
        self.seed = seed
        self._shapes = shapes(config)
        self.names = tuple(self._shapes)
        self.nbytes = sum(nbytes(name, shape) for name, shape in self._shapes.items())
        self.on_read: Callable[[int], object] = lambda size: None

    def read(self, name: str) -> Tensor:
        """uint8 for blocks and scales, bfloat16 for all others."""
        shape = self._shapes[name]
        self.on_read(nbytes(name, shape))
        random = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {name}".encode()))
        if name.endswith(".scales"):
            return torch.randint(119, 122, shape, generator=random, dtype=torch.uint8)
        words = torch.empty(-(-math.prod(shape) // 8), dtype=torch.int64)
        whole = (
            words.random_(-(2**63), None, generator=random).view(torch.int8)[: math.prod(shape)].view(shape)
        )
        if name.endswith(".blocks"):
            return whole.view(torch.uint8)
        if name.endswith("norm.scale"):
            return 1 + whole.bfloat16() / 1024
        # Uniform over [-128, 128): the standard deviation is 74.
        size = 1 / math.sqrt(shape[-1]) if name.endswith(".weight") and name != "embedding.weight" else 1.0
        return whole.bfloat16().mul_(size / 74)

    def onto(self, device: torch.device) -> DeviceTensors:
        return ReadAndMoved(self.read, device)
