import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Tensors are tiny here: a second thread brings nothing, and costs minutes on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
