"""Measures how fast a model runs: one kind of step again and again, and the memory's speed in between.

At one token per step a device reads every weight that the token uses once, and computes in the meantime: the
roofline is bytes over bandwidth.  On a shared machine the bandwidth changes within minutes, so each round
measures both, one after the other, and a share is the median over rounds of (bytes the step needs / its time)
/ (bytes per second of the memory in the same round).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from model.batch import Batch, KVCache, bytes_of, pages_for
from model.device import wait
from model.interfaces import Model


@dataclass
class Load:
    """Steps of `sequences` chunks of `length` tokens, each after `context` tokens that are in the cache.

    temperature  what their logits are for, see `Batch.temperatures`
    prompt       whether these tokens are a prompt's, see `Batch.prompts`
    """

    model: Model
    sequences: int
    length: int
    context: int
    temperature: float = 0.0
    prompt: bool = False

    def __post_init__(self) -> None:
        size, s, total, device = self.model.page_size, self.sequences, self.seen, self.model.device
        pages = -(-total // size)
        each = s * pages  # of either kind: the lower numbers are the banded ones
        self.cache: KVCache = self.model.new_cache(pages_for(each, each, self.model.page_bytes))
        for tensor in self.cache.tensors:
            tensor.view(torch.uint8).random_(0x3C, 0x3F)  # small positive numbers, in bfloat16 and in fp8
        self.table = torch.stack([kind * each + torch.randperm(each) for kind in range(2)])
        self.table = self.table.view(2, s, pages).to(device)
        self._batch = Batch.of(
            [(self.context, self.length)] * s,
            self.table,
            size,
            temperatures=torch.full((s,), self.temperature),
            prompts=torch.full((s,), self.seen, dtype=torch.int32) if self.prompt else None,
        )

    @property
    def seen(self) -> int:
        """Keys of each sequence once the step has written its own."""
        return self.context + self.length

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    @staticmethod
    def cache_bytes(model: Model, sequences: int, seen: int) -> int:
        """Of the keys and values that such a load needs."""
        pages = sequences * -(-seen // model.page_size)
        return bytes_of((pages, pages), model.page_bytes)

    def batch(self, seed: int) -> Batch:
        """Other tokens for every seed, so that other experts are chosen."""
        random = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, self.model.config.vocab_size, (self.tokens,), generator=random)
        return replace(self._batch, tokens=tokens.to(self.model.device))


@dataclass(frozen=True, slots=True)
class Timing:
    """One figure of each round.

    tokens    of one step
    seconds   of the steps
    speeds    of the memory beside them, bytes per second; empty if it was not measured
    shares    of that speed, which the steps reached; empty if it is not known what they needed
    """

    tokens: int
    seconds: list[float]
    speeds: list[float]
    shares: list[float]

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / statistics.median(self.seconds)


def time_steps(
    load: Load,
    *,
    rounds: int,
    patience: float = float("inf"),
    memory_speed: Callable[[int], float] | None = None,
    needed: Callable[[], float] | None = None,
) -> Timing:
    """Times `rounds` steps, after one to warm up; once `patience` seconds have passed it begins no more.

    memory_speed  measures bytes per second of the memory, given the round
    needed        bytes the last step had to read
    """
    model = load.model
    seconds: list[float] = []
    speeds: list[float] = []
    shares: list[float] = []
    with torch.inference_mode():
        model.forward(load.batch(0), load.cache)
        wait(model.device)
        began = time.perf_counter()
        while len(seconds) < rounds and (not seconds or time.perf_counter() - began < patience):
            batch = load.batch(1 + len(seconds))
            wait(model.device)
            start = time.perf_counter()
            model.forward(batch, load.cache)
            wait(model.device)
            seconds.append(time.perf_counter() - start)
            if memory_speed is not None:
                speeds.append(memory_speed(len(seconds)))
                if needed is not None:
                    shares.append(needed() / seconds[-1] / speeds[-1])
    return Timing(load.tokens, seconds, speeds, shares)
