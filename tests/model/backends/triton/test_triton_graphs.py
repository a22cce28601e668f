"""Decode steps as CUDA graphs compute the same as without graphs: in the interpreter, with recorded graphs
(tests/tools/graph_recorder).

tests/gpu tests real graphs.
"""

import gc
import random
import weakref
from dataclasses import replace

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
if DEVICE.type == "cuda":
    pytest.skip("tests/gpu captures real graphs", allow_module_level=True)

from bench.synthetic import Synthetic
from engine.admission import Limits
from engine.engine import Engine
from engine.request import Request, SamplingParams, Token
from engine.runner import Runner
from model.backends.triton import graphs, triton_model
from model.backends.triton.graphs import Graphs
from model.backends.triton.kernels import dense, dense_int8, dependent_launch, experts_few, token_choice
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from tests import tiny_checkpoint
from tests.model.paging import Paged
from tests.tools.graph_recorder.graph_recorder import Capture, Graph, graphs_recorded

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine

SIZES = {
    "hidden_size": 32,
    "num_heads": 2,
    "num_kv_heads": 1,
    "intermediate_size": 32,
    "experts_per_token": 1,
}
CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2, sliding_window=7, **SIZES)
"""A very small model, because the interpreter is slow, and kernels have their own tests."""

PAGES = 16
"""Pages of a sequence in a graph's page table."""


@pytest.fixture(scope="module", autouse=True)
def _wide_tiles():
    """Reduces the number of programs and of masked lanes, for which the interpreter takes time."""
    with pytest.MonkeyPatch.context() as patch:
        for tile in (dense.ROW_TILE, dense_int8.ROW_TILE, dense.SMALL_TILE, dense_int8.SMALL_TILE):
            patch.setitem(tile, "BN", 128)
        for tile in (experts_few.GATE_UP_TILE, experts_few.DOWN_TILE):
            patch.setitem(tile, "BN", 64)
            patch.setitem(tile, "BW", 16)
        patch.setattr(token_choice, "BLOCK", 256)
        patch.setattr(token_choice, "PASS", 256)
        for name in ("gdc_launch_dependents", "gdc_wait"):
            patch.setattr(dependent_launch, name, lambda: None)
        patch.setattr(triton_model, "KEYS_OF_A_PART", 64)
        yield


@pytest.fixture(autouse=True)
def _recorded():
    Graph.replays = 0
    with graphs_recorded():
        yield


def model_of(dense_format="bf16", **options):
    weights = Reader(Synthetic(CONFIG), DEVICE, torch.float32, dense_format).all()
    model = TritonModel(CONFIG, weights, page_size=4, **options)
    model.multiprocessors = 2  # a decode of one sequence splits the keys of full layers in four
    return model


def capturing(model, network=None):
    """The model with graphs, of its network or of another one."""
    model.graphs = Graphs(network or model.network, DEVICE, PAGES, CONFIG.vocab_size)
    return model


@pytest.fixture
def model():
    return model_of()


def sequences(count, seed=0):
    draw = random.Random(seed)
    return [[draw.randrange(200) for _ in range(draw.randint(22, 30))] for _ in range(count)]


def padded(model, paged, chunks):
    """Logits of the next decode step, computed with the kernels that a graph of its size has."""
    batch = paged.pack(chunks)
    static = graphs.blank(graphs.size_for(len(chunks)), PAGES, DEVICE)
    graphs.stage(batch, static)
    with torch.inference_mode():
        return model.network(static, paged.cache)[: len(chunks)]


def both(model, count, seed=0):
    """Two equal caches after prompts: one for steps with graphs, one for steps without."""
    found = [Paged(model, sequences(count, seed), seed) for _ in range(2)]
    for paged in found:
        paged.step({s: 3 + 2 * s % 9 for s in range(count)})
    return found


