"""The effect of eight bits on a trained model: the demo's next-token distributions, in plain PyTorch.

docs/tuning.md has the figures, which `python -m tests.model.backends.triton.test_eight_bits` prints.  The
tests check only the order of magnitude, because the demo may be trained again.
"""

from contextlib import contextmanager
from unittest import mock

import pytest
import torch

from tests.model.backends.triton import triton_here  # noqa: F401  first: see there

# isort: split
from demo.tokenizer import WEIGHTS
from language.tokenizer import Tokenizer
from model.backends.reference.arithmetic import Arithmetic
from model.backends.reference.gpt_oss import GptOss
from model.backends.triton.kernels.dense_int8 import quantise
from model.backends.triton.kernels.fp8 import plain_numbers, plain_stored
from model.batch import FULL
from model.loading.checkpoint import Checkpoint
from tests.model.paging import alone

CPU = torch.device("cpu")
TEXTS = (
    "<|start|>user<|message|>What is the capital of France?<|end|><|start|>assistant<|channel|>analysis"
    "<|message|>The user asks for the capital of France. It is Paris.<|end|><|start|>assistant"
    "<|channel|>final<|message|>The capital of France is Paris.<|return|>",
    "<|start|>user<|message|>What is 12 + 7?<|end|><|start|>assistant<|channel|>final<|message|>19<|return|>",
    "<|start|>user<|message|>Repeat after me, word by word: "
    + "the quick brown fox jumps over the lazy dog, " * 8,
)


class EightBits(Checkpoint):
    """A checkpoint whose dense weights were rounded as by `--dense int8`."""

    def read(self, name):
        tensor = super().read(name)
        if name.endswith(("attn.qkv.weight", "attn.out.weight", "unembedding.weight")):
            return quantise(tensor, CPU).decoded()
        return tensor


@contextmanager
def fp8_cache():
    """In this context, keys and values of full layers are rounded as by `--kv-cache-dtype fp8`."""
    attention, write = GptOss._attention, Arithmetic.write_kv
    layers = []

    def rounded(self, layer, *operands):
        layers.append(layer)
        return attention(self, layer, *operands)

    def written(self, key, value, *places):
        if layers[-1] % 2 == FULL:
            key, value = (plain_numbers(plain_stored(x, torch.uint8)) for x in (key, value))
        write(self, key, value, *places)

    with (
        mock.patch.object(GptOss, "_attention", rounded),
        mock.patch.object(Arithmetic, "write_kv", written),
    ):
        yield


def distributions(checkpoint):
    """Log-probabilities [T, V] at all positions of the texts."""
    model = GptOss(checkpoint, CPU, torch.float32)
    tokenizer = Tokenizer(WEIGHTS / "tokenizer.json")
    texts = [tokenizer.encode_with_specials(text) for text in TEXTS]
    return torch.cat([alone(model, tokens) for tokens in texts]).log_softmax(-1)


def cost(got, want):
    """Mean Kullback-Leibler divergence in nats, and the share of positions with another most likely token."""
    divergence = (want.exp() * (want - got)).sum(-1).mean()
    return float(divergence), float((got.argmax(-1) != want.argmax(-1)).float().mean())


def costs():
    want = distributions(Checkpoint.open(WEIGHTS))
    found = {"--dense int8": cost(distributions(EightBits.open(WEIGHTS)), want)}
    with fp8_cache():
        found["--kv-cache-dtype fp8"] = cost(distributions(Checkpoint.open(WEIGHTS)), want)
        found["both"] = cost(distributions(EightBits.open(WEIGHTS)), want)
    return found, len(want)


@pytest.fixture(scope="module")
def measured():
    return costs()[0]


@pytest.mark.parametrize("options", ["--dense int8", "--kv-cache-dtype fp8", "both"])
def test_a_trained_model_says_nearly_the_same_in_eight_bits(measured, options):
    divergence, others = measured[options]
    assert 0 < divergence < 0.05
    assert others < 0.1


if __name__ == "__main__":
    found, positions = costs()
    for name, (divergence, others) in found.items():
        print(f"{name:24} {divergence:.5f} nats, {100 * others:.2f}% of {positions} tokens")
