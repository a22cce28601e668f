"""The few functions where hardware matters, once per backend, and what a backend must offer.

A backend is a module with a function `build`: from a checkpoint it makes a `Model`, the only thing the engine
runs.  One that keeps gpt_oss.py's network brings `Kernels` for its slow parts; another may do the whole pass
in its own way.  reference.py is the definition of correct, and every other backend is tested against it.

Hardware is asked about once, when the program is put together: `load`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from model.batch import Batch, KVCache, PerKind
from model.checkpoint import Checkpoint
from model.config import ModelConfig

BACKENDS = ("reference", "cpu", "triton")
_DEFAULTS = {"cpu": "cpu", "cuda": "triton"}  # the fastest for each kind; any other can run the reference


class Model(Protocol):
    """A gpt-oss with its weights in memory.

    page_size     positions of one page of its KV cache
    page_bytes    memory of one page: keys and values of all the layers of one kind; two numbers if banded and
                  full layers differ, and so have pools of their own
    weight_bytes  memory of the weights, as this backend keeps them
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

    def new_cache(self, num_pages: Any) -> KVCache:
        """Memory for that many pages, its content arbitrary.

        num_pages  one number or two, as page_bytes
        """

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Writes the batch's keys and values into the cache; returns logits [N, V] float32 of its samples."""


class Kernels(Protocol):
    """What gpt_oss.py's network leaves to the hardware.  Letters as in layers.py, and N rows that sample."""

    def prepare_experts(
        self, mlp1: tuple[Tensor, Tensor, Tensor], mlp2: tuple[Tensor, Tensor, Tensor]
    ) -> Any:
        """One layer's experts in the layout `experts` wants, on the device, still in MXFP4.

        mlp1  blocks [E, 2F, C / 32, 16] uint8, scales [E, 2F, C / 32] uint8, bias [E, 2F]
        mlp2  blocks [E, C, F / 32, 16] uint8,  scales [E, C, F / 32] uint8,  bias [E, C]
        """

    def write_kv(self, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
        """Each token's key and value [T, KV, D] into its slot [T] of one layer's pages, in place."""

    def attention(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        sinks: Tensor,
        batch: Batch,
        kind: int,
        window: int | None,
    ) -> Tensor:
        """Causal grouped-query attention over pages, with a learned sink per head.

        q       [T, H, D]                  queries, already rotated
        keys    [pages, page_size, KV, D]  one layer's, likewise values; H is a multiple of KV
        sinks   [H]                        a logit each head may spend its attention on; it has no value
        kind    the row of the batch's page_table: BANDED or FULL
        window  keys a query may see, itself included; None for all
        returns [T, H * D]

        gpt-oss model card (arXiv:2508.10925), section 2.2.
        """

    def experts(self, x: Tensor, chosen: Tensor, weights: Tensor, prepared: Any) -> Tensor:
        """Each token's chosen experts, weighted and added up.

        x         [T, C]  normalised
        chosen    [T, A]  int64, likewise weights, float32
        prepared  what `prepare_experts` returned
        returns   [T, C]
        """

    def unembed(self, x: Tensor, weight: Tensor) -> Tensor:
        """Logits [N, V] float32 of x [N, C] under weight [V, C]."""


class Backend(Protocol):
    """The module of one backend."""

    def build(self, checkpoint: Checkpoint, device: torch.device, **options: Any) -> Model:
        """The checkpoint's model, ready to run.  Each backend documents its own options."""


def choose(device: torch.device, backend: str | None = None) -> str:
    """The name of the backend that `load` takes."""
    return backend or _DEFAULTS.get(device.type, "reference")


def load(device: torch.device, backend: str | None = None) -> Backend:
    """The named backend, or the fastest one for `device`.  Imports only that one.

    A backend that cannot be imported raises its reason: there is no silent slow path.
    """
    name = choose(device, backend)
    if name not in BACKENDS:
        raise ValueError(f"there are no kernels called {name!r}; there are {', '.join(BACKENDS)}")
    return cast(Backend, import_module(f"{__name__}.{name}"))