@pytest.mark.exhaustive
def test_any_number_of_rows_and_any_pages_have_the_logits_of_their_kernels(model):
    """With nine sequences: one to nine rows, growing contexts, in changing order."""
    capturing(model)
    ours, theirs = both(model, 9)
    draw = random.Random(1)
    for rows in (1, 2, 3, 5, 8, 9, 3, 1):
        chunks = dict.fromkeys(draw.sample(range(9), rows), 1)
        got, want = torch.cat(ours.step(chunks)), padded(model, theirs, chunks)
        assert torch.equal(got, want), rows
        assert got.isfinite().all()
        for mine, yours in zip(ours.cache.tensors, theirs.cache.tensors, strict=True):
            ours_written, theirs_written = mine.isfinite(), yours.isfinite()
            assert torch.equal(mine[ours_written & theirs_written], yours[ours_written & theirs_written])
    assert Graph.replays == 8


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("dense_format", "options", "overlapping"),
    [
        ("int8", {"kv_cache_dtype": "fp8"}, False),
        ("bf16", {}, True),
        ("int8", {"batch_invariant": True}, False),
    ],
    ids=["eight bits", "kernels that begin early", "invariant"],
)
def test_every_option_can_be_captured(dense_format, options, overlapping):
    model = capturing(model_of(dense_format, **options))
    model.pdl = overlapping
    ours, theirs = both(model, 3)
    for chunks in ({0: 1}, {2: 1, 0: 1, 1: 1}, {1: 1}):
        assert torch.equal(torch.cat(ours.step(chunks)), padded(model, theirs, chunks))
    assert Graph.replays == 3


def test_a_decode_step_is_six_kernels_a_layer(model):
    """With one sequence, whose keys are split in full layers."""
    assert model.splits(1) > 1
    capturing(model)
    paged = Paged(model, sequences(1))
    paged.step({0: 3})
    paged.step({0: 1})
    graph, *_ = model.graphs._captured[1]
    embedding, unembedding = 1, 1
    assert len(graph) == embedding + 6 * CONFIG.num_layers + unembedding


def test_a_decode_step_of_many_sequences_is_ten_kernels_a_layer(model, monkeypatch):
    """Norm, QKV, attention, output with residual; norm, the experts' logits, choice and order, gate and up,
    down, sum."""
    monkeypatch.setattr(triton_model, "FEW_FOR_DENSE", 0)
    monkeypatch.setattr(triton_model, "FEW_FOR_EXPERTS", 0)
    capturing(model)
    paged = Paged(model, sequences(1))
    paged.step({0: 3})
    paged.step({0: 1})
    graph, *_ = model.graphs._captured[1]
    embedding, unembedding = 1, 1
    assert len(graph) == embedding + 10 * CONFIG.num_layers + unembedding


def test_chunks_and_batches_that_are_too_large_go_without(model, monkeypatch):
    capturing(model)
    monkeypatch.setattr(graphs, "SIZES", (1, 2))
    paged = Paged(model, sequences(3))
    paged.step({0: 3, 1: 1})
    paged.step({0: 1, 1: 1, 2: 1})
    assert Graph.replays == 0
    paged.step({0: 1, 1: 1})
    assert Graph.replays == 1


@pytest.mark.exhaustive
def test_another_cache_has_other_graphs_and_the_old_one_is_let_go(model):
    capturing(model)
    logits = []
    for _ in range(2):
        paged = Paged(model, sequences(2))
        paged.step({0: 5, 1: 3})
        logits.append(torch.cat(paged.step({0: 1, 1: 1})))
        assert len(model.graphs._captured) == 1
        old = weakref.ref(paged.cache.keys)
    assert torch.equal(*logits)
    model.graphs.forget()
    del paged
    gc.collect()
    assert old() is None


@pytest.mark.exhaustive
@pytest.mark.parametrize("captured", [False, True], ids=["while it is captured", "while it is made"])
def test_without_memory_for_a_graph_the_step_goes_without_and_others_have_theirs(
    model, captured, monkeypatch, caplog
):
    """Memory runs out for the graph of two rows: in the middle of its capture, when PyTorch allocates, or
    at its end, when the driver does, with another kind of error."""
    tried = []

    def network(batch, cache, logits):
        rows = len(batch.tokens)
        tried.append(rows)
        if rows == 2 and tried.count(2) == 2 and not captured:  # the first was before the capture
            model.network(replace(batch, samples=batch.samples[:0]), cache, logits[:0])
            raise torch.OutOfMemoryError("no memory")
        return model.network(batch, cache, logits)

    def close(self, *error):
        Capture.__exit__(self, *error)
        if captured and tried[-1] == 2:
            raise RuntimeError("CUDA error: out of memory\nand more")

    monkeypatch.setattr(torch.cuda, "graph", type("Closing", (Capture,), {"__exit__": close}))
    capturing(model, network)
    ours, theirs = both(model, 3)
    for chunks in ({0: 1, 1: 1}, {0: 1}, {1: 1, 2: 1}, {0: 1, 1: 1, 2: 1}):
        got, want = torch.cat(ours.step(chunks)), padded(model, theirs, chunks)
        assert torch.equal(got, want)
    assert tried == [2, 2, 1, 1, 4, 4]
    assert Graph.replays == 2
    assert "no memory for a CUDA graph of 2 rows" in caplog.text


