"""Makes model.safetensors beside it: what transformers' GptOssForCausalLM says to the tiny checkpoints.

    pip install 'transformers>=5,<6' && python -m tests.golden.make_model_golden

One set of tensors for each of `CASES`: `tokens` [T], `float32` [T, V] and `bfloat16` [T, V], the logits of
the model in that precision.  Attention is eager, the form in which transformers computes sinks on a CPU.  The
file's metadata say which version made it and, for each case, the checksum of the weights.
"""

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.config import ModelConfig
from tests import tiny_checkpoint

PATH = Path(__file__).with_name("model.safetensors")

# Name: config and seed.  Every case is longer than the window and the initial context.
CASES: dict[str, tuple[ModelConfig, int]] = {
    "yarn": (tiny_checkpoint.CONFIG, 1),
    "truncated": (replace(tiny_checkpoint.CONFIG, rope_truncate=True), 2),
    # Even the fastest pair turns less than beta times in the initial context: the ramp starts below pair 0.
    "ramp": (
        replace(tiny_checkpoint.CONFIG, rope_ntk_beta=8.0, num_layers=4, num_kv_heads=3, sliding_window=11),
        3,
    ),
}
TOKENS = 60


def main() -> None:
    import transformers

    tensors, metadata = {}, {"transformers": transformers.__version__, "torch": torch.__version__}
    for name, (config, seed) in CASES.items():
        tokens = torch.randint(0, config.vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(seed))
        metadata[name] = checksum(config, seed)
        tensors[f"{name}.tokens"] = tokens
        for dtype in (torch.float32, torch.bfloat16):
            told = {layout: logits(config, seed, layout, tokens, dtype) for layout in ("hf", "hf_bf16")}
            assert torch.equal(told["hf"], told["hf_bf16"]), "transformers decodes our MXFP4 differently"
            tensors[f"{name}.{str(dtype).removeprefix('torch.')}"] = told["hf"]
    save_file(tensors, PATH, metadata)
    PATH.chmod(0o644)


def logits(config: ModelConfig, seed: int, layout: str, tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """[T, V] in `dtype`, of the tiny checkpoint as transformers itself loads it."""
    from transformers import GptOssForCausalLM, Mxfp4Config

    decoded = {"quantization_config": Mxfp4Config(dequantize=True)} if layout == "hf" else {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        tiny_checkpoint.write(Path(folder), layout, config, seed)
        model = GptOssForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager", **decoded)
        return model.eval()(tokens[None]).logits[0].to(dtype).clone()


def checksum(config: ModelConfig, seed: int) -> str:
    """Of the weights that a seed stands for: a golden file and its weights must not drift apart."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tiny_checkpoint.weights(config, seed).items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
