"""A rank reads its part of a checkpoint, in every layout, and no bytes of another part."""

import os
from collections import Counter
from dataclasses import replace

import pytest
import torch

from model.loading.checkpoint import Checkpoint
from model.loading.part import Part, cuts
from model.loading.shards import open_all
from model.loading.tensors import shapes
from model.parallel.ranks import Ranks
from tests import tiny_checkpoint

CPU = torch.device("cpu")
CONFIG = replace(tiny_checkpoint.CONFIG, num_heads=12, num_kv_heads=4, num_experts=8)
SIZES = (1, 2, 4)

ON_EVERY_RANK = ("norm", "router", "gate.")
"""Endings of the names of tensors that every rank has completely."""


@pytest.fixture(scope="module", params=tiny_checkpoint.LAYOUTS)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tiny_checkpoint.write(folder, request.param, CONFIG, seed=7)
    return Checkpoint.open(folder)


@pytest.mark.parametrize("size", SIZES)
def test_the_parts_of_files_are_the_parts_of_whole_tensors(checkpoint, size):
    for ranks in (Ranks(rank, size) for rank in range(size)):
        part, whole = checkpoint.part(ranks), Part(checkpoint, ranks)
        assert part.config == whole.config == ranks.config(CONFIG)
        for name, cut in cuts(CONFIG, ranks).items():
            got, want = part.read(name), whole.read(name)
            assert got.dtype == want.dtype, name
            assert got.shape == want.shape == cut.shape, name
            assert torch.equal(got, want), name


@pytest.mark.parametrize("size", SIZES)
def test_they_are_the_same_on_a_device(checkpoint, size):
    part = checkpoint.part(Ranks(size - 1, size))
    read = {name: part.read(name).clone() for name in part.names}
    told = []
    part = checkpoint.part(Ranks(size - 1, size))
    part.on_read = told.append
    with part.onto(CPU) as tensors:
        for name in part.names:
            assert torch.equal(tensors.read(name), read[name]), name
    assert sum(told) == part.nbytes == sum(tensor.nbytes for tensor in read.values())
    with Part(checkpoint, Ranks(size - 1, size)).onto(CPU) as tensors:
        for name in part.names:
            assert torch.equal(tensors.read(name), read[name]), name


def test_the_sizes_of_a_part_are_those_of_a_smaller_model(checkpoint):
    """Except for the router.  So a backend needs no other information."""
    for name, shape in shapes(Ranks(1, 2).config(CONFIG)).items():
        read = tuple(checkpoint.part(Ranks(1, 2)).read(name).shape)
        assert read == (shape if ".gate." not in name else shapes(CONFIG)[name]), name


@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.exhaustive), 4])
def test_each_byte_is_read_by_one_rank(checkpoint, size, monkeypatch):
    """Counted where files are read; for experts that are encoded first, where they are mapped."""
    taken: Counter[tuple[str, int]] = Counter()
    preadv = os.preadv

    def counting(file, buffers, offset):
        count = preadv(file, buffers, offset)
        path = os.readlink(f"/proc/self/fd/{file}")
        taken.update((path, byte) for byte in range(offset, offset + count))
        return count

    monkeypatch.setattr(os, "preadv", counting)
    for rank in range(size):
        part = checkpoint.part(Ranks(rank, size))
        with part.onto(CPU) as tensors:
            for name in part.names:
                tensors.read(name)
        for recipe in part._recipes.values():
            if recipe.encoded == 0:
                (held,) = (part._stored[piece] for piece in recipe.parts)
                taken.update((str(held.path), byte) for byte in range(held.begin, held.begin + held.nbytes))

    for name, stored in open_all(checkpoint.folder).items():
        times = {taken[str(stored.path), stored.begin + byte] for byte in range(stored.nbytes)}
        once = not any(word in name for word in ON_EVERY_RANK)
        assert times == {1 if once else size}, name


def test_a_matrix_in_columns_is_read_across_pieces(tmp_path, monkeypatch):
    """Rows end within pieces of an upload, and pieces end within rows."""
    from model.loading import upload

    tiny_checkpoint.write(tmp_path, "original", CONFIG)
    part = Checkpoint.open(tmp_path).part(Ranks(3, 4))
    want = {name: part.read(name).clone() for name in part.names}
    init = upload.Uploads.__init__
    monkeypatch.setattr(
        upload.Uploads, "__init__", lambda self, regions, channel: init(self, regions, channel, 3, 1000)
    )
    with part.onto(CPU) as tensors:
        for name in part.names:
            assert torch.equal(tensors.read(name), want[name]), name
