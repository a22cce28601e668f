"""The whole network on the CPU kernels equals the reference, and is bit-identical however the work is
divided.

All sizes differ; sequences are longer than window, segments and pages; pages are scattered and contain NaN
before.
"""

from dataclasses import replace

import pytest
import torch

from bench.synthetic import Synthetic
from model.backends import load
from model.backends.cpu import build
from model.backends.reference.arithmetic import Arithmetic
from model.backends.reference.gpt_oss import GptOss
from model.batch import Batch
from model.config import CheckpointError
from model.loading.checkpoint import Checkpoint
from tests import tiny_checkpoint
from tests.model.backends.cpu.cpu_steps import ISAS, Machine

CPU = torch.device("cpu")
PAGE = 32
PAGES = 131


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.write(folder, config=replace(tiny_checkpoint.CONFIG, num_layers=4))
    return Checkpoint.open(folder)


@pytest.fixture(params=ISAS)
def isa(request):
    if request.param not in Machine.available():
        pytest.skip(f"this processor cannot run {request.param}")
    return request.param


class Book:
    """Random sequences, their pages, and batches of their chunks."""

    def __init__(self, config, lengths, seed=0):
        random = torch.Generator().manual_seed(seed)
        self.tokens = [torch.randint(0, config.vocab_size, (n,), generator=random) for n in lengths]
        self.width = max(-(-n // PAGE) for n in lengths)
        pages = torch.randperm(PAGES, generator=random)[: 2 * len(lengths) * self.width]
        self.table = pages.view(2, len(lengths), self.width).int()

    def batch(self, chunks, samples=None, prompts=None):
        """chunks [(sequence, first, length)]; samples: rows, or None for all; prompts: how long each is."""
        return Batch.of(
            [(first, length) for _, first, length in chunks],
            self.table[:, [s for s, _, _ in chunks]],
            PAGE,
            tokens=torch.cat([self.tokens[s][first : first + n] for s, first, n in chunks]),
            samples=torch.arange(sum(n for _, _, n in chunks)) if samples is None else torch.tensor(samples),
            prompts=prompts and torch.tensor([prompts[s] for s, _, _ in chunks], dtype=torch.int32),
        )


def fresh(model):
    cache = model.new_cache(PAGES)
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    return cache


class RoundedCache(Arithmetic):
    """The reference in float32, with keys and values in bfloat16."""

    def write_kv(self, key, value, keys, values, slots):
        super().write_kv(key.bfloat16().float(), value.bfloat16().float(), keys, values, slots)


def errors(got, want):
    return (got - want).norm(dim=-1) / want.norm(dim=-1)


@pytest.fixture(scope="module")
def expected(checkpoint):
    """A batch of maximum length, and its logits."""
    book = Book(checkpoint.config, [64, 40, 1])
    batch = book.batch([(0, 0, 64), (1, 0, 40), (2, 0, 1)])
    reference = GptOss(
        checkpoint, CPU, torch.float32, arithmetic=RoundedCache(checkpoint.config.swiglu_limit)
    )
    return batch, reference.forward(batch, reference.new_cache(PAGES))


def test_bf16_weights_agree_with_the_reference_in_float32(checkpoint, expected, isa):
    batch, want = expected
    model = build(checkpoint, CPU, dense="bf16", isa=isa, threads=1)
    got = model.forward(batch, fresh(model))
    assert errors(got, want).max() < 5e-3
    assert torch.equal(got.argmax(-1), want.argmax(-1))


def test_int8_weights_stay_near(checkpoint):
    """Random weights are a hard test: small errors choose another expert, which changes everything."""
    book = Book(checkpoint.config, [64])
    batch = book.batch([(0, 0, 64)])
    exact, rough = (build(checkpoint, CPU, dense=dense, threads=1) for dense in ("bf16", "int8"))
    want, got = (model.forward(batch, fresh(model)) for model in (exact, rough))
    assert errors(got, want).median() < 5e-2
    assert rough.weight_bytes < exact.weight_bytes


@pytest.mark.parametrize("dense", ["int8", "bf16"])
def test_chunked_batched_and_threaded_give_the_same_bits(checkpoint, isa, dense):
    lengths = [600, 70, 33]
    book = Book(checkpoint.config, lengths)
    one = build(checkpoint, CPU, dense=dense, isa=isa, threads=1)
    three = build(checkpoint, CPU, dense=dense, isa=isa, threads=3)
    alone = [one.forward(book.batch([(s, 0, n)]), fresh(one)) for s, n in enumerate(lengths)]
    cache = fresh(three)
    got = [[], [], []]
    for chunks in (
        [(0, 0, 511), (1, 0, 5)],
        [(1, 5, 64), (2, 0, 32), (0, 511, 1)],
        [(2, 32, 1), (0, 512, 87), (1, 69, 1)],
        [(0, 599, 1)],
    ):
        logits = three.forward(book.batch(chunks), cache)
        for (s, _, _), part in zip(chunks, logits.split([n for _, _, n in chunks]), strict=True):
            got[s].append(part)
    for ours, whole in zip(got, alone, strict=True):
        assert torch.equal(torch.cat(ours), whole)


@pytest.mark.parametrize("dense", ["int8", "bf16"])
def test_a_prompt_read_with_8_bits_has_the_same_bits_in_any_chunks(checkpoint, isa, dense):
    """The tokens of the answer always have 16 bits: a single token, or several that are computed again."""
    lengths, prompts = [90, 50], [70, 33]
    book = Book(checkpoint.config, lengths)
    model = build(checkpoint, CPU, dense=dense, isa=isa, threads=2, prompt_activations=8)
    alone = [
        model.forward(book.batch([(s, 0, n)], prompts=prompts), fresh(model)) for s, n in enumerate(lengths)
    ]
    cache, got = fresh(model), [[], []]
    for chunks in (
        [(0, 0, 69)],
        [(0, 69, 1), (1, 0, 32)],
        [(1, 32, 2), (0, 70, 1)],
        [(0, 71, 19), (1, 34, 16)],
    ):
        logits = model.forward(book.batch(chunks, prompts=prompts), cache)
        for (s, _, _), part in zip(chunks, logits.split([n for _, _, n in chunks]), strict=True):
            got[s].append(part)
    for ours, whole in zip(got, alone, strict=True):
        assert torch.equal(torch.cat(ours), whole)


def test_8_bits_are_for_prompts_alone(checkpoint):
    """Without a prompt in the step, the results are those of a model without this setting.  With one they are
    others, but near (test_cpu_products.py and test_cpu_float64.py: how near)."""
    book = Book(checkpoint.config, [64])
    exact, asked = (build(checkpoint, CPU, threads=1, prompt_activations=bits) for bits in (16, 8))
    answer, prompt = book.batch([(0, 0, 64)]), book.batch([(0, 0, 64)], prompts=[64])
    want = exact.forward(answer, fresh(exact))
    assert torch.equal(asked.forward(answer, fresh(asked)), want)
    assert torch.equal(exact.forward(prompt, fresh(exact)), want)
    got = asked.forward(prompt, fresh(asked))
    assert not torch.equal(got, want)
    assert errors(got, want).median() < 0.15  # random weights: another expert is soon chosen


def test_activations_of_other_widths_are_refused(checkpoint):
    with pytest.raises(ValueError, match="16 or 8 bits, not 4"):
        build(checkpoint, CPU, prompt_activations=4)


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("dense", ["int8", "bf16"])
def test_every_instruction_set_gives_the_same_bits(checkpoint, dense, bits):
    batch = Book(checkpoint.config, [100, 9]).batch([(0, 0, 100), (1, 0, 9)], prompts=[80, 9])
    models = [
        build(checkpoint, CPU, dense=dense, isa=isa, threads=1, prompt_activations=bits)
        for isa in Machine.available()
    ]
    logits = [model.forward(batch, fresh(model)) for model in models]
    assert all(torch.equal(each, logits[0]) for each in logits)


def test_only_the_rows_that_sample_have_logits(checkpoint):
    book = Book(checkpoint.config, [40, 20])
    model = build(checkpoint, CPU, threads=1)
    chunks = [(0, 0, 40), (1, 0, 20)]
    every = model.forward(book.batch(chunks), fresh(model))
    assert torch.equal(model.forward(book.batch(chunks, [59, 3]), fresh(model)), every[[59, 3]])
    assert model.forward(book.batch(chunks, []), fresh(model)).shape == (0, checkpoint.config.vocab_size)


def test_an_unknown_token_is_refused_before_anything_is_read(checkpoint):
    book = Book(checkpoint.config, [3])
    book.tokens[0][1] = checkpoint.config.vocab_size
    model = build(checkpoint, CPU, threads=1)
    with pytest.raises(ValueError, match="token 211 is not in the vocabulary of 211"):
        model.forward(book.batch([(0, 0, 3)]), fresh(model))


@pytest.mark.parametrize("layout", ["hf", "hf_bf16"])
def test_other_layouts_hold_the_same_model(checkpoint, tmp_path, layout):
    tiny_checkpoint.write(tmp_path, layout, config=checkpoint.config)
    batch = Book(checkpoint.config, [50]).batch([(0, 0, 50)])
    ours, theirs = (build(each, CPU, threads=1) for each in (checkpoint, Checkpoint.open(tmp_path)))
    got, want = theirs.forward(batch, fresh(theirs)), ours.forward(batch, fresh(ours))
    if layout == "hf":
        assert torch.equal(got, want)
    else:  # encoded again: the same numbers, some as another code and scale
        assert errors(got, want).max() < 1e-3


def test_memory_is_what_the_model_says(checkpoint):
    model = load(CPU).build(checkpoint, CPU, threads=1)
    cache = model.new_cache(7)
    assert cache.num_pages == 7
    assert cache.keys.nbytes + cache.values.nbytes == 7 * model.page_bytes


@pytest.mark.parametrize(
    ("field", "size", "name"), [("num_heads", 3, "num_attention_heads"), ("hidden_size", 40, "hidden_size")]
)
def test_sizes_without_room_in_a_tile_are_refused(field, size, name):
    config = replace(tiny_checkpoint.CONFIG, num_kv_heads=1, **{field: size})
    with pytest.raises(CheckpointError, match=f"{name}.*multiple of 32"):
        build(Synthetic(config), CPU)


def test_options_are_checked(checkpoint):
    with pytest.raises(ValueError, match="int8 or bf16, not 'fp8'"):
        build(checkpoint, CPU, dense="fp8")
    with pytest.raises(ValueError, match="cannot run CPU kernels for 'mmx'"):
        build(checkpoint, CPU, isa="mmx")
    with pytest.raises(ValueError, match="not on cuda"):
        build(checkpoint, torch.device("cuda"))
