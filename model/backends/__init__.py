"""What a backend is: a module with a function `build`, which makes a `Model` of a checkpoint.

A model is the only thing that the engine runs, and each backend does the whole pass in its own way.
reference/ is the definition of correct, and every other backend is tested against it.

Hardware is asked about once, when the program is put together: `load`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from model.batch import Batch, KVCache, PerKind
from model.check import Check
from model.config import ModelConfig
from model.loading.tensors import TensorSource

BACKENDS = ("reference", "cpu", "triton")
_DEFAULTS = {"cpu": "cpu", "cuda": "triton"}  # the fastest for each kind; any other can run the reference


class Model(Protocol):
    """A gpt-oss with its weights in memory.

    page_size     positions of one page of its KV cache
    page_bytes    memory of one page: keys and values of all the layers of one kind; two numbers if banded and
                  full layers differ, and so have pools of their own
    weight_bytes  memory of the weights, as this backend keeps them
    cache_format  all that the bits of a page depend on, but for weights and tokens: layout, number format,
                  instructions, hardware
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
        """Memory for that many pages, its content arbitrary.

        num_pages  one number or two, as page_bytes
        """

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Writes the batch's keys and values into the cache; returns logits [N, V] float32 of its samples."""


class Backend(Protocol):
    """The module of one backend."""

    def build(self, checkpoint: TensorSource, device: torch.device, **options: Any) -> Model:
        """The checkpoint's model, ready to run.  Each backend documents its own options."""

    def kernel_checks(self, model: Any) -> Iterator[Check]:
        """Each kernel of `model`, which `build` made of the random weights of `model.check.SMALL`, by itself;
        none if the backend has no way to ask them one by one.  The model is not to be used afterwards."""


def choose(device: torch.device, backend: str | None = None) -> str:
    """The name of the backend that `load` takes."""
    return backend or _DEFAULTS.get(device.type, "reference")


def load(device: torch.device, backend: str | None = None) -> Backend:
    """The named backend, or the fastest one for `device`.  Imports only that one.

    A backend that cannot be imported raises its reason: there is no silent slow path.
    """
    name = choose(device, backend)
    if name not in BACKENDS:
        raise ValueError(f"there is no backend {name!r}; there are {', '.join(BACKENDS)}")
    return cast(Backend, import_module(f"{__name__}.{name}"))
