"""Every source of tensors gives the same names, shapes and types."""

import pytest
import torch

from bench.synthetic import write
from model.loading.checkpoint import Checkpoint
from model.loading.synthetic import Synthetic
from model.loading.tensors import dtype, nbytes, shapes
from tests.tiny_checkpoint import CONFIG

CPU = torch.device("cpu")


@pytest.fixture(params=["folder", "random"])
def source(request, tmp_path):
    if request.param == "folder":
        write(tmp_path, Synthetic(CONFIG))
        return Checkpoint.open(tmp_path)
    return Synthetic(CONFIG)


def test_each_tensor_has_its_shape_and_type(source):
    for name, shape in shapes(source.config).items():
        tensor = source.read(name)
        assert (tensor.shape, tensor.dtype) == (shape, dtype(name)), name
        assert tensor.nbytes == nbytes(name, shape)


def test_what_arrives_on_a_device_is_what_is_read():
    source = Synthetic(CONFIG)
    with source.onto(CPU) as tensors:
        for name in shapes(CONFIG):
            assert torch.equal(tensors.read(name), source.read(name))


def test_the_bytes_announced_are_those_read(source):
    seen = []
    source.on_read = seen.append
    for name in source.names:
        source.read(name)
    assert sum(seen) == source.nbytes
