"""The speed of the same decode step in plain PyTorch, and in transformers if it is installed, for comparison.

Models of one and of three layers are timed.  The difference is the time of two layers, from which the time of
all layers is calculated.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from bench.gpu.load import Random
from model.backends import reference
from model.batch import Batch
from model.config import ModelConfig

STEPS = 10


def measure(config: ModelConfig, device: torch.device) -> list[dict[str, Any]]:
    rows = []
    roads = (
        ("the reference backend, eager", _reference),
        ("transformers, eager, bf16 experts", _transformers),
    )
    for name, decode in roads:
        try:
            one, three = (decode(replace(config, num_layers=layers), device) for layers in (1, 3))
            seconds = one + (config.num_layers - 1) * (three - one) / 2
            rows.append(
                {
                    "name": name,
                    "ms_of_1_and_3_layers": [round(1e3 * each, 2) for each in (one, three)],
                    "decode": f"{1 / seconds:.1f} tok/s, from one layer and three",
                }
            )
        except (
            Exception
        ) as error:  # whatever transformers lacks on this machine: the comparison is not essential
            rows.append({"name": name, "decode": f"not measured: {str(error).splitlines()[0]}"})
        torch.cuda.empty_cache()
    return rows


def _seconds(step: Any) -> float:
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / STEPS


def _reference(config: ModelConfig, device: torch.device) -> float:
    model = reference.build(Random(config), device)
    cache = model.new_cache(64)
    for pool in (cache.keys, cache.values):
        pool.fill_(0.1)
    position = 1000
    table = torch.arange(64, dtype=torch.int32, device=device).view(2, 1, 32)
    batch = Batch.of([(position, 1)], table, 32, tokens=torch.tensor([5], device=device))
    return _seconds(lambda: model.forward(batch, cache))


def _transformers(config: ModelConfig, device: torch.device) -> float:
    from transformers import GptOssConfig, GptOssForCausalLM

    theirs = GptOssConfig(
        num_hidden_layers=config.num_layers,
        num_local_experts=config.num_experts,
        num_experts_per_tok=config.experts_per_token,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        head_dim=config.head_dim,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        sliding_window=config.sliding_window,
    )
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = GptOssForCausalLM(theirs).requires_grad_(False)
        finally:
            torch.set_default_dtype(torch.float32)
    prompt = torch.randint(0, 1000, (1, 1000), device=device)
    past = model(prompt, use_cache=True).past_key_values
    token = torch.tensor([[5]], device=device)
    return _seconds(lambda: model(token, past_key_values=past, use_cache=True))
