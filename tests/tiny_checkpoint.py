"""A tiny random gpt-oss in every published layout, for tests of all packages.

All its sizes differ, so that swapped axes are noticed.  Its window and initial context are shorter than a few
dozen tokens.  Weights are made from random integers only, so they are bit-identical on every machine.

    config = tiny_checkpoint.write(tmp_path, layout="hf", seed=1)
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.synthetic import original_config
from model.config import ModelConfig
from model.loading.mxfp4 import decode
from model.loading.tensors import shapes

CONFIG = ModelConfig(
    vocab_size=211,
    hidden_size=96,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,
    num_experts=5,
    experts_per_token=3,
    intermediate_size=64,
    sliding_window=7,
    swiglu_limit=7.0,
    rope_theta=100.0,
    rope_scaling_factor=4.0,
    rope_ntk_alpha=0.25,
    rope_ntk_beta=2.0,
    initial_context_length=16,
)

LAYOUTS = ("original", "hf", "hf_bf16")

QUANTIZATION = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
}


def write(folder: Path, layout: str = "original", config: ModelConfig = CONFIG, seed: int = 0) -> ModelConfig:
    """Write config.json and safetensors to `folder`, which is created if missing; for "hf..." shards and an
    index.

    layout  "original"; "hf": transformers' names, experts in MXFP4; "hf_bf16": the same, experts in bf16
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = weights(config, seed)
    if layout == "original":
        (folder / "config.json").write_text(json.dumps(original_config(config)))
        save_file(tensors, folder / "model.safetensors")
        return config
    bf16 = layout == "hf_bf16"
    facts = hugging_face_config(config) | ({} if bf16 else {"quantization_config": QUANTIZATION})
    (folder / "config.json").write_text(json.dumps(facts))
    tensors = hugging_face(config, tensors, bf16)
    names = sorted(tensors)
    shards = {f"model-{i:05}-of-00002.safetensors": names[i - 1 :: 2] for i in (1, 2)}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return config


def weights(config: ModelConfig = CONFIG, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors with our names, and scales that keep activations near 1."""
    random = torch.Generator().manual_seed(seed)

    def spread(shape: tuple[int, ...], size: float) -> Tensor:
        """Integers in [-64, 64] times `size` / 64; `size` is a power of two, so this is exact in bfloat16."""
        return (torch.randint(-64, 65, shape, generator=random) * (size / 64)).to(torch.bfloat16)

    tensors = {}
    for name, shape in shapes(config).items():
        if name.endswith(".blocks"):
            tensor = torch.randint(0, 256, shape, generator=random).to(torch.uint8)
        elif name.endswith(".scales"):
            tensor = torch.randint(122, 125, shape, generator=random).to(torch.uint8)
        elif name.endswith("norm.scale"):
            tensor = 1 + spread(shape, 0.25)
        elif name.endswith((".weight", ".sinks")):
            tensor = spread(shape, 0.25 if "block" in name and "sinks" not in name else 1.0)
        else:
            tensor = spread(shape, 0.5)
        tensors[name] = tensor
    return tensors


def hugging_face(config: ModelConfig, tensors: dict[str, Tensor], bf16: bool) -> dict[str, Tensor]:
    """The same tensors with transformers' names; with `bf16`, experts are decoded, and [E, in, out]."""
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    theirs = {
        "model.embed_tokens.weight": tensors["embedding.weight"],
        "model.norm.weight": tensors["norm.scale"],
        "lm_head.weight": tensors["unembedding.weight"],
    }
    for n in range(config.num_layers):
        ours, layer = f"block.{n}", f"model.layers.{n}"
        for kind in ("weight", "bias"):
            q, k, v = tensors[f"{ours}.attn.qkv.{kind}"].split([heads, kv_heads, kv_heads])
            for name, tensor in zip("qkv", (q, k, v), strict=True):
                theirs[f"{layer}.self_attn.{name}_proj.{kind}"] = tensor.clone()
            theirs[f"{layer}.self_attn.o_proj.{kind}"] = tensors[f"{ours}.attn.out.{kind}"]
            theirs[f"{layer}.mlp.router.{kind}"] = tensors[f"{ours}.mlp.gate.{kind}"]
        theirs[f"{layer}.self_attn.sinks"] = tensors[f"{ours}.attn.sinks"]
        theirs[f"{layer}.input_layernorm.weight"] = tensors[f"{ours}.attn.norm.scale"]
        theirs[f"{layer}.post_attention_layernorm.weight"] = tensors[f"{ours}.mlp.norm.scale"]
        for name, projection in (("mlp1", "gate_up_proj"), ("mlp2", "down_proj")):
            expert = f"{layer}.mlp.experts.{projection}"
            theirs[f"{expert}_bias"] = tensors[f"{ours}.mlp.{name}_bias"]
            packed = [tensors[f"{ours}.mlp.{name}_weight.{part}"] for part in ("blocks", "scales")]
            if bf16:
                theirs[expert] = decode(*packed).transpose(1, 2).contiguous()
            else:
                theirs[f"{expert}_blocks"], theirs[f"{expert}_scales"] = packed
    return theirs


def hugging_face_config(config: ModelConfig) -> dict[str, object]:
    """The config.json that transformers 4 wrote for the published models, with these sizes."""
    return {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initial_context_length": config.initial_context_length,
        "intermediate_size": config.intermediate_size,
        "layer_types": [
            "full_attention" if config.window(n) is None else "sliding_attention"
            for n in range(config.num_layers)
        ],
        "max_position_embeddings": config.max_context,
        "num_attention_heads": config.num_heads,
        "num_experts_per_tok": config.experts_per_token,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "num_local_experts": config.num_experts,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": {
            "beta_fast": config.rope_ntk_beta,
            "beta_slow": config.rope_ntk_alpha,
            "factor": config.rope_scaling_factor,
            "original_max_position_embeddings": config.initial_context_length,
            "rope_type": "yarn",
            "truncate": config.rope_truncate,
        },
        "rope_theta": config.rope_theta,
        "sliding_window": config.sliding_window,
        "swiglu_limit": config.swiglu_limit,
        "tie_word_embeddings": False,
        "vocab_size": config.vocab_size,
    }
