"""The checks of the CPU kernels: all pass, and if one kernel is wrong, only that one fails."""

import pytest
import torch

from model.backends.cpu import build
from model.backends.cpu.cpu_checks import checks
from model.backends.cpu.program import OPCODES, Quantise
from model.check import SMALL
from model.loading.synthetic import Synthetic
from tests.model.backends.cpu.cpu_steps import ISAS, Machine


def small(dense="int8", isa=None):
    return build(Synthetic(SMALL), torch.device("cpu"), dense=dense, threads=2, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dense", ["int8", "bf16"])
def test_every_kernel_passes_on_every_instruction_set(isa, dense):
    if isa not in Machine.available():
        pytest.skip(f"this processor cannot run {isa}")
    told = list(checks(small(dense, isa), (1, 3, 70)))
    assert [check for check in told if not check.passed] == []
    # Quantise is judged by the product that reads its rows, and some kernels are judged more than once.
    assert len({check.name for check in told}) >= len(OPCODES) - (Quantise in OPCODES)


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda weights: weights.layers[0].qkv.data, "int8 product"),
        (lambda weights: weights.layers[1].out.data, "int8 product, added"),
        (lambda weights: weights.layers[0].gate.data, "bf16 product"),
        (lambda weights: weights.layers[1].mlp1.data, "MXFP4 product, gate and up"),
        (lambda weights: weights.layers[0].mlp2.data, "MXFP4 product, down"),
        (lambda weights: weights.layers[0].sinks, "attention, windowed"),
        (lambda weights: weights.layers[1].sinks, "attention"),
        (lambda weights: weights.norm, "RMSNorm, sampled rows"),
        (lambda weights: weights.unembedding[0].data, "unembedding, upper halves"),
        (lambda weights: weights.unembedding[1].data, "unembedding"),
    ],
)
def test_what_a_wrong_kernel_says_is_named_and_nothing_else(spoil, name, halves):
    """Wrong weights replace a wrong kernel.  Later kernels are checked with the inputs they got, and pass."""
    model = small()
    data = spoil(model.weights)
    if data.dtype == torch.uint8:
        data.bitwise_xor_(2)  # other numbers, all of them finite
    else:
        data.mul_(2)
    failed = {check.name for check in checks(model, (3,)) if not check.passed}
    assert name in failed
    assert failed <= {name, "unembedding", "rescoring"}
