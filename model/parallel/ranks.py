"""The ranks that compute one model: `ALONE` if there is only one, else a `Group` of torch.distributed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from model.config import CheckpointError, ModelConfig


class Ranks:
    """One rank, and what it does together with the others.  This one is for sizes alone: it waits for nobody.

    rank  0 .. size - 1
    size  how many there are
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank = rank
        self.size = size

    def config(self, whole: ModelConfig) -> ModelConfig:
        """The sizes of this rank's part.  Raises CheckpointError if there is no such part."""
        check_divisible(whole, self.size)
        return replace(
            whole,
            vocab_size=-(-whole.vocab_size // self.size),
            num_heads=whole.num_heads // self.size,
            num_kv_heads=whole.num_kv_heads // self.size,
            num_experts=whole.num_experts // self.size,
        )

    def first(self, own: int) -> int:
        """The number of this rank's first expert, head or token, if each rank has `own` of them."""
        return self.rank * own

    @contextmanager
    def adding(self, x: Tensor) -> Iterator[None]:
        """Inside, this rank adds its part to x, in place; behind it, x has the parts of all ranks.

        x  the same on every rank, before and after
        """
        if self.rank:
            x.zero_()  # what was there comes from rank 0
        yield
        self.add_up(x)

    def add_up(self, x: Tensor) -> None:
        """x becomes the sum of all ranks' x, in place: the same bits on every rank."""

    def gathered(self, logits: Tensor) -> Tensor:
        """Logits [N, size * V] of all ranks' logits [N, V], in the order of the ranks."""
        return logits if self.size == 1 else logits.repeat(1, self.size)


ALONE = Ranks()

LONGEST_SECONDS = 1800.0
"""That a rank waits for the others, at one sum or while they load.  Who starts them notices sooner if one
has died."""


class Group(Ranks):
    """Ranks that are connected by torch.distributed, which has been initialised.

    in_order  whether sums are made in the order of the ranks: then the same numbers have the same sum
              wherever they are in a tensor, and so in whatever batch a token is.  All-reduce has no such
              order when there are more than two
    """

    def __init__(self, rank: int, size: int, in_order: bool):
        super().__init__(rank, size)
        self._in_order = in_order

    def add_up(self, x: Tensor) -> None:
        if not self._in_order:
            dist.all_reduce(x)
            return
        total, *others = self._of_all(x).float() if x.dtype != torch.float32 else self._of_all(x)
        for other in others:
            total += other
        x.copy_(total)

    def gathered(self, logits: Tensor) -> Tensor:
        parts = self._of_all(logits.contiguous())  # [size, N, V]
        return parts.transpose(0, 1).flatten(1)

    def broadcast(self, tensor: Tensor) -> None:
        """The tensor of rank 0, to all ranks, in place."""
        dist.broadcast(tensor, 0)

    def _of_all(self, x: Tensor) -> Tensor:
        """[size, *x.shape]"""
        parts = x.new_empty(self.size, *x.shape)
        _all_gather(parts.flatten(0, 1), x)
        return parts


def connect(rank: int, size: int, device: torch.device, meeting: Path, batch_invariant: bool) -> Group:
    """Meet the other ranks: NCCL connects GPUs, gloo processes on a CPU.  Waits for all of them.

    meeting  a file that is there for nobody else; all ranks name the same

    They meet on this machine's loopback interface, unless GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME name
    another.
    """
    on_gpu = device.type == "cuda"
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME" if on_gpu else "GLOO_SOCKET_IFNAME", loopback)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.FileStore(str(meeting), size),  # type: ignore[attr-defined]
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=LONGEST_SECONDS),
        device_id=device if on_gpu else None,
    )
    group = Group(rank, size, in_order=batch_invariant or not on_gpu)
    group.add_up(torch.zeros(1, device=device))  # connections are made at the first use
    return group


def disconnect() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def owned_rows(tokens: Tensor, table: Tensor, ranks: Ranks) -> Tensor:
    """Rows [T, C] of an embedding table [V, C] that is a rank's part: zeros where another has the row."""
    own = tokens - ranks.first(len(table))
    here = (own >= 0) & (own < len(table))
    return F.embedding(own.clamp(0, len(table) - 1), table) * here[:, None]


_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
"""Its name from torch 2.13 on, or else the one before."""


def check_divisible(config: ModelConfig, size: int) -> None:
    """Raises CheckpointError unless so many ranks can have whole heads and whole experts each."""
    heads, experts = config.num_kv_heads, config.num_experts
    if heads % size or experts % size:
        able = [str(n) for n in range(2, heads + 1) if heads % n == experts % n == 0]
        most = f"possible are {', '.join(able)}" if able else "it cannot be split"
        raise CheckpointError(
            f"--tensor-parallel {size}: each rank has whole key-value heads and whole experts, and this model"
            f" has {heads} and {experts}; {most}"
        )
