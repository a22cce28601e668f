"""Rank 0 leads: its `Leader` is the model that the engine runs.  The other ranks `follow`.

Before a step, the leader sends its sizes to the others over a channel, on which they wait without a time
limit.  The batch itself is broadcast from device to device.  Then every rank computes the same step with its
own part, and they synchronise at each sum.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from model.batch import Batch, KVCache, PerKind
from model.config import ModelConfig
from model.device import Meter
from model.draws import DeviceSampler, Draws
from model.interfaces import LoadedModel, PreparableModel, Setting
from model.logit_edits import Edits
from model.parallel.ranks import Group

Order = Mapping[str, Any]
"""A message from the leader to the others, which can be written as JSON."""


class Leader:
    """The `Model` of rank 0, which has all ranks compute each step."""

    def __init__(
        self,
        model: LoadedModel,
        whole: ModelConfig,
        group: Group,
        send: Callable[[Order], None],
        explain: Callable[[BaseException], Exception],
    ):
        """
        model    rank 0's own part
        whole    the sizes of all parts together
        send     sends an order to every other rank
        explain  the exception of a failed step → the one to raise
        """
        self._model = model
        self._group = group
        self._send = send
        self._explain = explain
        self.config = whole
        self.device = model.device

    @property
    def page_size(self) -> int:
        return self._model.page_size

    @property
    def page_bytes(self) -> PerKind:
        """Of this rank's part of a page."""
        return self._model.page_bytes

    @property
    def weight_bytes(self) -> int:
        """Of this rank's part."""
        return self._model.weight_bytes

    @property
    def cache_format(self) -> str:
        return f"{self._model.cache_format}, rank {self._group.rank} of {self._group.size}"

    @property
    def settings(self) -> Mapping[str, Setting]:
        return {**self._model.settings, "tensor_parallel": self._group.size}

    def decode_bytes(self, context: int) -> float:
        """Of this rank's part."""
        return self._model.decode_bytes(context)

    def meter(self) -> Meter:
        return self._model.meter()

    def new_cache(self, num_pages: Any) -> KVCache:
        with self._together():
            self._send({"do": "cache", "pages": num_pages})
            return self._model.new_cache(num_pages)

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        with self._together():
            self._send(_sizes(batch))
            self._group.broadcast(_packed(batch))
            return self._model.forward(batch, cache)[:, : self.config.vocab_size]

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Replaces an exception raised inside by `explain`'s, which ends all ranks: the others are in the
        middle of the same step, and cannot start again.
        """
        try:
            yield
        except Exception as error:
            raise self._explain(error) from error


class SamplingLeader(Leader):
    """The leader for a model that samples on its device: rank 0 has all logits, and samples."""

    _model: Any

    def prepare(self, cache: KVCache, rows: int) -> None:
        with self._together():
            self._send({"do": "prepare", "rows": rows})
            self._model.prepare(cache, rows)

    def edit(self, logits: Tensor, edits: Edits, latest: Tensor | None = None) -> None:
        self._model.edit(logits, edits, latest)

    def choose(self, logits: Tensor, draws: Draws, batch: Batch) -> Tensor:
        chosen: Tensor = self._model.choose(logits, draws, batch)
        return chosen


def leader(
    model: LoadedModel,
    whole: ModelConfig,
    group: Group,
    send: Callable[[Order], None],
    explain: Callable[[BaseException], Exception],
) -> Leader:
    """The leader that `model` needs; see `Leader`."""
    kind = SamplingLeader if isinstance(model, DeviceSampler) else Leader
    return kind(model, whole, group, send, explain)


def follow(model: LoadedModel, group: Group, orders: Iterable[Order]) -> None:
    """Carry out the leader's orders until there are no more."""
    cache: KVCache | None = None
    with torch.inference_mode():
        for order in orders:
            if order["do"] == "cache":
                pages = order["pages"]
                cache = None  # frees its memory before the next is allocated
                cache = model.new_cache(pages if isinstance(pages, int) else tuple(pages))
                continue
            assert cache is not None, "the first order must create a cache"
            if order["do"] == "prepare":
                assert isinstance(model, PreparableModel)
                model.prepare(cache, order["rows"])
            else:
                model.forward(_received(order, group, model.device), cache)


# How a batch is sent: its sizes and its host tensors in an order, everything else as one tensor.


def _sizes(batch: Batch) -> Order:
    sequences, width = batch.page_table.shape[1:]
    return {
        "do": "step",
        "sizes": (len(batch.tokens), sequences, len(batch.samples), width),
        "temperatures": _hex("f", batch.temperatures),
        "prompts": _hex("i", batch.prompts),
    }


def _packed(batch: Batch) -> Tensor:
    """[numbers of 32 bits] int32"""
    wide = (batch.tokens, batch.positions, batch.slots.flatten(), batch.samples)
    narrow = (batch.starts, batch.lengths, batch.page_table.flatten())
    return torch.cat((torch.cat(wide).view(torch.int32), *narrow))


def _received(order: Order, group: Group, device: torch.device) -> Batch:
    T, S, N, P = order["sizes"]
    wide, narrow = [T, T, 2 * T, N], [S + 1, S, 2 * S * P]
    packed = torch.empty(2 * sum(wide) + sum(narrow), dtype=torch.int32, device=device)
    group.broadcast(packed)
    tokens, positions, slots, samples = torch.split(packed[: 2 * sum(wide)].view(torch.int64), wide)
    starts, lengths, table = torch.split(packed[2 * sum(wide) :], narrow)
    return Batch(
        tokens=tokens,
        positions=positions,
        slots=slots.view(2, T),
        starts=starts,
        lengths=lengths,
        page_table=table.view(2, S, P),
        samples=samples,
        temperatures=_of_hex("f", order["temperatures"], torch.float32),
        prompts=_of_hex("i", order["prompts"], torch.int32),
    )


def _hex(kind: str, tensor: Tensor | None) -> str | None:
    """A tensor of the host in hexadecimal, half as long as JSON's numbers."""
    return None if tensor is None else array(kind, tensor.tolist()).tobytes().hex()


def _of_hex(kind: str, text: str | None, dtype: torch.dtype) -> Tensor | None:
    return None if text is None else torch.tensor(array(kind, bytes.fromhex(text)), dtype=dtype)
