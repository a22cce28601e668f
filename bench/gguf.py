"""Writes a GGUF file with random weights of gpt-oss's shapes, to measure llama.cpp with the same sizes.

    python -m bench.gguf 20b model.gguf --layers 4
    llama-bench -m model.gguf -t 2 -p 512 -n 32

Experts are MXFP4; the matrices of attention, the embedding and the unembedding are Q8_0; all other tensors
are float32.  The published GGUF files have the same formats.  The file has no vocabulary, only its size.
Format: github.com/ggml-org/ggml, docs/gguf.md, version 3.
"""

from __future__ import annotations

import argparse
import math
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from model.byte_sizes import format_bytes
from model.config import ModelConfig
from model.loading.synthetic import SIZES

ALIGNMENT = 32
UINT32, FLOAT32, STRING = 4, 6, 8
"""Types of metadata."""


@dataclass(frozen=True)
class Type:
    """A type of tensor: each block of `nbytes` bytes has `numbers` numbers."""

    number: int
    nbytes: int
    numbers: int


F32, Q8_0, MXFP4 = Type(0, 4, 1), Type(8, 34, 32), Type(39, 17, 32)


def tensors(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...], Type]]:
    """Name, shape (rows before columns) and type of each tensor."""
    hidden, width, experts = config.hidden_size, config.intermediate_size, config.num_experts
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    yield "token_embd.weight", (config.vocab_size, hidden), Q8_0
    yield "output_norm.weight", (hidden,), F32
    yield "output.weight", (config.vocab_size, hidden), Q8_0
    for n in range(config.num_layers):
        block = f"blk.{n}"
        yield f"{block}.attn_norm.weight", (hidden,), F32
        yield f"{block}.post_attention_norm.weight", (hidden,), F32
        for letter, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            yield f"{block}.attn_{letter}.weight", (rows, hidden), Q8_0
            yield f"{block}.attn_{letter}.bias", (rows,), F32
        yield f"{block}.attn_output.weight", (hidden, heads), Q8_0
        yield f"{block}.attn_output.bias", (hidden,), F32
        yield f"{block}.attn_sinks.weight", (config.num_heads,), F32
        yield f"{block}.ffn_gate_inp.weight", (experts, hidden), F32
        yield f"{block}.ffn_gate_inp.bias", (experts,), F32
        for name, rows, columns in (
            ("gate", width, hidden),
            ("up", width, hidden),
            ("down", hidden, width),
        ):
            yield f"{block}.ffn_{name}_exps.weight", (experts, rows, columns), MXFP4
            yield f"{block}.ffn_{name}_exps.bias", (experts, rows), F32


Value = int | float | str


def metadata(config: ModelConfig) -> dict[str, Value]:
    arch: dict[str, Value] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_context,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.intermediate_size,
        "expert_feed_forward_length": config.intermediate_size,
        "expert_count": config.num_experts,
        "expert_used_count": config.experts_per_token,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.sliding_window": config.sliding_window,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_theta,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": config.rope_scaling_factor,
        "rope.scaling.original_context_length": config.initial_context_length,
    }
    plain: dict[str, Value] = {"general.architecture": "gpt-oss", "tokenizer.ggml.model": "none"}
    return plain | {f"gpt-oss.{name}": value for name, value in arch.items()}


def nbytes(shape: tuple[int, ...], type: Type) -> int:
    return math.prod(shape) // type.numbers * type.nbytes


def content(shape: tuple[int, ...], type: Type, random: torch.Generator) -> Tensor:
    """Random contents of a tensor, with scales that keep activations near 1."""
    size = nbytes(shape, type)
    if type is F32:
        return (torch.rand(math.prod(shape), generator=random) / 50).view(torch.uint8)
    words = torch.empty(-(-size // 8), dtype=torch.int64).random_(-(2**63), None, generator=random)
    blocks = words.view(torch.uint8)[:size].view(-1, type.nbytes)
    if type is MXFP4:
        blocks[:, 0] = 120
    else:
        blocks[:, :2] = torch.tensor([0.0003], dtype=torch.float16).view(torch.uint8)
    return blocks.flatten()


def write(path: Path, config: ModelConfig, seed: int = 0) -> None:
    described = list(tensors(config))
    values = metadata(config)
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(described), len(values))
    for name, value in values.items():
        header += _string(name) + _value(value)
    offset = 0
    for name, shape, type in described:
        dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        header += _string(name) + dims + struct.pack("<IQ", type.number, offset)
        offset += _aligned(nbytes(shape, type))
    random = torch.Generator().manual_seed(seed)
    with path.open("wb") as file:
        file.write(header.ljust(_aligned(len(header)), b"\0"))
        for _, shape, type in described:
            file.write(content(shape, type, random).numpy().data)
            file.write(bytes(_aligned(nbytes(shape, type)) - nbytes(shape, type)))


def _aligned(size: int) -> int:
    return size + -size % ALIGNMENT


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _value(value: Value) -> bytes:
    match value:
        case int():
            return struct.pack("<II", UINT32, value)
        case float():
            return struct.pack("<If", FLOAT32, value)
        case str():
            return struct.pack("<I", STRING) + _string(value)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gguf",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("path", type=Path)
    parser.add_argument("--layers", type=int, help="number of layers")
    asked = parser.parse_args()
    config = SIZES[asked.size]
    write(asked.path, replace(config, num_layers=asked.layers) if asked.layers else config)
    print(f"{format_bytes(asked.path.stat().st_size)} in {asked.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
