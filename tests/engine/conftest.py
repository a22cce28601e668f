from functools import partialmethod

import pytest
import torch

from engine.runner import Runner


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Tensors are tiny here, so a second thread would only cost time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["in turn", "overlapped"])
def order(request, monkeypatch):
    """Runs every test of a module twice: without overlap, and with steps that are launched ahead.

    On a CPU a launched step is computed at once, but its tokens are not used before it is read.
    """
    if request.param == "overlapped":
        monkeypatch.setattr(Runner, "__init__", partialmethod(Runner.__init__, overlaps=True))
