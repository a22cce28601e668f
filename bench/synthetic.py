"""Writes checkpoints with random weights of the real sizes, to measure loading, and to use with other
servers.

    python -m bench.synthetic 20b FOLDER                        # original layout, 13.8 GB
    python -m bench.synthetic 120b FOLDER --layout hf           # transformers' layout, in shards
    python -m bench.synthetic 20b FOLDER --layers 2             # a small one

The tensors are those of model/loading/synthetic.py, so both layouts contain the same model, which can also be
made in memory.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from model.byte_sizes import format_bytes
from model.config import ModelConfig
from model.loading.synthetic import SIZES, Synthetic
from model.loading.tensors import TensorSource, shapes

__all__ = ["SIZES", "Synthetic", "write"]

LAYOUTS = ("original", "hf")
SHARD_BYTES = 5 << 30


def write(folder: Path, checkpoint: TensorSource, layout: str = "original") -> None:
    """Write config.json and safetensors files to `folder`, with at most one tensor in memory.

    A safetensors file consists of the length of its header, the header as JSON, and the tensors,
    concatenated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = checkpoint.config
    stored = _stored(config, layout)
    (folder / "config.json").write_text(json.dumps(_CONFIGS[layout](config), indent=2))
    shards = list(_shards(config, stored))
    names = [
        "model.safetensors" if len(shards) == 1 else f"model-{n:05}-of-{len(shards):05}.safetensors"
        for n in range(1, len(shards) + 1)
    ]
    for file, shard in zip(names, shards, strict=True):
        _write_file(folder / file, checkpoint, {name: stored[name] for name in shard})
    if len(shards) > 1:
        weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2)
        )


Rows = tuple[str, slice]
"""A stored tensor: some rows of one of our tensors."""


def _stored(config: ModelConfig, layout: str) -> dict[str, Rows]:
    """Name of each stored tensor → the rows that it has."""
    ours = shapes(config)
    if layout == "original":
        return {name: (name, slice(0, shape[0])) for name, shape in ours.items()}
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    stored: dict[str, Rows] = {}
    for name, shape in ours.items():
        if ".attn.qkv." in name:
            starts = (0, heads, heads + kv_heads, heads + 2 * kv_heads)
            for n, letter in enumerate("qkv"):
                stored[_theirs(name).replace("qkv", f"{letter}_proj")] = name, slice(starts[n], starts[n + 1])
        else:
            stored[_theirs(name)] = name, slice(0, shape[0])
    return stored


def _theirs(name: str) -> str:
    """The name of one of our tensors in transformers."""
    for ours, theirs in (
        ("block.", "model.layers."),
        ("mlp.norm.scale", "post_attention_layernorm.weight"),
        ("attn.norm.scale", "input_layernorm.weight"),
        ("attn.", "self_attn."),
        ("self_attn.out.", "self_attn.o_proj."),
        ("mlp.gate.", "mlp.router."),
        ("mlp.mlp1_weight.", "mlp.experts.gate_up_proj_"),
        ("mlp.mlp2_weight.", "mlp.experts.down_proj_"),
        ("mlp.mlp1_bias", "mlp.experts.gate_up_proj_bias"),
        ("mlp.mlp2_bias", "mlp.experts.down_proj_bias"),
        ("unembedding.", "lm_head."),
    ):
        name = name.replace(ours, theirs)
    return {"embedding.weight": "model.embed_tokens.weight", "norm.scale": "model.norm.weight"}.get(
        name, name
    )


def _shape(config: ModelConfig, rows: Rows) -> tuple[int, ...]:
    name, part = rows
    return (part.stop - part.start, *shapes(config)[name][1:])


def _nbytes(config: ModelConfig, rows: Rows) -> int:
    return math.prod(_shape(config, rows)) * (1 if _is_mxfp4(rows[0]) else 2)


def _is_mxfp4(name: str) -> bool:
    return name.endswith((".blocks", ".scales"))


def _shards(config: ModelConfig, stored: dict[str, Rows]) -> Iterator[list[str]]:
    """The names of the stored tensors, divided into files of about SHARD_BYTES."""
    shard: list[str] = []
    size = 0
    for name, rows in stored.items():
        if shard and size + _nbytes(config, rows) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += _nbytes(config, rows)
    yield shard


def _write_file(path: Path, checkpoint: TensorSource, stored: dict[str, Rows]) -> None:
    header: dict[str, object] = {}
    end = 0
    for name, rows in stored.items():
        start, end = end, end + _nbytes(checkpoint.config, rows)
        dtype = "U8" if _is_mxfp4(rows[0]) else "BF16"
        shape = _shape(checkpoint.config, rows)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for ours, part in stored.values():
            data = checkpoint.read(ours)[part].contiguous().cpu()
            file.write(
                (ctypes.c_char * data.nbytes).from_address(data.data_ptr())
            )  # without NumPy, which may not be installed


def original_config(config: ModelConfig) -> dict[str, object]:
    """The config.json of the original layout."""
    return {
        "num_hidden_layers": config.num_layers,
        "num_experts": config.num_experts,
        "experts_per_token": config.experts_per_token,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "swiglu_limit": config.swiglu_limit,
        "head_dim": config.head_dim,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "sliding_window": config.sliding_window,
        "initial_context_length": config.initial_context_length,
        "rope_theta": config.rope_theta,
        "rope_scaling_factor": config.rope_scaling_factor,
        "rope_ntk_alpha": config.rope_ntk_alpha,
        "rope_ntk_beta": config.rope_ntk_beta,
    }


def _hugging_face_config(config: ModelConfig) -> dict[str, object]:
    return {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": True,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "num_local_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "sliding_window": config.sliding_window,
        "swiglu_limit": config.swiglu_limit,
        "rms_norm_eps": config.rms_norm_eps,
        "max_position_embeddings": config.max_context,
        "initial_context_length": config.initial_context_length,
        "layer_types": [
            "sliding_attention" if config.window(layer) else "full_attention"
            for layer in range(config.num_layers)
        ],
        "rope_theta": config.rope_theta,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": config.rope_scaling_factor,
            "beta_slow": config.rope_ntk_alpha,
            "beta_fast": config.rope_ntk_beta,
            "original_max_position_embeddings": config.initial_context_length,
            "truncate": config.rope_truncate,
        },
        "quantization_config": {"quant_method": "mxfp4"},
    }


_CONFIGS: dict[str, Callable[[ModelConfig], dict[str, object]]] = {
    "original": original_config,
    "hf": _hugging_face_config,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.synthetic", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", choices=LAYOUTS, default="original")
    parser.add_argument("--layers", type=int, help="number of layers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = SIZES[arguments.size]
    if arguments.layers:
        config = replace(config, num_layers=arguments.layers)
    start = time.perf_counter()
    write(arguments.folder, Synthetic(config, arguments.seed), arguments.layout)
    size = sum(path.stat().st_size for path in arguments.folder.glob("*.safetensors"))
    print(f"{format_bytes(size)} in {arguments.folder}, {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