@pytest.mark.exhaustive
def test_what_a_server_needs_is_captured_at_the_start_and_nothing_later(model, monkeypatch):
    """The largest is first, because the others fit into its memory.  Later steps only replay."""
    monkeypatch.setattr(graphs, "SIZES", (1, 2, 4, 5))
    tried = []

    def network(batch, cache, logits):
        tried.append(len(batch.tokens))
        return model.network(batch, cache, logits)

    capturing(model, network)
    ours, theirs = both(model, 3)
    model.prepare(ours.cache, 3)
    assert tried == [4, 4, 2, 2, 1, 1]
    for chunks in ({0: 1}, {0: 1, 1: 1}, {0: 1, 1: 1, 2: 1}):
        assert torch.equal(torch.cat(ours.step(chunks)), padded(model, theirs, chunks))
    assert len(tried) == 6
    assert Graph.replays == 3
    model.prepare(ours.cache, 10_000)  # more than any graph has
    assert tried[6] == graphs.SIZES[-1]


@pytest.mark.parametrize("error", ["out of memory", "another"])
def test_a_capture_that_fails_at_its_end_gives_the_stream_back(error, monkeypatch):
    """torch.cuda.graph then leaves its own stream current, and later work ran there without waiting."""
    mine, captures = object(), object()
    now = [mine]

    class Failing:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            now[0] = captures

        def __exit__(self, *_):
            raise RuntimeError(f"CUDA error: {error}")

    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: now[0])
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: now.__setitem__(0, stream))
    monkeypatch.setattr(torch.cuda, "graph", Failing)
    monkeypatch.setattr(graphs, "blank", lambda size, pages, device: None)
    some = Graphs(lambda *_: None, cuda, PAGES, CONFIG.vocab_size)
    monkeypatch.setattr(some, "_logits_of", lambda size: None)
    if error == "another":
        with pytest.raises(RuntimeError, match="another"):
            some.prepare(None, 1)
    else:
        some.prepare(None, 1)
    assert now == [mine]


def test_any_other_error_of_a_capture_is_told(model):
    def network(batch, cache, logits):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    capturing(model, network)
    paged = Paged(model, sequences(1))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        paged.step({0: 1})


LIMITS = Limits(num_pages=60, page_size=4, window=7, max_context=60, max_running=3, max_tokens_per_step=30)
REQUESTS = {
    "greedy": SamplingParams(temperature=0),
    "sampled": SamplingParams(temperature=1.5, seed=5),
    "nucleus": SamplingParams(temperature=1.5, top_p=0.8, top_k=100, seed=-7),
    "penalised": SamplingParams(temperature=1.0, repetition_penalty=1.5, frequency_penalty=0.5, seed=2),
}


def said(model, overlaps):
    """The engine's answers: the first two requests at once, each of the others one step later."""
    engine = Engine(Runner(model, LIMITS.num_pages, banned=[0, 5, 210], overlaps=overlaps), LIMITS)
    arriving = [
        Request(id, [(7 * i + n) % 200 for i in range(3 * n + 2)], 4 + n % 2, sampling=params)
        for n, (id, params) in enumerate(REQUESTS.items())
    ]
    tokens: dict[str, list[int]] = {id: [] for id in REQUESTS}
    while engine.busy or arriving:
        for request in arriving[: 1 if tokens["greedy"] else 2]:
            engine.add(request)
            arriving.remove(request)
        for event in engine.step():
            assert isinstance(event, Token), event
            tokens[event.request_id].append(event.id)
    assert engine.stats().pages_free == LIMITS.num_pages
    return tokens


@pytest.mark.exhaustive
def test_the_engine_says_with_graphs_what_it_says_without(model):
    """With and without overlapping steps."""
    want = said(model, overlaps=False)
    assert Graph.replays == 0
    capturing(model)
    assert said(model, overlaps=False) == want
    assert Graph.replays > 3
    assert len(model.graphs._captured) > 1
    assert said(model, overlaps=True) == want
