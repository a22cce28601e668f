"""How a backend is chosen, and whether its facts about itself are true."""

import inspect

import pytest
import torch

from model import backends as kernels
from model.backends import cpu, reference, triton
from model.check import SMALL
from model.loading.synthetic import Synthetic


def test_a_backend_is_found_by_name():
    assert kernels.load(torch.device("cpu"), "reference") is reference.BACKEND


def test_a_device_without_kernels_of_its_own_runs_the_reference():
    assert kernels.load(torch.device("meta")) is reference.BACKEND


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no backend 'cuda11'; there are reference"):
        kernels.load(torch.device("cpu"), "cuda11")


def test_a_backend_that_cannot_be_imported_stops_the_program(monkeypatch):
    """No other backend is used silently."""

    def broken(name: str):
        raise ImportError(f"{name} does not run on this processor")

    monkeypatch.setattr(kernels, "import_module", broken)
    with pytest.raises(ImportError, match="does not run on this processor"):
        kernels.load(torch.device("cpu"))


@pytest.mark.parametrize("module", [reference, cpu, triton])
def test_its_settings_and_their_defaults_are_those_of_its_build(module):
    parameters = inspect.signature(module.build).parameters
    assert kernels.load(torch.device("cpu"), module.BACKEND.name) is module.BACKEND
    for name, default in module.BACKEND.defaults.items():
        assert parameters[name].default == default, name


@pytest.mark.parametrize("backend", [reference.BACKEND, cpu.BACKEND])
def test_a_model_is_as_its_backend_said(backend):
    model = backend.build(Synthetic(SMALL), torch.device("cpu"))
    assert model.page_size == backend.page_size
    for name, value in model.settings.items():
        default = backend.defaults.get(name)
        assert default is None or value == default
    longer = model.decode_bytes(100) - model.decode_bytes(99)
    full_layers = SMALL.num_layers // 2
    assert longer == full_layers * 2 * SMALL.num_kv_heads * SMALL.head_dim * torch.bfloat16.itemsize
