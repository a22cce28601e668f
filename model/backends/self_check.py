"""Does a backend compute on this machine what the reference computes?  Small random models, so that asking is
cheap: for `gptoss doctor`, before gigabytes are loaded.

A compiler's bug, a driver that is too old or a processor nobody tried can make a kernel compute nonsense.
Kernels are asked one by one where their backend knows how (`model/backends/NAME/probe.py`), then the whole
model, as prompts and as single tokens behind them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from model import backends as kernels
from model.backends import Model
from model.backends.reference.gpt_oss import GptOss
from model.batch import Batch
from model.config import ModelConfig
from model.loading.checkpoint import Checkpoint
from model.loading.synthetic import Synthetic
from model.speed import Load

SMALL = ModelConfig(
    vocab_size=300,
    hidden_size=192,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=64,
    num_experts=5,
    experts_per_token=3,
    intermediate_size=96,
    sliding_window=20,
    swiglu_limit=7.0,
    rope_theta=1000.0,
    rope_scaling_factor=4.0,
    rope_ntk_alpha=1.0,
    rope_ntk_beta=32.0,
    initial_context_length=1024,
)
"""Sizes that all differ, so that no swapped axis can pass; a window that a short prompt crosses."""

WHOLE_MODEL = 2e-2
"""Largest relative error of logits: a few layers of bfloat16, or of int8 weights."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was computed, against what it should have been.

    tokens     of the step
    error      of the whole result, relative
    tolerance  the most that roundings explain
    """

    name: str
    tokens: int
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # false for NaN too


class _Probe(Protocol):
    """The module `probe` of a backend."""

    TOKENS: tuple[int, ...]

    def checks(self, model: Model, tokens: Iterable[int]) -> Iterator[Check]: ...


def relative_error(got: Tensor, want: Tensor) -> float:
    """Of the whole; NaN if there is one in what was computed."""
    if got.shape != want.shape:
        return math.inf
    got, want = got.double(), want.double()
    return float((got - want).norm() / want.norm().clamp(min=1e-30))


def kernel_checks(backend: str, device: torch.device, options: dict[str, Any]) -> Iterator[Check]:
    """Each kernel of a backend; none if the backend has no way to ask them one by one.

    Raises ImportError and ValueError if it cannot be used here.
    """
    name = f"model.backends.{backend}.probe"
    if backend == "reference" or find_spec(name) is None:
        return
    model = _small(backend, device, options, SMALL)
    probe = cast(_Probe, import_module(name))
    with torch.inference_mode(), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        yield from probe.checks(model, probe.TOKENS)


def whole_model_checks(backend: str, device: torch.device, options: dict[str, Any]) -> Iterator[Check]:
    """Two prompts in one step, then a token behind each, against the reference in float32 on the CPU.

    Every expert is used by every token here: of two nearly equal experts one backend may choose the other
    than the reference, rightly, and all that follows would differ.
    """
    config = replace(SMALL, experts_per_token=SMALL.num_experts)
    cpu = torch.device("cpu")
    reference = GptOss(cast(Checkpoint, Synthetic(config)), cpu, torch.float32)
    answers = [_prompt_and_decode(model) for model in (_small(backend, device, options, config), reference)]
    for name, got, want in zip(("whole model, prompts", "whole model, tokens"), *answers, strict=True):
        yield Check(name, len(want), relative_error(got, want), WHOLE_MODEL)


def _small(backend: str, device: torch.device, options: dict[str, Any], config: ModelConfig) -> Model:
    return kernels.load(device, backend).build(cast(Checkpoint, Synthetic(config)), device, **options)


def _prompt_and_decode(model: Model) -> list[Tensor]:
    """Logits [rows, V] of all tokens of two prompts, and of one token behind each."""
    sequences, length = 2, 41
    load = Load(model, sequences, length, 0)
    with torch.inference_mode():
        prompt = load.batch(seed=1)
        samples = torch.arange(sequences * length, device=model.device)
        first = model.forward(replace(prompt, samples=samples, temperatures=None), load.cache).cpu().clone()
        return [first, model.forward(_behind(load, model), load.cache).cpu().clone()]


def _behind(load: Load, model: Model) -> Batch:
    """A token of each sequence, behind the load's; their last pages have room, since 41 fills none."""
    size, device, sequences = model.page_size, model.device, load.sequences
    slots = load.table[:, :, load.length // size].long() * size + load.length % size
    return Batch(
        tokens=torch.arange(sequences, device=device) + 7,
        positions=torch.full((sequences,), load.length, device=device),
        slots=slots,
        starts=torch.arange(sequences + 1, dtype=torch.int32, device=device),
        lengths=torch.full((sequences,), load.length + 1, dtype=torch.int32, device=device),
        page_table=load.table,
        samples=torch.arange(sequences, device=device),
    )
