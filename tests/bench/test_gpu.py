"""bench/gpu without a GPU: the benchmarks compute correct results, and count bytes and operations correctly.

Times do not matter here.  Each benchmark runs, with sizes that all differ.
"""

import json
import shutil
import tempfile
from dataclasses import replace

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
from bench.gpu import __main__ as benchmark
from bench.gpu import engine as gpu_engine
from bench.gpu import kernels as gpu_kernels
from bench.gpu import profile as gpu_profile
from bench.gpu import summary
from bench.gpu import weights as gpu_weights
from bench.gpu.load import Decode, Prefill, Random
from bench.synthetic import SIZES
from model.backends.triton.kernels import dense, experts_few
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.loading.synthetic import Synthetic
from model.loading.tensors import ReadAndMoved
from tests import tiny_checkpoint

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine

GPT_OSS_20B = SIZES["20b"]
CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2)


@pytest.fixture(scope="module")
def model():
    weights = Reader(Random(CONFIG, DEVICE.type), DEVICE, torch.float32).all()
    return TritonModel(CONFIG, weights, page_size=4)


@pytest.fixture(autouse=True)
def _wide_tiles(monkeypatch):
    if DEVICE.type == "cpu":  # the interpreter takes time for each program
        for tile in (experts_few.GATE_UP_TILE, experts_few.DOWN_TILE, dense.ROW_TILE, dense.SMALL_TILE):
            monkeypatch.setitem(tile, "BN", 128)


@torch.inference_mode()
def test_candidates_are_tiles_of_the_pieces_they_are_tried_on(model, monkeypatch):
    """Nothing is run, because sorting two thousand tokens takes long in the interpreter."""
    monkeypatch.setattr(gpu_kernels, "choose", lambda logits, bias, chosen, shares: chosen.zero_())
    monkeypatch.setattr(gpu_kernels.expert_order, "sort", lambda chosen, experts: (chosen, chosen))
    tried = {name: (tile, choices) for (name, *_), tile, choices in gpu_kernels.candidates(model)}
    assert tried["norm, QKV, T = 1"][0] is dense.ROW_TILE
    assert tried["down of few, T = 1"][0] is experts_few.DOWN_TILE
    assert sum(name.startswith("full attention") for name in tried) == 2
    for name, (tile, choices) in tried.items():
        assert choices.keys() <= tile.keys(), name


@torch.inference_mode()
def test_every_piece_runs_and_knows_its_bytes(model):
    pieces = [
        *gpu_kernels._dense(model, 1),
        gpu_kernels._unembedding(model, 2),
        *gpu_kernels._few(model, 1),
        *gpu_kernels._many(model, 4),
        gpu_kernels._attention(model, 2, 10, kind=0, name="banded"),
        gpu_kernels._attention(model, 2, 10, kind=1, name="full"),
    ]
    bytes_of = {name: nbytes for name, _, _, nbytes in pieces}
    for name, run, count, nbytes in pieces:
        run()
        assert count >= 1
        assert nbytes > 0, name
    layer = model.weights.layers[0]
    expert = (layer.mlp1.words.nbytes + layer.mlp1.scales.nbytes) / CONFIG.num_experts
    assert bytes_of["gate, up of few, T = 1"] == pytest.approx(CONFIG.experts_per_token * expert)
    keys = 2 * CONFIG.num_kv_heads * CONFIG.head_dim * 4
    assert bytes_of["banded attention, 2 x 10 in 1"] == 2 * 7 * keys
    assert bytes_of["full attention, 2 x 10 in 1"] == 2 * 11 * keys


@pytest.mark.exhaustive
@torch.inference_mode()
def test_steps_that_are_timed_have_finite_logits(model):
    decode = Decode(model, 2, 9)
    assert model.forward(decode.batch(3), decode.cache).isfinite().all()
    prefill = Prefill(model, 9)
    assert model.forward(prefill.batch, prefill.cache).isfinite().all()


def test_kernels_of_a_step_are_counted_and_so_is_the_time_without_any():
    spans = [(10, 14, "rows"), (0, 4, "row"), (13, 20, "row"), (25, 26, "row")]  # of two steps
    assert gpu_profile.table(spans, 2) == [
        {"kernel": "row", "launches": 1.5, "us": 6.0},
        {"kernel": "rows", "launches": 0.5, "us": 2.0},
        {"kernel": "(none)", "launches": 0.0, "us": 5.5},
    ]
    assert gpu_profile.table([], 1) == [{"kernel": "(none)", "launches": 0.0, "us": 0.0}]


@pytest.mark.exhaustive
def test_the_engine_takes_steps_to_be_timed(model):
    greedy = gpu_engine.SAMPLING["greedy"]
    assert gpu_engine._step_seconds(model, 2, 6, steps=1, sampling=greedy, overlaps=True) > 0


