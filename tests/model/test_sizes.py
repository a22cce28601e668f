"""The sizes that are calculated before a model is loaded are those of its tensors."""

import math

import pytest
import torch

from model import backends as kernels
from model.loading.synthetic import SIZES, Synthetic
from model.loading.tensors import shapes
from model.sizes import DENSE_BYTES, decode_bytes, page_bytes, weight_bytes
from tests.tiny_checkpoint import CONFIG

CPU = torch.device("cpu")


def stored_bytes(name, shape):
    return math.prod(shape) * (1 if name.endswith((".blocks", ".scales")) else 2)


def matrices(config):
    """Number of weights in all matrices, without biases, norms and sinks."""
    return {name: shape for name, shape in shapes(config).items() if len(shape) > 1 and "bias" not in name}


@pytest.mark.parametrize("config", [CONFIG, *SIZES.values()], ids=["tiny", *SIZES])
def test_the_weights_are_the_tensors(config):
    names = matrices(config)
    whole = sum(stored_bytes(name, shape) for name, shape in names.items())
    assert weight_bytes(config) == whole
    assert weight_bytes(config, embedding=False) == whole - stored_bytes("", names["embedding.weight"])


@pytest.mark.parametrize("config", [CONFIG, *SIZES.values()], ids=["tiny", *SIZES])
def test_a_token_reads_the_experts_it_uses_and_no_embedding(config):
    read = 0.0
    for name, shape in matrices(config).items():
        used = config.experts_per_token / config.num_experts if name.endswith((".blocks", ".scales")) else 1
        read += 0 if name == "embedding.weight" else stored_bytes(name, shape) * used
    seen = 400
    keys = sum(min(config.window(n) or seen, seen) for n in range(config.num_layers))
    read += keys * 2 * config.num_kv_heads * config.head_dim * 2
    assert decode_bytes(config, "bf16", seen - 1) == pytest.approx(read)
    assert decode_bytes(config, "int8", seen - 1) < read


def test_int8_is_a_byte_and_a_scale_for_64():
    assert DENSE_BYTES["int8"] * 64 == 64 + 2


@pytest.mark.parametrize(("size", "gigabytes"), [("20b", (11, 14)), ("120b", (60, 66))])
def test_the_published_models_weigh_what_is_known_of_them(size, gigabytes):
    """gpt-oss model card: checkpoints of 12.8 and 60.8 GiB."""
    low, high = gigabytes
    assert low < weight_bytes(SIZES[size]) / 1e9 < high


def test_the_reference_holds_what_was_said():
    model = kernels.load(CPU, "reference").build(Synthetic(CONFIG), CPU, page_size=4)
    assert weight_bytes(CONFIG) == pytest.approx(model.weight_bytes, rel=0.05)
    assert page_bytes(CONFIG, 4) == model.page_bytes


@pytest.mark.parametrize("config", [CONFIG, *SIZES.values()], ids=["tiny", *SIZES])
def test_eight_bits_halve_the_keys_of_full_layers_and_no_others(config):
    assert page_bytes(config, 32, "fp8") == (page_bytes(config, 32), page_bytes(config, 32) // 2)
    seen = 5000
    full = sum(config.window(n) is None for n in range(config.num_layers))
    saved = decode_bytes(config, "int8", seen - 1) - decode_bytes(config, "int8", seen - 1, "fp8")
    assert saved == full * seen * 2 * config.num_kv_heads * config.head_dim


def test_a_token_of_20b_in_eight_bits_reads_a_third_less():
    """GB that a token without context reads: 3.708 and 2.530."""
    config = SIZES["20b"]
    assert decode_bytes(config, "bf16", 0) / 1e9 == pytest.approx(3.705, abs=0.005)
    assert decode_bytes(config, "int8", 0) / 1e9 == pytest.approx(2.527, abs=0.005)
