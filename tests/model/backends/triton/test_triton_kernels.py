"""Each Triton kernel compared with its plain version, in Triton's interpreter if there is no GPU.

All sizes differ, none is a multiple of a tile, outputs are NaN before; triton_checks.py has the cases.  In
float32, because the interpreter's products of bfloat16 are not reliable.
"""

from dataclasses import replace

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
from bench.synthetic import Synthetic
from model.backends.triton import triton_checks
from model.backends.triton.graphs import blank, stage
from model.backends.triton.kernels import codes, dense, experts_few
from model.backends.triton.kernels.router import choose
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Matrices, Reader
from model.config import CheckpointError
from model.loading.mxfp4 import decode, encode
from tests import tiny_checkpoint

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine

CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2, sliding_window=11)


@pytest.fixture(scope="module", autouse=True)
def _wide_tiles():
    """Uses fewer programs, but more than one, because the interpreter takes time for each."""
    if DEVICE.type == "cpu":
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(experts_few.GATE_UP_TILE, "BN", 32)
            patch.setitem(experts_few.DOWN_TILE, "BN", 64)
            patch.setitem(dense.ROW_TILE, "BN", 64)
            patch.setitem(dense.SMALL_TILE, "BN", 64)
            patch.setitem(experts_few.GATE_UP_TILE, "BW", 8)
            patch.setitem(experts_few.DOWN_TILE, "BW", 4)
            yield
    else:
        yield


@pytest.fixture(scope="module")
def model():
    weights = Reader(Synthetic(CONFIG), DEVICE, torch.float32).all()
    return TritonModel(CONFIG, weights, page_size=4)


@pytest.mark.parametrize(
    "tokens", [1, *(pytest.param(many, marks=pytest.mark.exhaustive) for many in (3, 26))]
)
def test_kernels_compute_what_plain_pytorch_does(model, tokens):
    with torch.inference_mode():
        for check in triton_checks.checks(model, [tokens], seed=tokens):
            assert check.passed, check


def test_a_model_of_a_short_context_is_checked_too(model):
    """A step of 62 tokens, if a sequence may have 64: before, this model was refused without a reason."""
    assert CONFIG.max_context == 64
    with torch.inference_mode():
        names = [check.name for check in triton_checks.checks(model, [62]) if check.passed]
    assert {"gate and up of many", "norm and unembedding", "tokens"} <= set(names)
    assert not any("decode" in name or "prefill" in name for name in names)


def test_a_kernel_that_computes_something_else_is_found(model, monkeypatch):
    """An error of one percent: the model is refused, with one line that names the kernel and a remedy."""
    right = experts_few.plain_gate_up
    monkeypatch.setattr(experts_few, "plain_gate_up", lambda *operands: right(*operands) * 1.01)
    monkeypatch.setattr(triton_checks, "TOKENS", (1,))
    with pytest.raises(triton_checks.WrongResult, match=r"gate and up of few .* --backend reference"):
        triton_checks.probe(model)


