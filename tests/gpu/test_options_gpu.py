"""Eight bits and batch invariance on a real GPU: real sizes, random inputs, outputs filled with NaN before.

python -m pytest -m gpu tests/gpu
"""

import gc
import time
from dataclasses import replace

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("there is no GPU that torch can use", allow_module_level=True)
pytest.importorskip("triton", reason="Triton is not installed")

from bench.gpu.load import Decode, Random
from model.backends.triton import graphs, triton_checks
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.loading.synthetic import SIZES
from tests.model.paging import Paged

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

CUDA = torch.device("cuda", 0)
SEED = int(time.time())
TWO_LAYERS = replace(SIZES["20b"], num_layers=2)

OPTIONS = {
    "dense int8": ("int8", {}),
    "fp8 cache": ("bf16", {"kv_cache_dtype": "fp8"}),
    "both": ("int8", {"kv_cache_dtype": "fp8"}),
    "invariant": ("bf16", {"batch_invariant": True}),
    "both, invariant": ("int8", {"kv_cache_dtype": "fp8", "batch_invariant": True}),
}


@pytest.fixture(scope="module", params=OPTIONS.values(), ids=OPTIONS)
def model(request):
    """The real sizes of 20b, with two layers."""
    dense, options = request.param
    with torch.inference_mode():
        weights = Reader(Random(TWO_LAYERS, seed=SEED), CUDA, torch.bfloat16, dense).all()
        yield TritonModel(TWO_LAYERS, weights, **options)
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize("tokens", [*triton_checks.TOKENS, 8, 17, 64, 2048])
def test_kernels_compute_what_plain_pytorch_does(model, tokens):
    with torch.inference_mode():
        for check in triton_checks.checks(model, [tokens], seed=SEED + tokens):
            assert check.passed, (SEED, check)


@pytest.mark.parametrize("rows", [1, 3, 13])
def test_a_graph_computes_what_its_kernels_do(model, rows):
    decode = Decode(model, rows, 500)
    with torch.inference_mode():
        for turn in (0, 1, 0):
            got = model.forward(decode.batch(turn), decode.cache).clone()
            padded = graphs.blank(graphs.size_for(rows), 64, CUDA)
            graphs.stage(decode.batch(turn), padded)
            assert got.isfinite().all()
            assert torch.equal(got, model.network(padded, decode.cache)[:rows])
    decode.close()


def on_gpu(paged):
    """Batches of `paged` on the GPU; out-of-range page numbers stay unchanged."""
    pack = paged.pack

    paged.pack = lambda chunks: pack(chunks).to(CUDA)
    return paged


def test_a_token_has_the_same_bits_alone_in_company_and_in_pieces(model):
    """With and without graphs, after more than a page, a window and a part of keys."""
    if not model.batch_invariant:
        pytest.skip("it is not asked to be")
    noise = torch.Generator().manual_seed(SEED)
    lengths = (700, 300, 33)
    sequences = [torch.randint(0, 200_000, (n,), generator=noise).tolist() for n in lengths]
    want = [on_gpu(Paged(model, [tokens])).run([len(tokens)]) for tokens in sequences]
    paged = on_gpu(Paged(model, sequences, seed=5))
    got: list[list[torch.Tensor]] = [[], [], []]
    for chunks in (
        {0: 513, 1: 3},
        {2: 31, 0: 1, 1: 260},
        {1: 1, 2: 1, 0: 150},
        {0: 1, 1: 1, 2: 1},
        {0: 35, 1: 35},
    ):
        for s, logits in zip(chunks, paged.step(chunks), strict=True):
            got[s].append(logits.clone())
    for s, parts in enumerate(got):
        assert torch.equal(torch.cat(parts), want[s]), f"sequence {s}, seed {SEED}"
