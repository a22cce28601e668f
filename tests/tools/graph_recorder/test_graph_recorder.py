"""The stand-in for CUDA graphs replays what was captured and no more, and refuses what no graph can hold."""

from collections.abc import Callable

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
import triton
import triton.language as tl

if DEVICE.type == "cuda":
    pytest.skip("a GPU has graphs of its own", allow_module_level=True)

from tests.tools.graph_recorder.graph_recorder import Forbidden, graphs_recorded


@triton.jit
def _add_kernel(x, y, times, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, tl.load(x + at) + times * tl.load(y + at))


@pytest.fixture(autouse=True)
def _recorded():
    with graphs_recorded():
        yield


def captured(network: Callable[[], object], pool: object | None = None) -> torch.cuda.CUDAGraph:
    """The graph of a network that has run before, as it should."""
    network()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool or torch.cuda.graph_pool_handle()):
        network()
    return graph


def test_a_capture_runs_nothing_and_a_replay_all():
    x, y, out = torch.ones(4), torch.arange(4.0), torch.zeros(4)
    calls = []

    def network():
        calls.append(1)
        between = (x * 2).add_(1)
        _add_kernel[(1,)](between[:4], y, 10, out, 4)

    graph = captured(network)
    assert out.tolist() == [3, 13, 23, 33]  # of the run before the capture
    for tensor, value in ((x, 5), (y, 1), (out, 0)):
        tensor.fill_(value)
    graph.replay()
    assert out.tolist() == [21] * 4
    graph.replay()
    assert out.tolist() == [21] * 4
    assert len(calls) == 2


def test_conversions_and_products_are_captured_in_their_parts():
    """Under inference_mode PyTorch hands them over whole, and of a conversion nobody knows if it copies."""
    x, w, out = torch.ones(2, 4), torch.arange(12.0).view(3, 4), torch.zeros(2, 3)
    with torch.inference_mode():
        graph = captured(lambda: out.copy_((x.double().float().reshape(4, 2).T.reshape(2, 4) @ w.T).to(x)))
        x.fill_(2)
        graph.replay()
    assert out[1].tolist() == [12, 44, 76]


def test_what_the_host_decided_stays_decided():
    """A number that was right while the graph was captured is what every replay multiplies by."""
    x, out, times = torch.ones(4), torch.zeros(4), [2]
    graph = captured(lambda: _add_kernel[(1,)](x, x, times[0], out, 4))
    times[0] = 7
    graph.replay()
    assert out.tolist() == [3] * 4


def test_memory_of_a_pool_holds_nothing_from_one_replay_to_the_next():
    x, out, kept = torch.ones(4), torch.zeros(4), []

    def network(first: bool):
        if first or not kept:
            kept.append(x + 1)
        out.copy_(kept[-1])

    pool = torch.cuda.graph_pool_handle()
    first = captured(lambda: network(True), pool)
    second = captured(lambda: network(False), pool)
    first.replay()
    assert out.tolist() == [2] * 4
    second.replay()
    assert out.isnan().all()


def test_a_graph_does_not_keep_what_it_reads_alive():
    held, out = [torch.ones(4)], torch.zeros(4)
    graph = captured(lambda: out.copy_(held[0][1:].expand(4, 3)[:, 0]))
    graph.replay()
    held.clear()
    with pytest.raises(Forbidden, match="memory that it uses was freed"):
        graph.replay()


def test_an_error_leaves_no_capture_behind():
    x = torch.ones(4)
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(torch.OutOfMemoryError), torch.cuda.graph(graph, pool=torch.cuda.graph_pool_handle()):
        raise torch.OutOfMemoryError
    captured(lambda: x.add_(1)).replay()
    assert x.tolist() == [3] * 4
    with pytest.raises(AssertionError, match="nothing was captured"):
        graph.replay()


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda x: x.sum().item(), "cannot look at values"),
        (lambda x: float(x[0]), "cannot look at values"),
        (lambda x: bool(x[0] > 0), "cannot look at values"),
        (lambda x: x.tolist(), "looking at values .tolist"),
        (lambda x: x.cpu(), "looking at values .cpu"),
        (lambda x: x.nonzero(), "cannot look at values"),
        (lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0]), "data of the host"),
        (lambda x: torch.cuda.synchronize(), "waiting for the device"),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_what_no_graph_can_hold_is_refused(network, said, inference):
    x = torch.ones(4)
    with torch.inference_mode(inference), pytest.raises(Forbidden, match=said):
        captured(lambda: network(x))


def test_a_kernel_that_has_not_run_yet_is_refused():
    """Its first launch compiles and loads it, and a capture is no place for that."""
    x = torch.ones(4)
    with (
        pytest.raises(Forbidden, match="_add_kernel would be compiled"),
        torch.cuda.graph(torch.cuda.CUDAGraph(), pool=torch.cuda.graph_pool_handle()),
    ):
        _add_kernel[(1,)](x, x, 1, x, 4)
