"""Calculates how many bytes a gpt-oss takes before it is loaded, and how many bytes a token reads.

Biases and norms are left out, because they are small; a loaded model has its exact `weight_bytes`.
"""

from __future__ import annotations

from model.batch import PerKind
from model.config import ModelConfig
from model.loading import mxfp4

DENSE_BYTES = {"bf16": 2.0, "int8": 1 + 2 / 64}
"""Bytes of one weight in attention and unembedding; int8 includes 1/64 of a scale."""

KV_BYTES = {"bf16": 2, "fp8": 1}
"""Bytes of one number in the keys and values of full layers."""

EXPERT_BYTES = 1 / 2 + 1 / mxfp4.BLOCK
"""Bytes of one weight of an expert: four bits, and its share of the block's scale."""


def weight_bytes(config: ModelConfig, dense: str = "bf16", *, embedding: bool = True) -> int:
    """Memory of the weights, within a few percent.

    dense      format of attention and unembedding, a key of DENSE_BYTES
    embedding  whether the embedding table is in memory too, and not only in its file
    """
    table = config.vocab_size * config.hidden_size
    layer = _attention(config) * DENSE_BYTES[dense] + config.num_experts * (
        _expert(config) * EXPERT_BYTES + 2 * config.hidden_size
    )
    return int(config.num_layers * layer + table * (DENSE_BYTES[dense] + (2 if embedding else 0)))


def page_bytes(config: ModelConfig, page_size: int, kv_cache_dtype: str = "bf16") -> PerKind:
    """Bytes of one page of the KV cache: keys and values of all the layers of one kind.

    kv_cache_dtype  format in full layers, a key of KV_BYTES; banded layers have bfloat16.  If the formats
                    differ, the result is two numbers: banded, full
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
    """Bytes that a step of one token after `context` others must read: weights, keys and values.

    unembedding  bytes that are read of the unembedding; None: all
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
    """Number of layers of one kind; a page has room for all of them."""
    return (config.num_layers + 1) // 2
