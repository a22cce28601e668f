"""The interface of a backend: it builds a `Model`, and has facts that are known before a model is loaded.

The engine needs only a `Model`.  The doctor and `gptoss bench` also use the facts of a `Backend` and of a
model: which settings it has, how much memory it needs, how the memory's speed is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from model.batch import Batch, KVCache, PerKind
from model.check import Check
from model.config import ModelConfig
from model.device import Meter


class Model(Protocol):
    """A gpt-oss with its weights in memory, as the engine uses it.

    page_size     positions of one page of its KV cache
    page_bytes    memory of one page: keys and values of all the layers of one kind; two numbers if banded and
                  full layers differ, and so have separate pools
    weight_bytes  memory of the weights, in this backend's format
    cache_format  identifies everything that the bits of a page depend on, except weights and tokens: layout,
                  number format, instructions, hardware
    """

    @property
    def config(self) -> ModelConfig: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def page_size(self) -> int: ...
    @property
    def page_bytes(self) -> PerKind: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def cache_format(self) -> str: ...

    def new_cache(self, num_pages: Any) -> KVCache:
        """Memory for this number of pages, with arbitrary contents.

        num_pages  one number or two, like page_bytes
        """

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Writes the batch's keys and values into the cache; returns logits [N, V] float32 of its samples."""


Setting = str | int | bool


@runtime_checkable
class PreparableModel(Protocol):
    """A `Model` whose first decode step of each size is slow, unless it is prepared."""

    def prepare(self, cache: KVCache, rows: int) -> None:
        """Do now what the first decode steps of up to `rows` sequences over this cache would do."""


class LoadedModel(Model, Protocol):
    """What a `Backend` builds: a model that can also be measured.

    settings  the values of the backend's settings in use, and of whatever else determines its speed
    """

    @property
    def settings(self) -> Mapping[str, Setting]: ...

    def decode_bytes(self, context: int) -> float:
        """Bytes of weights, keys and values that a step of one greedy token reads after `context` tokens."""

    def meter(self) -> Meter:
        """How to measure the speed of the memory that the model reads from."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run a gpt-oss: the `BACKEND` of a package in model/backends.

    build              makes a model of a TensorSource on a device; takes the settings as keywords.  Raises
                       ImportError or ValueError if the backend cannot be used there, and CheckpointError
    defaults           its settings and their defaults; None if `build` chooses
    page_size          positions of one page of the KV cache
    embedding_in_file  whether the embedding table is read from its file, and takes no memory of its own
    kernel_checks      compares each kernel of a model with plain PyTorch.  `build` must have made the model
                       with the random weights of `model.check.SMALL`; it cannot be used afterwards.  None:
                       the backend is itself plain PyTorch
    describe           for the doctor: one line about how it runs here with these settings, and advice that
                       makes it faster, if there is any.  None: no description
    """

    name: str
    build: Callable[..., LoadedModel]
    defaults: Mapping[str, Setting | None]
    page_size: int = 32
    embedding_in_file: bool = False
    kernel_checks: Callable[[Any], Iterator[Check]] | None = None
    describe: Callable[[Mapping[str, Any]], tuple[str, str | None]] | None = None