def test_a_kernel_that_does_not_run_stops_the_program(model, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no kernel image is available for execution on the device\nand more")

    monkeypatch.setattr(triton_checks, "product", broken)
    with pytest.raises(
        triton_checks.WrongResult, match=r"does not run here: no kernel image is .* device; --backend"
    ):
        triton_checks.probe(model)


def test_packing_changes_the_order_of_bits_alone():
    blocks = torch.randint(0, 256, (3, 5, 7, 16), dtype=torch.uint8, device=DEVICE)
    words = codes.pack(blocks.clone())
    assert words.shape == (3, 5, 28)
    assert torch.equal(codes.unpack(words), blocks)
    assert not torch.equal(words.view(torch.uint8).view_as(blocks), blocks)


def test_every_bit_of_a_word_has_one_place():
    places = [place for places in codes.PLACES for place in places]
    assert sorted(places) == list(range(32))


def test_all_codes_and_scales_are_exact():
    """All values of the format with scales from 2 ** -97 to 2 ** 27, multiplied with ones and zeros."""
    width, outputs = 32, 16
    blocks = torch.arange(256, dtype=torch.uint8, device=DEVICE).view(1, 16, 1, 16)
    for scale in (30, 60, 119, 127, codes.LARGEST_SCALE):
        scales = torch.full((1, outputs, 1), scale, dtype=torch.uint8, device=DEVICE)
        matrix = decode(blocks, scales, torch.float32)[0]
        bias = torch.zeros(1, outputs, device=DEVICE)
        matrices = Matrices(codes.pack(blocks.clone()), scales, bias)
        eye = torch.eye(width, device=DEVICE)
        for column in (0, 9, 18, 27, 4, 13, 22, 31):  # of each code of a word
            x = torch.zeros(1, outputs, device=DEVICE)
            only, whole = torch.zeros(1, 1, dtype=torch.int32, device=DEVICE), torch.ones(1, 1, device=DEVICE)
            experts_few.down(codes.prescaled(eye[column : column + 1]), only, whole, matrices, x)
            assert torch.equal(x[0], matrix[:, column])


def test_equal_logits_choose_the_lower_expert_and_nan_touches_no_other_memory():
    logits = torch.tensor([[1.0, 3, 3, 2, 3], [torch.nan] * 5], device=DEVICE)
    chosen = torch.full((3, 2), -7, dtype=torch.int32, device=DEVICE)
    shares = torch.full((3, 2), -7.0, device=DEVICE)
    choose(logits[None], torch.zeros(5, device=DEVICE), chosen[:2], shares[:2])
    assert chosen.tolist()[0] == [1, 2]
    assert all(0 <= expert < 5 for expert in chosen[1].tolist())
    assert shares[0].tolist() == [0.5, 0.5]
    assert not shares[1].isfinite().any()
    assert chosen.tolist()[2] == [-7, -7]


def test_a_token_that_is_not_finite_spoils_no_other(model):
    """A batch has tokens of several requests, which must not affect each other."""
    x = torch.randn(12, CONFIG.hidden_size, device=DEVICE)
    layer = model.weights.layers[0]
    with torch.inference_mode():
        sound, spoiled = x.clone(), x.clone()
        spoiled[7] = torch.nan
        model.add_experts(layer, sound)
        model.add_experts(layer, spoiled)
    assert spoiled[7].isnan().all()
    rest = [row for row in range(12) if row != 7]
    torch.testing.assert_close(spoiled[rest], sound[rest])


def test_staging_copies_the_batch_and_fills_up(model):
    batch = triton_checks.Draw(model, 3).batch([(9, 1), (0, 1), (21, 1)])
    batch = replace(
        batch, tokens=torch.arange(5, 8, device=DEVICE), samples=torch.tensor([2, 0], device=DEVICE)
    )
    static = blank(4, 9, DEVICE)
    static.samples.fill_(3)
    static.lengths.fill_(99)
    stage(batch, static)
    width = batch.page_table.shape[2]
    assert static.tokens.tolist() == [5, 6, 7, 0]
    assert static.positions.tolist() == [9, 0, 21, 0]
    assert static.lengths.tolist() == [10, 1, 22, 0]
    assert static.samples.tolist() == [2, 0, 0, 0]
    assert torch.equal(static.slots[:, :3], batch.slots)
    assert static.slots[:, 3].tolist() == [-1, -1]
    assert torch.equal(static.page_table[:, :3, :width], batch.page_table)


@pytest.mark.exhaustive
def test_rows_that_fill_up_a_batch_change_nothing(model):
    """They write nothing to the cache, and the logits of other rows are the same."""
    batch = triton_checks.Draw(model, 4).batch([(9, 1), (5, 1), (13, 1)])
    batch = replace(batch, tokens=torch.arange(5, 8, device=DEVICE), samples=torch.arange(3, device=DEVICE))
    caches = [model.new_cache(len(batch.page_table.flatten())) for _ in range(2)]
    for cache in caches:
        cache.keys.fill_(0.25)
        cache.values.fill_(0.5)
    static = blank(4, 9, DEVICE)
    stage(batch, static)
    with torch.inference_mode():
        want, got = model.network(batch, caches[0]), model.network(static, caches[1])
    torch.testing.assert_close(got[:3], want)
    assert got.isfinite().all()
    assert torch.equal(caches[0].keys, caches[1].keys)
    assert torch.equal(caches[0].values, caches[1].values)


class TooLarge(Synthetic):
    """A checkpoint with one scale that is too large for the kernels."""

    def read(self, name):
        tensor = super().read(name)
        if name == "block.1.mlp.mlp2_weight.scales":
            tensor[2, 3, 0] = 155
        return tensor


def test_a_scale_without_room_is_refused():
    with pytest.raises(CheckpointError, match=r"block\.1\.mlp\.mlp2_weight\.scales holds 155.*up to 154"):
        Reader(TooLarge(CONFIG), DEVICE, torch.float32).all()


def test_a_head_that_is_no_power_of_two_is_refused():
    with pytest.raises(CheckpointError, match="head_dim to be a power of two from 16 on, not 24"):
        Reader(Synthetic(replace(CONFIG, head_dim=24)), DEVICE, torch.float32).all()


def test_encoding_again_gives_the_same_matrix(model):
    """The packed weights are equal to those of the checkpoint."""
    blocks, scales = encode(model.weights.layers[1].mlp2.decoded(3))
    torch.testing.assert_close(
        decode(blocks, scales, torch.float32), model.weights.layers[1].mlp2.decoded(3), rtol=0, atol=0
    )
