"""The order of operations when a model is built for a GPU, recorded with a fake GPU."""

from types import SimpleNamespace

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
from model.backends import triton
from model.backends.triton import ahead, overlap, weights
from model.config import CheckpointError
from model.loading.synthetic import Synthetic
from tests import tiny_checkpoint

GPU = torch.device("cuda")
CONFIG = tiny_checkpoint.CONFIG


@pytest.fixture
def told(monkeypatch, tmp_path):
    """Records the operations in order.  Nothing is loaded or compiled."""
    told = []
    ready = weights.Reader(Synthetic(CONFIG), DEVICE, torch.bfloat16, "int8").all()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    properties = SimpleNamespace(major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: properties)
    monkeypatch.setattr(ahead.triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(ahead, "started", lambda job, count: told.append("processes") or [])
    monkeypatch.setattr(ahead.Job, "compile", lambda job: told.append(job))

    class Reader:
        def __init__(self, *asked):
            assert asked[1:] == (GPU, torch.bfloat16, "int8")

        def all(self):
            told.append("read")
            return ready

    monkeypatch.setattr(weights, "Reader", Reader)
    monkeypatch.setattr("model.backends.triton.triton_checks.probe", lambda model: told.append("probed"))
    monkeypatch.setattr(overlap, "pays", lambda model: told.append("measured") or True)
    return told


def test_kernels_compile_while_weights_are_read_and_are_compared_before_they_are_timed(told):
    model = triton.build(Synthetic(CONFIG), GPU, dense="int8", kv_cache_dtype="fp8")
    job = ahead.Job(CONFIG, "int8", "fp8", False, "float8_e4m3fn", (9, 0), 132)
    assert told == ["processes", "read", job, "probed", "measured"]
    assert job.mark.exists()
    assert model.pdl
    assert (model.dense, model.kv_cache_dtype, model.page_size) == ("int8", "fp8", 32)


def test_a_checkpoint_that_cannot_be_read_compiles_nothing_here(told, monkeypatch):
    def refuse(reader):
        raise CheckpointError("it is damaged")

    monkeypatch.setattr(weights.Reader, "all", refuse)
    with pytest.raises(CheckpointError, match="damaged"):
        triton.build(Synthetic(CONFIG), GPU, dense="int8")
    assert told == ["processes"]


def test_an_older_gpu_is_refused_before_anything_is_done(told, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: "an old one")
    with pytest.raises(ValueError, match=r"an old one has 7\.5"):
        triton.build(Synthetic(CONFIG), GPU, dense="int8")
    assert told == []
