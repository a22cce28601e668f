"""What a gpt-oss weighs before it is loaded, and what of it one token reads.

Biases and norms are too small to count: what a backend really holds is its `weight_bytes`, once it is there.
"""

from __future__ import annotations

from model.batch import PerKind
from model.config import ModelConfig
from model.loading import mxfp4

DENSE_BYTES = {"bf16": 2.0, "int8": 1 + 2 / 64}
"""Memory of one weight in attention and unembedding; int8: with its part of the scale that 64 share."""

KV_BYTES = {"bf16": 2, "fp8": 1}
"""Memory of one number in the keys and values of full layers."""

EXPERT_BYTES = 1 / 2 + 1 / mxfp4.BLOCK
"""Memory of one weight of an expert: four bits, and its part of the scale of its block."""


def weight_bytes(config: ModelConfig, dense: str = "bf16", *, embedding: bool = True) -> int:
    """Memory of the weights, within a few percent.

    dense      how attention and unembedding are kept, a key of DENSE_BYTES
    embedding  whether the table is held in memory too, and not left in its file
    """
    table = config.vocab_size * config.hidden_size
    layer = _attention(config) * DENSE_BYTES[dense] + config.num_experts * (
        _expert(config) * EXPERT_BYTES + 2 * config.hidden_size
    )
    return int(config.num_layers * layer + table * (DENSE_BYTES[dense] + (2 if embedding else 0)))


def page_bytes(config: ModelConfig, page_size: int, kv_cache_dtype: str = "bf16") -> PerKind:
    """Of one page of the KV cache: keys and values of all the layers of one kind.

    kv_cache_dtype  how full layers keep them, a key of KV_BYTES; banded ones keep bfloat16, and if that is
                    something else there are two numbers: banded, full
    """
    numbers = 2 * _pairs(config) * page_size * config.num_kv_heads * config.head_dim
    banded, full = numbers * KV_BYTES["bf16"], numbers * KV_BYTES[kv_cache_dtype]
    return full if banded == full else (banded, full)


def decode_bytes(
    config: ModelConfig,
    dense: str,
    context: int,
    kv_cache_dtype: str = "bf16",
    unembedding: float | None = None,
) -> float:
    """What a step of one token behind `context` others must read: the weights it uses, the keys it sees.

    unembedding  bytes it reads of the unembedding, for a backend that does not read all of it
    """
    if unembedding is None:
        unembedding = config.vocab_size * config.hidden_size * DENSE_BYTES[dense]
    seen = context + 1
    each = 2 * config.num_kv_heads * config.head_dim
    keys = 0
    for window in map(config.window, range(config.num_layers)):
        keys += seen * each * KV_BYTES[kv_cache_dtype] if window is None else min(window, seen) * each * 2
    layer = _attention(config) * DENSE_BYTES[dense] + 2 * config.num_experts * config.hidden_size
    layer += config.experts_per_token * _expert(config) * EXPERT_BYTES
    return config.num_layers * layer + unembedding + keys


def _attention(config: ModelConfig) -> int:
    """Weights of one layer's attention."""
    return config.hidden_size * config.head_dim * 2 * (config.num_heads + config.num_kv_heads)


def _expert(config: ModelConfig) -> int:
    """Weights of one expert: gate and value, and back."""
    return 3 * config.intermediate_size * config.hidden_size


def _pairs(config: ModelConfig) -> int:
    """Layers of one kind, which share the number of a page."""
    return (config.num_layers + 1) // 2
