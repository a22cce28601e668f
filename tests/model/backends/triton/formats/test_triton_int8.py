"""Dense weights in eight bits in the Triton kernels: their error, and the results.

In Triton's interpreter if there is no GPU, in float32, with sizes that all differ: K = 96 is a group of 64
and one of 32.
"""

from dataclasses import replace

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE, wide_tiles  # must be the first import

# isort: split
from bench.synthetic import Synthetic
from model import backends as kernels
from model.backends import reference
from model.backends.triton import triton_checks
from model.backends.triton.kernels import dense, dense_int8, experts_few
from model.backends.triton.kernels.dense_int8 import GROUP, quantise
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.check import relative_error
from model.loading.checkpoint import Checkpoint
from model.sizes import weight_bytes
from tests import tiny_checkpoint
from tests.model.paging import Paged, alone

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine

CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2, sliding_window=5)
MATRICES = ("attn.qkv.weight", "attn.out.weight", "unembedding.weight")


def ids(length, seed):
    drawn = torch.randint(0, CONFIG.vocab_size, (length,), generator=torch.Generator().manual_seed(seed))
    return drawn.tolist()


class Rounded(Checkpoint):
    """A checkpoint whose dense weights were rounded to eight bits."""

    def read(self, name):
        tensor = super().read(name)
        if name.endswith(MATRICES):
            return quantise(tensor, tensor.device).decoded()
        return tensor


@pytest.fixture(scope="module", autouse=True)
def _wide_tiles():
    experts = experts_few.GATE_UP_TILE, experts_few.DOWN_TILE
    with wide_tiles(*experts, dense_int8.ROW_TILE, dense_int8.SMALL_TILE):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.write(folder, config=CONFIG)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    weights = Reader(Checkpoint.open(folder), DEVICE, torch.float32, "int8").all()
    return TritonModel(CONFIG, weights, page_size=4)


@pytest.mark.parametrize("width", [64, 96, 200, 2880])
def test_no_weight_moves_by_more_than_half_a_step(width):
    """A step is 1/127 of the largest weight in the group, except for rounding the scale to bfloat16."""
    weight = torch.randn(37, width, generator=torch.Generator().manual_seed(width)).bfloat16()
    kept = quantise(weight, DEVICE)
    assert kept.codes.abs().max() == 127
    assert kept.scales.shape == (37, -(-width // GROUP))
    for first in range(0, width, GROUP):
        group = weight[:, first : first + GROUP].float()
        error = (kept.decoded().cpu()[:, first : first + GROUP] - group).abs().amax(1)
        assert (error <= 0.51 * group.abs().amax(1) / 127).all()


def test_rows_by_the_thousand_are_each_their_own(monkeypatch):
    """Rounding a large matrix some rows at a time gives the same as all at once."""
    weight = torch.randn(70, 96, generator=torch.Generator().manual_seed(3))
    whole = quantise(weight, DEVICE)
    monkeypatch.setattr(dense_int8, "_ROWS_AT_ONCE", 32)
    parts = quantise(weight, DEVICE)
    assert torch.equal(whole.codes, parts.codes)
    assert torch.equal(whole.scales, parts.scales)
    assert torch.equal(parts.decoded(slice(-3, None)), whole.decoded()[-3:])


def test_a_group_of_zeros_stays_zero_and_one_with_nan_tells():
    weight = torch.zeros(3, 128)
    weight[1, 70], weight[2, 5] = 3.5, torch.nan
    kept = quantise(weight, DEVICE).decoded().cpu()
    assert torch.equal(kept[0], weight[0])
    torch.testing.assert_close(kept[1], weight[1], rtol=4e-3, atol=0)
    assert kept[2, :64].isnan().all()
    assert not kept[2, 64:].any()


@pytest.mark.parametrize("rows", [1, 2, 26])
def test_each_weight_is_met_by_a_one_exactly(rows):
    """Rows of x with a single 1 select columns of the matrix, without rounding."""
    width = 96
    matrix = quantise(torch.randn(70, width, generator=torch.Generator().manual_seed(5)), DEVICE)
    columns = torch.arange(rows) * 37 % width
    x = torch.eye(width)[columns].to(DEVICE)
    out = dense.product(x, matrix, torch.full((rows, 70), torch.nan, device=DEVICE))
    assert torch.equal(out.cpu(), matrix.decoded().cpu().T[columns])


@pytest.mark.parametrize("tokens", [1, 3, 26, 140])
def test_products_are_those_of_the_decoded_weights(model, tokens):
    """With norm, bias, residual and selected rows; also with the many rows of a prompt."""
    with torch.inference_mode():
        for name, got, want in triton_checks._dense(triton_checks.Draw(model, tokens), tokens):
            assert relative_error(got, want) < 1e-5, name


@pytest.mark.exhaustive
def test_the_model_is_the_reference_with_decoded_weights(model, folder):
    """Prompts in chunks, and decodes, compared with plain PyTorch in float32."""
    tokens = ids(23, 23)
    checkpoint = Rounded.open(folder)
    theirs = reference.build(checkpoint, torch.device("cpu"), dtype=torch.float32, page_size=8)
    got = Paged(model, [tokens]).run([1, 1, 19, 1, 1])
    torch.testing.assert_close(got.cpu(), alone(theirs, tokens), rtol=0, atol=3e-4)


@pytest.mark.exhaustive
def test_eight_bits_cost_what_is_said(model, folder):
    """About one percent of the logits, as in docs/tuning.md.  The tiny model's weights are uniformly
    distributed.
    """
    tokens = ids(23, 23)
    whole = reference.build(Checkpoint.open(folder), torch.device("cpu"), dtype=torch.float32, page_size=8)
    got, want = alone(model, tokens).cpu(), alone(whole, tokens)
    assert 1e-4 < relative_error(got, want) < 3e-2


def test_memory_is_what_is_said_before_loading(model):
    config = replace(CONFIG, hidden_size=128, num_heads=8)  # whole groups, as in the published models
    weights = Reader(Synthetic(config), DEVICE, torch.bfloat16, "int8").all()
    assert weights.nbytes == pytest.approx(weight_bytes(config, "int8"), rel=0.05)
    layer = weights.layers[0]
    assert layer.qkv.nbytes == layer.qkv.codes.numel() * (1 + 2 / GROUP)
    assert weights.unembedding.nbytes * 1.9 < weights.embedding.nbytes < weights.unembedding.nbytes * 2


def test_only_known_formats_are_taken(folder, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match="kept as bf16 or int8, not 'int4'"):
        kernels.load(torch.device("cpu"), "triton").build(Checkpoint.open(folder), DEVICE, dense="int4")
