"""Keys and values in eight bits: every code, every 16-bit number, and the effect on attention.

In Triton's interpreter if there is no GPU.
"""

from dataclasses import replace

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE, wide_tiles  # must be the first import

# isort: split
import triton
import triton.language as tl

from engine.admission import Limits
from engine.engine import Engine
from engine.request import Request, SamplingParams, Token
from engine.runner import Runner
from model import backends as kernels
from model.backends.triton import triton_checks
from model.backends.triton.kernels import dense, experts_few, fp8
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.check import relative_error
from model.loading.checkpoint import Checkpoint
from model.sizes import page_bytes
from tests import tiny_checkpoint
from tests.model.paging import Paged, alone

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine

CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2, sliding_window=5)
TYPES = sorted({torch.uint8, fp8.storage(DEVICE)}, key=str)
"""The types of a cache on this machine: bytes, and the hardware's own type if there is one."""


@triton.jit
def _store_kernel(source, target, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(target + i, fp8.stored(tl.load(source + i), target.dtype.element_ty))


@triton.jit
def _load_kernel(source, target, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(target + i, fp8.numbers(tl.load(source + i), target.dtype.element_ty))


def all_codes():
    return torch.arange(256, dtype=torch.uint8, device=DEVICE)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_code_is_the_number_it_stands_for(kind, dtype):
    got = torch.full((256,), -7, dtype=dtype, device=DEVICE)
    _load_kernel[(1,)](all_codes().view(kind), got, 256)
    want = all_codes().view(torch.float8_e4m3fn).float()
    assert torch.equal(got.float().nan_to_num(nan=1e9), want.nan_to_num(nan=1e9))
    assert got.isnan().sum() == 2
    there = ~want.isnan()
    assert torch.equal(got.signbit()[there], want.signbit()[there])  # zero has two


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_number_of_sixteen_bits_goes_to_the_nearest_code(kind, dtype):
    """Halves to even; beyond 448, and infinities, to 448; otherwise as torch rounds."""
    numbers = torch.arange(2**16, device=DEVICE).to(torch.int32).to(torch.int16).view(dtype)
    got = torch.zeros(2**16, dtype=torch.uint8, device=DEVICE)
    _store_kernel[(16,)](numbers, got.view(kind), 4096)
    want = fp8.plain_stored(numbers, torch.uint8)
    broken = numbers.isnan()
    assert torch.equal(got[~broken], want[~broken])
    assert (got[broken] & 0x7F == 0x7F).all()
    assert fp8.plain_numbers(got[numbers.isinf()]).abs().unique().tolist() == [448.0]


def test_numbers_between_two_codes_go_to_the_nearer():
    """In float32, around the middle between each two neighbours: below, at, above."""
    positive = all_codes()[:127].view(torch.float8_e4m3fn).float()
    middle = (positive[1:] + positive[:-1]) / 2
    for toward, offset in ((-torch.inf, 0), (None, None), (torch.inf, 1)):
        x = middle if toward is None else torch.nextafter(middle, torch.full_like(middle, toward))
        x = torch.nn.functional.pad(x, (0, 2))
        got = torch.zeros(128, dtype=torch.uint8, device=DEVICE)
        _store_kernel[(1,)](x, got, 128)
        low = torch.arange(126, device=DEVICE)
        want = low + low % 2 if offset is None else low + offset
        assert torch.equal(got[:126].long(), want)


def test_what_is_in_the_cache_goes_in_unchanged():
    """Writing the numbers of a page again gives the same page."""
    numbers = all_codes().view(torch.float8_e4m3fn).float()
    got = torch.zeros(256, dtype=torch.uint8, device=DEVICE)
    _store_kernel[(1,)](numbers, got, 256)
    whole = ~numbers.isnan()
    assert torch.equal(got[whole], all_codes()[whole])


@pytest.fixture(scope="module", autouse=True)
def _wide_tiles():
    with wide_tiles(experts_few.GATE_UP_TILE, experts_few.DOWN_TILE, dense.ROW_TILE, dense.SMALL_TILE):
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models with the same weights and either cache, otherwise in float32."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.write(folder, config=CONFIG)
    weights = Reader(Checkpoint.open(folder), DEVICE, torch.float32).all()
    made = [TritonModel(CONFIG, weights, page_size=4, kv_cache_dtype=kept) for kept in ("bf16", "fp8")]
    for model in made:
        model.multiprocessors = 2  # a decode of one sequence splits the keys of full layers in four
    return made


def ids(length, seed):
    drawn = torch.randint(0, CONFIG.vocab_size, (length,), generator=torch.Generator().manual_seed(seed))
    return drawn.tolist()


@pytest.mark.parametrize("tokens", [1, 3, pytest.param(26, marks=pytest.mark.exhaustive)])
def test_attention_over_such_pages_is_that_over_their_numbers(models, tokens):
    """Decodes with and without splits, chunks, and the contents of the cache equal plain PyTorch."""
    with torch.inference_mode():
        for name, got, want in triton_checks._attention(triton_checks.Draw(models[1], tokens), tokens):
            assert relative_error(got, want) < 2e-3, name  # were one number in a thousand rounded otherwise


@pytest.mark.exhaustive
def test_any_chunks_are_one_sequence(models):
    """Keys and values are the same when they are written, and when a later decode or chunk reads them."""
    tokens = ids(23, 23)
    want = alone(models[1], tokens)
    for lengths in ([1, 1, 1, 17, 1, 1, 1], [18, 5], [22, 1]):
        got = Paged(models[1], [tokens], seed=len(lengths)).run(lengths)
        torch.testing.assert_close(got, want, rtol=0, atol=3e-4)


@pytest.mark.exhaustive
def test_several_sequences_in_pools_of_two_kinds_are_each_their_own(models):
    sequences = [ids(length, length) for length in (23, 14)]
    paged = Paged(models[1], sequences, seed=5)
    got = [[], []]
    for chunks in ({0: 20, 1: 3}, {1: 9, 0: 1}, {1: 1, 0: 1}, {1: 1, 0: 1}):
        for s, logits in zip(chunks, paged.step(chunks), strict=True):
            got[s].append(logits)
    for ours, tokens in zip(got, sequences, strict=True):
        torch.testing.assert_close(torch.cat(ours), alone(models[1], tokens), rtol=0, atol=3e-4)


@pytest.mark.exhaustive
def test_eight_bits_of_keys_and_values_cost_little_and_not_nothing(models):
    """The error of the tiny model's logits; docs/tuning.md has that of a trained model."""
    tokens = ids(40, 1)
    whole, eight = (alone(model, tokens) for model in models)
    assert 1e-5 < relative_error(eight, whole) < 6e-2


def test_full_pages_take_a_quarter_of_float32_and_banded_ones_all(models):
    whole, eight = (model.page_bytes for model in models)
    assert eight == (whole, whole // 4)
    cache = models[1].new_cache((3, 7))
    assert cache.num_pages == 10
    assert sum(tensor.nbytes for tensor in cache.tensors) == 3 * eight[0] + 7 * eight[1]
    assert cache.of(0)[0].shape[0] == 3
    assert cache.of(1)[1].shape[0] == 7
    assert (cache.first_page(0), cache.first_page(1)) == (0, 3)


def test_only_known_types_are_taken(models):
    with pytest.raises(ValueError, match="kept as bf16 or fp8, not 'int4'"):
        TritonModel(CONFIG, models[0].weights, kv_cache_dtype="int4")


@pytest.mark.exhaustive
def test_the_engine_says_over_two_pools_what_it_says_over_one(models):
    """With prompts in chunks and too few pages for all at once, greedy answers equal those of each request
    alone.
    """

    def said(model, num_pages, prompts):
        limits = Limits(
            num_pages=num_pages,
            page_size=model.page_size,
            window=CONFIG.sliding_window,
            max_context=CONFIG.max_context,
            max_tokens_per_step=16,
        )
        engine = Engine(Runner(model, num_pages), limits)
        for number, prompt in enumerate(prompts):
            greedy = SamplingParams(temperature=0.0)
            engine.add(Request(str(number), prompt, max_tokens=4, sampling=greedy))
        answers = {}
        while engine.busy:
            for event in engine.step():
                assert isinstance(event, Token), event
                answers.setdefault(event.request_id, []).append(event.id)
        return [answers[str(number)] for number in range(len(prompts))]

    options = {"page_size": 4, "kv_cache_dtype": "fp8", "batch_invariant": True}  # or a tie could decide
    model = TritonModel(CONFIG, models[1].weights, **options)
    prompts = [ids(length, length) for length in (19, 5, 11)]
    together = said(model, (9, 9), prompts)
    assert together == [said(model, (40, 40), [prompt])[0] for prompt in prompts]


def test_the_backend_takes_all_three_settings_together(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    tiny_checkpoint.write(tmp_path, config=CONFIG)
    options = {"dense": "int8", "kv_cache_dtype": "fp8", "batch_invariant": True}
    model = kernels.load(DEVICE, "triton").build(Checkpoint.open(tmp_path), DEVICE, **options)
    assert {name: getattr(model, name) for name in options} == options
    assert model.page_bytes == page_bytes(CONFIG, model.page_size, "fp8")
