"""Checks on small random models that a backend gives the reference's results on this machine.  `gptoss
doctor` does this before gigabytes are loaded.

A compiler's bug, an old driver or an untested processor can make a kernel compute wrong numbers.  Kernels
are checked one by one if the backend can do that (`Backend.kernel_checks`), then the whole model, with
prompts and with a single token after each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from model import backends
from model.backends.reference.gpt_oss import GptOss
from model.batch import Batch
from model.check import SMALL, Check, relative_error
from model.config import ModelConfig
from model.interfaces import Model
from model.loading.synthetic import Synthetic
from model.speed import Load

WHOLE_MODEL = 2e-2
"""Maximum relative error of the logits, after a few layers with bfloat16 or int8 weights."""


def kernel_checks(backend: str, device: torch.device, options: dict[str, Any]) -> Iterator[Check]:
    """Check each kernel of a backend; nothing if the backend cannot check them one by one.

    Raises ImportError and ValueError if it cannot be used here.
    """
    checks = backends.load(device, backend).kernel_checks
    if checks is None:
        return
    model = _small(backend, device, options, SMALL)
    with torch.inference_mode(), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        yield from checks(model)


def whole_model_checks(backend: str, device: torch.device, options: dict[str, Any]) -> Iterator[Check]:
    """Check two prompts in one step, then a token after each, against the reference in float32 on the CPU.

    Every token uses all experts here.  Otherwise, of two experts with nearly equal logits, a backend may
    choose another one than the reference without being wrong, and all that follows would differ.
    """
    config = replace(SMALL, experts_per_token=SMALL.num_experts)
    cpu = torch.device("cpu")
    reference = GptOss(Synthetic(config), cpu, torch.float32)
    answers = [_prompt_and_decode(model) for model in (_small(backend, device, options, config), reference)]
    for name, got, want in zip(("whole model, prompts", "whole model, tokens"), *answers, strict=True):
        yield Check(name, len(want), relative_error(got, want), WHOLE_MODEL)


def _small(backend: str, device: torch.device, options: dict[str, Any], config: ModelConfig) -> Model:
    return backends.load(device, backend).build(Synthetic(config), device, **options)


def _prompt_and_decode(model: Model) -> list[Tensor]:
    """Logits [rows, V] of all tokens of two prompts, and of one token after each."""
    sequences, length = 2, 41
    load = Load(model, sequences, length, 0)
    with torch.inference_mode():
        prompt = load.batch(seed=1)
        samples = torch.arange(sequences * length, device=model.device)
        first = model.forward(replace(prompt, samples=samples, temperatures=None), load.cache).cpu().clone()
        return [first, model.forward(_behind(load, model), load.cache).cpu().clone()]


def _behind(load: Load, model: Model) -> Batch:
    """A batch with one more token of each sequence.  The last pages have room, because 41 tokens do not fill
    them.
    """
    tokens = torch.arange(load.sequences, device=model.device) + 7
    return Batch.of([(load.length, 1)] * load.sequences, load.table, model.page_size, tokens)
