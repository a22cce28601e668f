"""Measures how fast a model runs: repeats one kind of step, and measures the memory's speed in between.

With one token per step, a device reads every weight that the token uses once, and computes meanwhile: the
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

    temperature  how their logits are used, see `Batch.temperatures`
    prompt       whether these tokens belong to a prompt, see `Batch.prompts`
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
        """Number of keys of each sequence after the step has written its own."""
        return self.context + self.length

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    @staticmethod
    def cache_bytes(model: Model, sequences: int, seen: int) -> int:
        """Bytes of the keys and values that such a load needs."""
        pages = sequences * -(-seen // model.page_size)
        return bytes_of((pages, pages), model.page_bytes)

    def batch(self, seed: int) -> Batch:
        """A batch whose tokens depend on the seed, so that other experts are chosen."""
        random = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, self.model.config.vocab_size, (self.tokens,), generator=random)
        return replace(self._batch, tokens=tokens.to(self.model.device))


@dataclass(frozen=True, slots=True)
class Timing:
    """The measurements of all rounds, one number for each.

    tokens    number of tokens of one step
    seconds   time of each step
    speeds    speed of the memory in the same round, bytes per second; empty if it was not measured
    shares    share of that speed that the step reached; empty if the bytes that it needed are not known
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
    """Times `rounds` steps, after one to warm up; fewer if `patience` seconds have passed.

    memory_speed  number of the round → measured speed of the memory, bytes per second
    needed        returns the bytes that the last step had to read
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
