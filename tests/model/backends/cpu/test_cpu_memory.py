"""gpt-oss-20b with 8k of context needs less than 16 GiB on the CPU: calculated, without loading it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.memory import GIB, plan
from gptoss.assembly import CPU_SHARE
from model.backends.cpu import build
from model.backends.cpu.cpu_model import Scratch
from model.backends.cpu.program import BF16, HIGH, INT8, LOW, MXFP4, PAGE_SIZE
from model.config import ModelConfig
from model.loading.checkpoint import Checkpoint
from model.loading.synthetic import GPT_OSS_20B
from model.loading.tensors import shapes
from tests import tiny_checkpoint
from tests.model.backends.cpu.cpu_steps import load

CPU = torch.device("cpu")
PYTHON = GIB // 2  # the interpreter, torch, the tokenizer and the server: 0.4 GB with the demo


def packed_bytes(config: ModelConfig, dense: int) -> int:
    """Bytes of the packed weights and biases, calculated from the checkpoint's shapes."""
    size = load().gptoss_packed_bytes
    total = 0
    for name, shape in shapes(config).items():
        if name.endswith(".blocks"):
            total += shape[0] * size(MXFP4, shape[1], 32 * shape[2])
        elif name.endswith("bias"):
            total += 4 * (shape[0] if len(shape) == 2 else 1) * (shape[-1] + -shape[-1] % 32)
        elif name.endswith(".weight") and name != "embedding.weight":
            formats = (HIGH, LOW) if name == "unembedding.weight" and dense == INT8 else (dense,)
            total += sum(size(BF16 if ".gate." in name else format, *shape) for format in formats)
    return total


@pytest.fixture(scope="module", params=["original", "hf"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tiny_checkpoint.write(folder, request.param)
    return Checkpoint.open(folder)


@pytest.mark.parametrize(("dense", "format"), [("int8", INT8), ("bf16", BF16)])
def test_a_model_holds_its_packed_weights_and_nothing_twice(checkpoint, dense, format, halves):
    assert build(checkpoint, CPU, dense=dense, threads=1).weight_bytes == packed_bytes(
        checkpoint.config, format
    )


def test_rows_that_are_looked_up_stay_in_the_checkpoints_file(checkpoint, halves):
    weights = build(checkpoint, CPU, threads=1).weights
    assert weights.table is not None
    for tensor in (weights.embedding, weights.table):
        assert file_of(tensor).endswith(".safetensors")


def file_of(tensor: Tensor) -> str:
    """The mapped file that contains the tensor's memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, path = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= tensor.data_ptr() < last:
            return path
    raise AssertionError("not mapped")


@pytest.mark.parametrize(("dense", "most"), [(INT8, 11.0), (BF16, 12.5)])
def test_gpt_oss_20b_fits_into_16_gib_with_8k_of_context(dense, most):
    config = GPT_OSS_20B
    weights = packed_bytes(config, dense)
    assert weights < most * GIB
    dims, layers_of_one_kind = 2 * config.head_dim, config.num_layers // 2
    made = plan(
        weights,
        page_bytes=layers_of_one_kind * PAGE_SIZE * config.num_kv_heads * dims * 2,
        page_size=PAGE_SIZE,
        window=config.sliding_window,
        available_bytes=16 * GIB - PYTHON,
        max_context=config.max_context,
        max_running=64,
        fraction=CPU_SHARE,
    )
    assert made.context_tokens >= 3 * 8192
    assert made.bytes_per_token == 24_576
    assert weights + made.keys_and_values + made.workspace <= 16 * GIB - PYTHON


def test_a_step_of_gpt_oss_20b_works_within_the_workspace():
    """With the defaults: 512 tokens, of which 64 sample."""
    scratch = Scratch(GPT_OSS_20B, 512)
    held = [each for each in vars(scratch).values() if isinstance(each, Tensor)] + scratch._rows
    logits = 64 * GPT_OSS_20B.vocab_size * torch.float32.itemsize
    assert sum(tensor.nbytes for tensor in held) + 2 * logits < GIB // 2