def test_a_layers_slots_and_tables_agree(model):
    decode = Decode(model, 3, 21)
    pages = decode.table[:, :, 21 // 4]
    assert torch.equal(decode.batch(0).slots, pages.long() * 4 + 21 % 4)
    assert len(set(decode.table[1].flatten().tolist())) == decode.table[1].numel()
    seen = decode.table[0, :, (22 - CONFIG.sliding_window) // 4 :].flatten().tolist()
    assert len(set(seen)) == len(seen)
    assert not set(seen) & set(decode.table[1].flatten().tolist())


def test_the_bytes_of_a_step_are_those_of_the_limits():
    """For 20b with one stream and no context: 3.708 GB, calculated from the shapes."""

    class Shapes(Decode):
        def __init__(self, streams, context, dense="bf16", full_dtype=torch.bfloat16):
            self.model = type("Model", (), {"config": GPT_OSS_20B, "weights": _weights_of_20b(dense)})()
            self.model.dtype, self.model.full_dtype = torch.bfloat16, full_dtype
            self.streams, self.context = streams, context

    assert Shapes(1, 0).bytes() == pytest.approx(3.708e9, rel=2e-3)
    more = Shapes(1, 131071).bytes() - Shapes(1, 0).bytes()
    assert more == pytest.approx(3.22e9, rel=5e-3)
    assert Shapes(1, 0, "int8").bytes() == pytest.approx(2.530e9, rel=2e-3)
    fp8 = (1, 131071, "int8", torch.float8_e4m3fn)
    assert Shapes(*fp8).bytes() == pytest.approx(2.530e9 + 3.22e9 / 2, rel=2e-3)


def _weights_of_20b(dense):
    class OnMeta(Reader):
        def experts(self, name):
            from model.backends.triton.weights import Matrices

            blocks, scales, bias = (
                self.checkpoint.read(f"{name}_{part}") for part in ("weight.blocks", "weight.scales", "bias")
            )
            return Matrices(blocks.flatten(-2).view(torch.int32), scales, bias)

        def check_scales(self, weights):
            """There is none."""

    class Shapes:
        config = GPT_OSS_20B

        def read(self, name):
            from model.loading.tensors import shapes

            kind = torch.uint8 if name.endswith((".blocks", ".scales")) else torch.bfloat16
            return torch.empty(shapes(GPT_OSS_20B)[name], dtype=kind, device="meta")

        def onto(self, device):
            return ReadAndMoved(self.read, device)

    return OnMeta(Shapes(), torch.device("meta"), torch.bfloat16, dense).all()


@torch.inference_mode()
@pytest.mark.parametrize("dense", ["bf16", "int8"])
def test_loading_is_measured_on_files_that_are_gone_afterwards(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu_weights, "ROUNDS", 1)
    monkeypatch.setattr(gpu_weights, "LAYERS", 1)
    found = gpu_weights.measure(CONFIG, DEVICE, dense)
    assert found["layers"] == 1
    whole, part = (Synthetic(replace(CONFIG, num_layers=n)).nbytes for n in (CONFIG.num_layers, 1))
    assert found["gb"] == pytest.approx(part / 1e9, rel=1e-2)
    assert found["whole_seconds"] == pytest.approx(whole / 1e9 / found["gb_s"], rel=2e-2)
    assert found["share_of_link"] == pytest.approx(found["gb_s"] / found["link_gb_s"], rel=2e-2)
    assert list(tmp_path.iterdir()) == []


def test_loading_that_has_no_room_is_said_to_be_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 100_000))
    assert "not one layer fits" in gpu_weights.measure(CONFIG, DEVICE, "bf16")["skipped"]


@torch.inference_mode()
def test_the_operations_of_a_prefill_are_those_of_the_limits():
    """6.06 GFLOP for each token of 20b without attention, and the attention of 1,024 tokens."""
    prefill = Prefill.__new__(Prefill)
    prefill.model, prefill.tokens = type("Model", (), {"config": GPT_OSS_20B})(), 1024
    assert prefill.flops() / 1024 == pytest.approx(6.06e9 + 0.13e9, rel=2e-2)


def test_a_part_that_fails_is_an_outcome_and_keeps_no_other_from_running(model):
    """Before, the first error lost the results of all parts."""

    def broken(model, results):
        raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")

    results = {}
    assert not benchmark.run("decode", broken, model, results, rehearse=False)
    assert results["decode"] == {"error": "CUDA error: an illegal memory access was encountered"}
    assert not benchmark.run("check", lambda *_: {"passed": False}, model, results, rehearse=False)
    assert benchmark.run("copy", lambda *_: {"copy_gb_s": 1.0}, model, results, rehearse=False)
    assert benchmark.bandwidth(results) == 1e9


def test_short_tables_are_made_of_whatever_is_there(tmp_path, capsys):
    """With an incomplete file, a failed part and one that timed out, the other results are printed."""
    some = {"decode": {"error": "no device"}, "prefill": [{"tokens": 8, "ms": 2}]}
    (tmp_path / "a.json").write_text(json.dumps(some))
    (tmp_path / "b.json").write_text('{"engine": [')
    (tmp_path / "a.status").write_text("ok, 3 s")
    (tmp_path / "b.status").write_text("TIMED OUT after 60 s, 60 s")
    assert summary.main(tmp_path) == 1
    told = capsys.readouterr().out
    for line in ("b.json is not whole", "FAILED decode no device", "TIMED OUT after 60 s"):
        assert line in told
    assert "8         2" in told
