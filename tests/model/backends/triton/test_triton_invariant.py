"""`--batch-invariant`: a token's logits are bit-identical whatever else is computed with it.

In Triton's interpreter if there is no GPU.  This does not prove everything, because the interpreter's
products are NumPy's; tests/gpu has the same tests for a real GPU.
"""

from dataclasses import replace

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
from model import backends as kernels
from model.backends import reference
from model.backends.triton import graphs, triton_checks, triton_model
from model.backends.triton.kernels import dense, dense_int8, experts_few
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.loading.checkpoint import Checkpoint
from tests import tiny_checkpoint
from tests.model.paging import Paged, alone

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine

CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2, sliding_window=5, initial_context_length=64)
LENGTHS = (80, 14, 19)
"""The first is longer than one part of keys."""


def ids(length, seed):
    drawn = torch.randint(0, CONFIG.vocab_size, (length,), generator=torch.Generator().manual_seed(seed))
    return drawn.tolist()


SEQUENCES = [ids(length, length) for length in LENGTHS]


@pytest.fixture(scope="module", autouse=True)
def _short_parts_and_wide_tiles():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_model, "KEYS_OF_A_PART", 64)
        patch.setattr(triton_checks, "KEYS_OF_A_PART", 128)
        if DEVICE.type == "cpu":  # the interpreter takes time for each program
            tiles = (experts_few.GATE_UP_TILE, experts_few.DOWN_TILE, dense.ROW_TILE, dense_int8.ROW_TILE)
            for tile in (*tiles, dense.SMALL_TILE, dense_int8.SMALL_TILE):
                patch.setitem(tile, "BN", 64)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.write(folder, config=CONFIG)
    return folder


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("bf16", "bf16"), id="16 bits"),
        pytest.param(("int8", "fp8"), id="8 bits", marks=pytest.mark.exhaustive),
    ],
)
def model(request, folder):
    dense, kept = request.param
    weights = Reader(Checkpoint.open(folder), DEVICE, torch.float32, dense).all()
    return TritonModel(CONFIG, weights, page_size=4, kv_cache_dtype=kept, batch_invariant=True)


@pytest.fixture(scope="module")
def want(model):
    """Logits of each sequence alone, with its prompt in one chunk."""
    return [alone(model, tokens) for tokens in SEQUENCES]


@pytest.mark.exhaustive
def test_it_computes_what_the_reference_does(folder):
    weights = Reader(Checkpoint.open(folder), DEVICE, torch.float32).all()
    ours = TritonModel(CONFIG, weights, page_size=4, batch_invariant=True)
    theirs = reference.build(Checkpoint.open(folder), torch.device("cpu"), dtype=torch.float32, page_size=8)
    for tokens in SEQUENCES:
        torch.testing.assert_close(alone(ours, tokens).cpu(), alone(theirs, tokens), rtol=0, atol=3e-4)


@pytest.mark.parametrize("tokens", [1, pytest.param(26, marks=pytest.mark.exhaustive)])
def test_its_kernels_compute_what_plain_pytorch_does(model, tokens):
    with torch.inference_mode():
        for check in triton_checks.checks(model, [tokens], seed=tokens):
            assert check.passed, check


@pytest.mark.exhaustive
@pytest.mark.parametrize("lengths", [[50, 30], [1, 62, 1, 1, 15]])
def test_a_prompt_in_pieces_has_the_bits_of_the_whole(model, want, lengths):
    assert torch.equal(Paged(model, SEQUENCES[:1], seed=1).run(lengths), want[0])


@pytest.mark.exhaustive
def test_a_token_has_the_same_bits_in_any_company(model, want):
    """Prompts, chunks and decodes in one batch, in another order each time, then decodes alone."""
    paged = Paged(model, SEQUENCES, seed=5)
    got = [[], [], []]
    for chunks in (
        {0: 60, 1: 3},
        {2: 17, 0: 1, 1: 9},
        {1: 1, 2: 1, 0: 17},
        {0: 1, 1: 1, 2: 1},
        {0: 1},
    ):
        for s, logits in zip(chunks, paged.step(chunks), strict=True):
            got[s].append(logits)
    for ours, theirs in zip(got, want, strict=True):
        assert torch.equal(torch.cat(ours), theirs)


@pytest.mark.exhaustive
def test_rows_that_fill_up_a_graph_change_nothing(model):
    """They write nothing, and the logits of other rows are bit-identical."""
    logits, caches = [], []
    for size in (2, 4):
        paged = Paged(model, SEQUENCES[:2], seed=3)
        paged.step({0: 66, 1: 9})
        batch = paged.pack({0: 1, 1: 1})
        batch = replace(
            batch, page_table=torch.where(batch.page_table < paged.cache.num_pages, batch.page_table, 0)
        )
        static = graphs.blank(size, 24, DEVICE)
        graphs.stage(batch, static)
        with torch.inference_mode():
            logits.append(model.network(static, paged.cache)[:2])
        caches.append(paged.cache.tensors)
    assert torch.equal(*logits)
    assert logits[0].isfinite().all()
    for few, many in zip(*caches, strict=True):
        assert torch.equal(few.view(torch.uint8), many.view(torch.uint8))


@pytest.mark.exhaustive
def test_without_it_the_number_of_rows_decides(folder):
    """Otherwise this file would prove nothing: one row is computed by other kernels than three."""
    weights = Reader(Checkpoint.open(folder), DEVICE, torch.float32).all()
    plain = TritonModel(CONFIG, weights, page_size=4)
    together = Paged(plain, SEQUENCES, seed=5)
    apart = Paged(plain, SEQUENCES, seed=5)
    for paged in (together, apart):
        paged.step({0: 9, 1: 9, 2: 9})
    got = together.step({0: 1, 1: 1, 2: 1})
    assert not all(torch.equal(got[s], apart.step({s: 1})[0]) for s in range(3))


def test_the_cpu_takes_the_setting_and_always_keeps_it(folder):
    cpu = torch.device("cpu")
    backend = kernels.load(cpu, "cpu")
    checkpoint = Checkpoint.open(folder)
    try:
        asked = backend.build(checkpoint, cpu, threads=1, batch_invariant=True)
    except ImportError as missing:
        pytest.skip(str(missing))
    plain = backend.build(checkpoint, cpu, threads=1)
    tokens = SEQUENCES[1]
    assert torch.equal(alone(asked, tokens), Paged(plain, [tokens]).run([5, 1, 8]))
