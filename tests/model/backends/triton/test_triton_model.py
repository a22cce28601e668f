"""The whole network on the Triton kernels equals the reference however the work is divided, in the
interpreter or on a GPU.

In float32, so that only the order of sums differs.
"""

from dataclasses import replace

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE, wide_tiles  # must be the first import

# isort: split
from model import backends as kernels
from model.backends import reference
from model.backends.triton import triton_model
from model.backends.triton.kernels import dense, experts_few
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.loading.checkpoint import Checkpoint
from tests import tiny_checkpoint
from tests.model.paging import Paged, alone

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine

CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2, sliding_window=5)


def ids(length, seed):
    return torch.randint(
        0, CONFIG.vocab_size, (length,), generator=torch.Generator().manual_seed(seed)
    ).tolist()


@pytest.fixture(scope="module", autouse=True)
def _wide_tiles():
    experts = experts_few.GATE_UP_TILE, experts_few.DOWN_TILE
    with wide_tiles(*experts, dense.ROW_TILE, dense.SMALL_TILE) as patch:
        if DEVICE.type == "cpu":
            patch.setitem(dense.ROW_TILE, "BN", 128)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.write(folder, config=CONFIG)
    return Checkpoint.open(folder)


@pytest.fixture(scope="module")
def model(checkpoint):
    model = TritonModel(CONFIG, Reader(checkpoint, DEVICE, torch.float32).all(), page_size=4)
    model.multiprocessors = 2  # a decode of one sequence splits the keys of full layers in four
    return model


@pytest.fixture(scope="module")
def want(checkpoint):
    """Logits of the reference for each of three sequences alone."""
    model = reference.build(checkpoint, torch.device("cpu"), dtype=torch.float32, page_size=8)
    return [alone(model, ids(length, length)) for length in (23, 14, 19)]


@pytest.fixture
def sequences():
    return [ids(length, length) for length in (23, 14, 19)]


def assert_close(got, want):
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=3e-4)


@pytest.mark.parametrize(
    "lengths",
    [
        [23],
        pytest.param([1, 1, 1, 17, 1, 1, 1], marks=pytest.mark.exhaustive),
        pytest.param([18, 5], marks=pytest.mark.exhaustive),
    ],
)
def test_any_chunks_equal_the_reference(model, want, sequences, lengths):
    """Prompts in one or several chunks, and decodes; chunks end around the ends of pages and window."""
    assert model.splits(1) == 4
    assert model.splits(3) == 1
    assert_close(Paged(model, sequences).run(lengths), want[0])


@pytest.mark.exhaustive
def test_sequences_in_a_batch_are_each_their_own(model, want, sequences):
    """Prompts, chunks and decodes in one batch, then decodes alone."""
    paged = Paged(model, sequences, seed=5)
    got = [[], [], []]
    for chunks in ({0: 20, 1: 3}, {2: 17, 0: 1, 1: 9}, {1: 1, 2: 1, 0: 1}, {2: 1, 1: 1, 0: 1}):
        for s, logits in zip(chunks, paged.step(chunks), strict=True):
            got[s].append(logits)
    for ours, theirs in zip(got, want, strict=True):
        assert_close(torch.cat(ours), theirs)


def test_many_and_few_are_the_same_model(model, want, sequences, monkeypatch):
    """Decodes with sorted experts and the library's products, as in a batch of a hundred."""
    monkeypatch.setattr(triton_model, "FEW_FOR_EXPERTS", 0)
    monkeypatch.setattr(triton_model, "FEW_FOR_DENSE", 0)
    assert_close(Paged(model, sequences, seed=6).run([20, 1, 1, 1]), want[0])


@pytest.mark.exhaustive
def test_a_token_has_the_same_bits_alone_and_with_others_where_the_same_kernels_run(model, sequences):
    """With two and three decodes: no sum of a row depends on other rows."""
    logits = []
    for extra in ({}, {2: 1}):
        paged = Paged(model, sequences, seed=7)
        paged.step({0: 9, 1: 9, 2: 9})
        logits.append(paged.step({0: 1, 1: 1} | extra))
    assert torch.equal(logits[0][0], logits[1][0])
    assert torch.equal(logits[0][1], logits[1][1])


def test_only_samples_get_logits(model, want, sequences):
    batch = replace(Paged(model, sequences).pack({0: 6}), samples=torch.tensor([5, 4]))
    with torch.inference_mode():
        assert_close(model.forward(batch, model.new_cache(64)), want[0][[5, 4]])
        none = replace(batch, samples=torch.tensor([], dtype=torch.int64))
        assert model.forward(none, model.new_cache(64)).shape == (0, CONFIG.vocab_size)


def test_memory_is_what_the_model_says(model):
    cache = model.new_cache(7)
    assert cache.num_pages == 7
    assert cache.keys.nbytes + cache.values.nbytes == 7 * model.page_bytes
    assert model.weight_bytes == sum(
        tensor.nbytes
        for layer in model.weights.layers
        for held in (layer.mlp1, layer.mlp2, layer)
        for tensor in (getattr(held, name) for name in held.__slots__)
        if isinstance(tensor, torch.Tensor)
    ) + sum(t.nbytes for t in (model.weights.embedding, model.weights.norm, model.weights.unembedding))


def test_the_triton_backend_is_the_gpus_own():
    assert kernels.choose(torch.device("cuda")) == "triton"


def test_a_cpu_is_refused(checkpoint, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="runs on NVIDIA GPUs, not on cpu"):
        kernels.load(torch.device("cpu"), "triton").build(checkpoint, torch.device("cpu"))


def test_an_old_gpu_is_refused(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(
        ValueError, match=r"need compute capability 8\.0, and Tesla T4 has 7\.5; --backend reference"
    ):
        kernels.load(torch.device("cuda")).build(checkpoint, torch.device("cuda:0"))
