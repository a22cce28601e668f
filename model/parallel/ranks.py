"""The ranks that compute one model: `ALONE` for a single one, otherwise a `Group` of torch.distributed."""

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
    """One rank, and its common operations with the others.  This class does not communicate: with size 1 the
    operations do nothing, and other sizes are only for calculating the sizes of parts.

    rank  from 0 to size - 1
    size  number of ranks
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank = rank
        self.size = size

    def config(self, whole: ModelConfig) -> ModelConfig:
        """The sizes of this rank's part.  Raises CheckpointError if the model cannot be split in this way."""
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
        """A context in which this rank adds its part to x, in place.  After it, x has the parts of all ranks
        added.

        x  the same on every rank, before and after
        """
        if self.rank:
            x.zero_()  # because the sum must have the old x only once: from rank 0
        yield
        self.add_up(x)

    def add_up(self, x: Tensor) -> None:
        """Replace x by the sum of all ranks' x, in place.  The result is bit-identical on every rank."""

    def gathered(self, logits: Tensor) -> Tensor:
        """Logits [N, size * V] of all ranks' logits [N, V], in the order of the ranks."""
        return logits if self.size == 1 else logits.repeat(1, self.size)


ALONE = Ranks()

LONGEST_SECONDS = 1800.0
"""Maximum time that a rank waits for the others, in an operation or while they load.  gptoss/ranks notices
much earlier if one has died.
"""


class Group(Ranks):
    """Ranks that are connected by torch.distributed, which has been initialised.

    in_order  whether sums are computed in the order of the ranks.  Then the sum of the same numbers does not
              depend on their place in a tensor, so a token's result does not depend on its batch.  All-reduce
              has no fixed order for more than two ranks
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
        """Copy the tensor of rank 0 to all ranks, in place."""
        dist.broadcast(tensor, 0)

    def _of_all(self, x: Tensor) -> Tensor:
        """[size, *x.shape]"""
        parts = x.new_empty(self.size, *x.shape)
        _all_gather(parts.flatten(0, 1), x)
        return parts


def connect(rank: int, size: int, device: torch.device, meeting: Path, batch_invariant: bool) -> Group:
    """Connect to the other ranks: GPUs with NCCL, processes on a CPU with gloo.  Waits for all of them.

    meeting  a file through which the ranks find each other; the same for all, and used by nobody else

    They connect over this machine's loopback interface, unless GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names
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
    group.add_up(torch.zeros(1, device=device))  # the first operation makes the connections
    return group


def disconnect() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def owned_rows(tokens: Tensor, table: Tensor, ranks: Ranks) -> Tensor:
    """Rows [T, C] of a rank's part [V, C] of an embedding table; zeros for rows that another rank has."""
    own = tokens - ranks.first(len(table))
    here = (own >= 0) & (own < len(table))
    return F.embedding(own.clamp(0, len(table) - 1), table) * here[:, None]


_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
"""The function's name from torch 2.13 on, otherwise its older name."""


def check_divisible(config: ModelConfig, size: int) -> None:
    """Raises CheckpointError unless each of `size` ranks can have whole heads and whole experts."""
    heads, experts = config.num_kv_heads, config.num_experts
    if heads % size or experts % size:
        able = [str(n) for n in range(2, heads + 1) if heads % n == experts % n == 0]
        most = f"possible are {', '.join(able)}" if able else "it cannot be split"
        raise CheckpointError(
            f"--tensor-parallel {size}: each rank has whole key-value heads and whole experts, and this model"
            f" has {heads} and {experts}; {most}"
        )
