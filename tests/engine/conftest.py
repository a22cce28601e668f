from functools import partialmethod

import pytest
import torch

from engine.runner import Runner


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Tensors are tiny here: a second thread brings nothing, and costs minutes on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["in turn", "overlapped"])
def order(request, monkeypatch):
    """Every test of the module twice: each step read before the next is planned, and launched ahead.

    On a CPU a step that is launched is done at once, but its tokens are not looked at before it is read.
    """
    if request.param == "overlapped":
        monkeypatch.setattr(Runner, "__init__", partialmethod(Runner.__init__, overlaps=True))
