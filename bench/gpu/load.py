"""Random weights that are generated on the device, and steps to run with them: decodes and prefills."""

from __future__ import annotations

import math
import statistics
import time
import zlib
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from model.backends.triton.triton_model import TritonModel
from model.batch import FULL, Batch, pages_for
from model.config import ModelConfig
from model.loading.tensors import DeviceTensors, ReadAndMoved, shapes


class Random:
    """Like `Synthetic`, but generated on the device, which is much faster.  Sizes and scales are the same,
    the numbers are not.
    """

    def __init__(self, config: ModelConfig, device: str = "cuda", seed: int = 0):
        self.config = config
        self._device = device
        self._seed = seed
        self._shapes = shapes(config)

    def read(self, name: str) -> Tensor:
        shape = self._shapes[name]
        noise = torch.Generator(self._device).manual_seed(zlib.crc32(f"{self._seed} {name}".encode()))
        where: dict[str, Any] = {"generator": noise, "device": self._device}
        if name.endswith(".scales"):
            return torch.randint(119, 122, shape, dtype=torch.uint8, **where)
        if name.endswith(".blocks"):
            return torch.randint(0, 256, shape, dtype=torch.uint8, **where)
        if name.endswith("norm.scale"):
            return 1 + torch.rand(shape, dtype=torch.bfloat16, **where) / 8
        size = 1 / math.sqrt(shape[-1]) if name.endswith(".weight") and name != "embedding.weight" else 1.0
        return torch.randn(shape, dtype=torch.bfloat16, **where).mul_(size)

    def onto(self, device: torch.device) -> DeviceTensors:
        return ReadAndMoved(self.read, device)


class Decode:
    """Decode steps of `streams` sequences with `context` tokens each, over scattered pages."""

    def __init__(self, model: TritonModel, streams: int, context: int):
        self.model, self.streams, self.context = model, streams, context
        device, size = model.device, model.page_size
        pages = -(-(context + 1) // size)
        window = -(-model.config.sliding_window // size) + 1
        # Banded pages behind the window have been freed, so the visible ones have few different numbers.
        self.cache = model.new_cache(pages_for(streams * window, streams * pages, model.page_bytes))
        for pool in self.cache.tensors:
            pool.view(torch.uint8).random_(0x3C, 0x3F)  # small positive numbers, in bfloat16 and in fp8
        full = (streams * window + torch.randperm(streams * pages, device=device)).int()
        full = full.view(streams, pages)
        banded = torch.zeros_like(full)
        held = min(window, pages)
        numbers = torch.randperm(streams * window, device=device).int().view(streams, window)
        banded[:, pages - held :] = numbers[:, :held]
        self.table = torch.stack((banded, full))
        self._batch = Batch.of([(context, 1)] * streams, self.table, size)
        noise = torch.Generator(device).manual_seed(context)
        self.tokens = torch.randint(0, model.config.vocab_size, (16, streams), generator=noise, device=device)

    def batch(self, turn: int) -> Batch:
        """A batch with other tokens in each turn, so that other experts are chosen."""
        return replace(self._batch, tokens=self.tokens[turn % len(self.tokens)])

    def seconds(self, steps: int) -> tuple[float, float]:
        """Seconds of one step: on the device alone, and on the host until the chosen tokens have arrived."""
        batches = [self.batch(turn) for turn in range(16)]
        for batch in batches[:3]:
            self.model.forward(batch, self.cache)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        start.record()
        for turn in range(steps):
            self.model.forward(batches[turn % 16], self.cache).argmax(-1)
        end.record()
        torch.cuda.synchronize()
        device = start.elapsed_time(end) / steps / 1e3
        walls = []
        for turn in range(steps):
            began = time.perf_counter()
            self.model.forward(batches[turn % 16], self.cache).argmax(-1).tolist()
            walls.append(time.perf_counter() - began)
        return device, statistics.median(walls)

    def bytes(self) -> float:
        """Bytes that a step reads: dense weights, the most experts it may choose, visible keys and values."""
        config, weights = self.model.config, self.model.weights
        experts = sum(layer.mlp1.nbytes + layer.mlp2.nbytes for layer in weights.layers)
        tables = weights.embedding.nbytes
        share = 1 - (1 - config.experts_per_token / config.num_experts) ** self.streams
        seen = self.context + 1
        widths = (self.model.dtype.itemsize, self.model.full_dtype.itemsize)
        in_sight = sum(widths[n % 2] * min(config.window(n) or seen, seen) for n in range(config.num_layers))
        keys = self.streams * in_sight * 2 * config.num_kv_heads * config.head_dim
        return weights.nbytes - experts - tables + experts * share + keys

    def close(self) -> None:
        """Free the graphs, which keep a reference to the cache."""
        if self.model.graphs is not None:
            self.model.graphs.forget()


class Prefill:
    """One prompt of `tokens` tokens, computed in one step."""

    def __init__(self, model: TritonModel, tokens: int):
        self.model, self.tokens = model, tokens
        device, size = model.device, model.page_size
        pages = -(-tokens // size)
        self.cache = model.new_cache(pages_for(pages, pages, model.page_bytes))
        table = torch.stack([kind * pages + torch.randperm(pages, device=device) for kind in range(2)])
        words = torch.randint(0, model.config.vocab_size, (tokens,), device=device)
        self.batch = Batch.of([(0, tokens)], table.view(2, 1, pages), size, words)

    def seconds(self, rounds: int) -> float:
        """Seconds on the host until the chosen token has arrived."""
        times = []
        for each in range(rounds + 2):
            began = time.perf_counter()
            self.model.forward(self.batch, self.cache).argmax(-1).tolist()
            if each >= 2:
                times.append(time.perf_counter() - began)
        return statistics.median(times)

    def flops(self) -> float:
        """Operations: two for each token and weight that it uses, four for each query, visible key and
        dimension.
        """
        config = self.model.config
        dense = config.hidden_size * config.head_dim * (2 * config.num_heads + 2 * config.num_kv_heads)
        expert = 3 * config.hidden_size * config.intermediate_size
        weights = dense + config.hidden_size * config.num_experts + config.experts_per_token * expert
        total = 2.0 * self.tokens * weights * config.num_layers
        for layer in range(config.num_layers):
            window = min(config.window(layer) or self.tokens, self.tokens)
            pairs = self.tokens * window - window * (window - 1) / 2
            if layer % 2 == FULL:
                pairs = self.tokens * (self.tokens + 1) / 2
            total += 4.0 * pairs * config.num_heads * config.head_dim
        return total + 2.0 * config.vocab_size * config.hidden_size
