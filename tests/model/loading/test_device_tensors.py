"""`Checkpoint.onto` gives the same tensors as `Checkpoint.read`; an error names the file."""

import json
import os
import threading
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.config import CheckpointError
from model.loading import upload
from model.loading.checkpoint import Checkpoint
from model.loading.upload import Uploads
from tests.tiny_checkpoint import LAYOUTS, write

CPU = torch.device("cpu")


@pytest.fixture
def pieces(monkeypatch):
    """Uses small pieces, which divide hardly any tensor evenly, and little read-ahead."""
    monkeypatch.setattr("model.loading.checkpoint.Uploads", partial(Uploads, threads=3, piece_bytes=1000))
    monkeypatch.setattr(upload, "AHEAD_BYTES", 5000)


def arrived(checkpoint):
    with checkpoint.onto(CPU) as tensors:
        return {name: tensors.read(name) for name in checkpoint.names}


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_arrives_on_a_device_is_what_is_read(layout, tmp_path):
    write(tmp_path, layout, seed=4)
    got, checkpoint = arrived(Checkpoint.open(tmp_path)), Checkpoint.open(tmp_path)
    for name in checkpoint.names:
        want = checkpoint.read(name)
        assert got[name].dtype == want.dtype, name
        assert torch.equal(got[name], want), name


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("shift", range(9))
def test_tensors_of_any_type_and_alignment_arrive(shift, tmp_path):
    """q is float32, k float16, v bfloat16, and all later tensors begin at odd offsets in the file."""
    write(tmp_path, "hf")
    for file in tmp_path.glob("*.safetensors"):
        tensors = load_file(file)
        for name in tensors:
            for kind, dtype in (("q_proj", torch.float32), ("k_proj", torch.float16)):
                if kind in name:
                    tensors[name] = (
                        torch.linspace(-3, 3, tensors[name].numel()).view_as(tensors[name]).to(dtype)
                    )
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, file)
        whole = file.read_bytes()
        header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
        text = json.dumps(header).encode() + b" " * shift
        data = whole[8 + int.from_bytes(whole[:8], "little") :]
        file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    got, checkpoint = arrived(Checkpoint.open(tmp_path)), Checkpoint.open(tmp_path)
    assert checkpoint.read("block.0.attn.qkv.weight").dtype == torch.bfloat16
    for name in checkpoint.names:
        assert torch.equal(got[name], checkpoint.read(name)), name


def test_what_has_arrived_may_be_written_to(tmp_path):
    """Its memory is neither a mapped file's nor another tensor's."""
    write(tmp_path, "hf_bf16")
    checkpoint = Checkpoint.open(tmp_path)
    before = {name: checkpoint.read(name).clone() for name in checkpoint.names}
    with checkpoint.onto(CPU) as tensors:
        for name in checkpoint.names:
            tensors.read(name).view(torch.uint8).zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in arrived(checkpoint).items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in before.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_progress_onto_a_device_is_told_in_order_by_who_asks(layout, tmp_path):
    write(tmp_path, layout)
    told = []
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.on_read = lambda size: told.append((size, threading.current_thread()))
    sizes = [tensor.nbytes for tensor in arrived(checkpoint).values()]
    assert told == [(size, threading.current_thread()) for size in sizes]


def test_a_file_cut_short_after_it_was_opened_is_named(tmp_path):
    write(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    file = tmp_path / "model.safetensors"
    os.truncate(file, 20_000)
    with pytest.raises(CheckpointError) as refused:
        arrived(checkpoint)
    assert str(refused.value) == f"{file} cannot be read: it ends at byte 20000, in the middle of a tensor"


def test_a_file_taken_away_after_it_was_opened_is_named(tmp_path):
    write(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors cannot be read: No such file or directory"
    ):
        arrived(checkpoint)


def test_tensors_in_another_order_are_a_mistake(tmp_path):
    write(tmp_path)
    with (
        Checkpoint.open(tmp_path).onto(CPU) as tensors,
        pytest.raises(AssertionError, match="embedding"),
    ):
        tensors.read("norm.scale")
