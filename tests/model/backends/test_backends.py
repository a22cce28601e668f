"""How a backend is chosen."""

import importlib

import pytest
import torch

from model import backends as kernels
from model.backends import reference


def test_a_backend_is_found_by_name():
    assert kernels.load(torch.device("cpu"), "reference") is reference


def test_a_device_without_kernels_of_its_own_runs_the_reference():
    assert kernels.load(torch.device("meta")) is reference


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no backend 'cuda11'; there are reference"):
        kernels.load(torch.device("cpu"), "cuda11")


def test_a_backend_that_cannot_be_imported_stops_the_program(monkeypatch):
    """No silent slow path."""

    def broken(name: str):
        raise ImportError(f"{name} does not run on this processor")

    monkeypatch.setattr(kernels, "import_module", broken)
    with pytest.raises(ImportError, match="does not run on this processor"):
        kernels.load(torch.device("cpu"))


@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_every_backend_can_be_built(backend):
    assert callable(importlib.import_module(f"model.backends.{backend}").build)
