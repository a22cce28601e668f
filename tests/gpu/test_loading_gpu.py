"""Weights on a real GPU, loaded through pinned buffers and streams, are bit-identical to those in the files.

python -m pytest -m gpu tests/gpu
"""

import os
import threading
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("there is no GPU that torch can use", allow_module_level=True)
pytest.importorskip("triton", reason="Triton is not installed")

from bench import synthetic
from model.backends.triton.weights import Reader
from model.config import CheckpointError
from model.loading.checkpoint import Checkpoint
from model.loading.synthetic import SIZES, Synthetic
from model.loading.upload import Pinned, Region, Uploads
from tests import tiny_checkpoint

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize("layout", tiny_checkpoint.LAYOUTS)
def test_what_arrives_is_what_is_read(layout, tmp_path):
    tiny_checkpoint.write(tmp_path, layout, seed=5)
    checkpoint = Checkpoint.open(tmp_path)
    with checkpoint.onto(CUDA) as tensors:
        arrived = {name: tensors.read(name) for name in checkpoint.names}
    for name, tensor in arrived.items():
        assert tensor.is_cuda
        assert torch.equal(tensor.cpu(), checkpoint.read(name)), name


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    """Config and folder of a model with one layer of 20b and a small vocabulary."""
    folder, config = tmp_path_factory.mktemp("layer"), replace(SIZES["20b"], num_layers=1, vocab_size=4099)
    synthetic.write(folder, Synthetic(config), "hf")
    return config, folder


def tensors_of(held):
    for field in fields(held):
        value = getattr(held, field.name)
        for each in value if isinstance(value, tuple) else (value,):
            yield from tensors_of(each) if is_dataclass(each) else (each,)


@pytest.mark.parametrize("dense", ["bf16", "int8"])
def test_weights_of_true_size_are_those_that_were_made(layer, dense):
    """Several times: the second load uses memory of the first one's tensors."""
    config, folder = layer
    want = Reader(Synthetic(config), CUDA, torch.bfloat16, dense).all()
    for _ in range(3):
        got = Reader(Checkpoint.open(folder), CUDA, torch.bfloat16, dense).all()
        assert all(torch.equal(*pair) for pair in zip(tensors_of(got), tensors_of(want), strict=True))
        del got


def test_memory_let_go_of_is_not_written_to_before_it_was_read(tmp_path, monkeypatch):
    """The GPU reads each tensor only after a long wait, when the host has freed it and begun to upload
    others in its memory."""
    monkeypatch.setattr("model.loading.upload.AHEAD_BYTES", 1)  # or all begin before the first is let go of
    size = 3 << 20
    (tmp_path / "file").write_bytes(os.urandom(size + 64))
    regions = [Region(tmp_path / "file", begin, size) for begin in range(64)]
    copies, places = torch.empty(len(regions), size, dtype=torch.uint8, device=CUDA), set()
    with Uploads(regions, Pinned(CUDA), 4, 1 << 20) as uploads:
        for copy, tensor in zip(copies, uploads, strict=True):
            torch.cuda._sleep(2_000_000)  # cycles, a millisecond or two
            copy.copy_(tensor)
            places.add(tensor.data_ptr())
    assert len(places) < len(regions) / 2
    whole = torch.frombuffer(bytearray((tmp_path / "file").read_bytes()), dtype=torch.uint8)
    for region, copy in zip(regions, copies, strict=True):
        assert torch.equal(copy.cpu(), whole[region.begin : region.begin + size]), region.begin


def test_pinned_memory_is_given_back_and_no_thread_is_left(layer, monkeypatch):
    buffers = []

    class Watched(Pinned):
        def buffer(self, nbytes):
            buffers.append(super().buffer(nbytes))
            return buffers[-1]

    monkeypatch.setattr("model.loading.upload.Pinned", Watched)
    with Checkpoint.open(layer[1]).onto(CUDA) as tensors:
        tensors.read("embedding.weight")
        assert any(buffer.bytes.is_pinned() for buffer in buffers)
    assert not any(buffer.bytes.is_pinned() for buffer in buffers)
    assert not any(thread.name.startswith("upload-") for thread in threading.enumerate())


def test_a_file_cut_short_is_named_and_the_gpu_is_as_good_as_before(tmp_path):
    tiny_checkpoint.write(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    os.truncate(tmp_path / "model.safetensors", 20_000)
    with pytest.raises(CheckpointError, match="cannot be read: it ends at byte 20000"):
        Reader(checkpoint, CUDA, torch.bfloat16).all()
    assert torch.ones(3, device=CUDA).sum().item() == 3
