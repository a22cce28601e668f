"""Offsets beyond 2 ** 31 elements, at the true sizes of 20b and 120b: what is there is what is computed.

A product of two numbers of 32 bits wraps around, and a kernel that multiplies a row by a width in 32 bits
reads, far down a large tensor, somewhere else.  Tensors here are of the sizes that a GPU of 80 GB and a step
of many tokens have, but only what is touched takes memory.  Of each launch a few programs run, the last ones;
the sanitizer sees that they stay inside, and a small twin what they should compute."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # first: see there

# isort: split
if DEVICE.type == "cuda":
    pytest.skip("tests/gpu is at true sizes anyway", allow_module_level=True)

from model.backends.triton.kernels import (
    attention_decode,
    attention_prefill,
    codes,
    dense,
    experts_few,
    experts_many,
    rotary,
    token_choice,
)
from model.backends.triton.kernels.dense import plain_product
from model.backends.triton.kernels.dense_int8 import GROUP, Quantised
from model.backends.triton.kernels.edits import edit_logits
from model.backends.triton.kernels.norm import normalise, plain_normalise
from model.backends.triton.weights import Matrices
from model.batch import FULL, Batch
from model.draws import Draws
from model.layers import yarn_frequencies
from model.loading.synthetic import SIZES
from model.logit_edits import Edits, edit
from tests.tools.sanitizer.sanitizer import watching
from tests.tools.sanitizer.sanitizer_memory import lazy_zeros

pytestmark = pytest.mark.timeout(600)  # an interpreter on a busy machine takes its time

FAR = 2**31
CONFIG = SIZES["120b"]
C, F, E, V = CONFIG.hidden_size, CONFIG.intermediate_size, CONFIG.num_experts, CONFIG.vocab_size
H, KV, D, PAGE = CONFIG.num_heads, CONFIG.num_kv_heads, CONFIG.head_dim, 32
SCALE = 120
"""Of weights: 2 ** -7."""


def last(grid):
    return [tuple(size - 1 for size in grid)]


def last_in_the_first_dimension(grid):
    return list(product([grid[0] - 1], range(grid[1]), range(grid[2])))


def lazy(*shape, dtype=torch.float32):
    """Zeros that take no memory."""
    try:
        zeros = lazy_zeros(math.prod(shape) * dtype.itemsize)
    except OSError as error:
        pytest.skip(f"this machine promises no more memory than it has: {error}")
    return torch.frombuffer(zeros, dtype=dtype).view(shape)


@pytest.fixture(autouse=True)
def _results_take_no_memory_either(monkeypatch):
    empty = torch.empty

    def empty_or_lazy(*shape, dtype=torch.float32, device=None):
        shape = shape[0] if isinstance(shape[0], tuple) else shape
        if math.prod(shape) < 2**20:
            return empty(shape, dtype=dtype, device=device)
        return lazy(*shape, dtype=dtype)

    monkeypatch.setattr(torch, "empty", empty_or_lazy)


@pytest.fixture
def noise():
    return torch.Generator().manual_seed(7)


def rows_beyond(width):
    """Rows of so many columns, of which the last begins behind 2 ** 31; a multiple of 128."""
    return (FAR // width + 256) // 128 * 128


def close(got, want):
    torch.testing.assert_close(got.float(), want.float(), rtol=2e-4, atol=2e-4)


# Attention: page numbers of a large pool, and rows of a step of many tokens


@pytest.fixture(scope="module")
def turn():
    return rotary.angles(512, *yarn_frequencies(CONFIG, DEVICE))


def batch_of(pages, chunks):
    """Chunks of (keys before it, tokens) over these pages."""
    width = -(-max(known + length for known, length in chunks) // PAGE)
    table = torch.tensor(pages[: len(chunks) * width], dtype=torch.int32).view(1, len(chunks), width)
    return Batch.of(
        chunks, table.expand(2, -1, -1).contiguous(), PAGE, samples=torch.empty(0, dtype=torch.int64)
    )


class Pools:
    """Keys and values in a pool of many pages, and the same in one of a few."""

    def __init__(self, noise, dtype):
        self.number = FAR // (KV * PAGE * D) + 9
        self.far = [self.number - 1, 5, self.number - 6, self.number - 2]
        self.near = [2, 0, 3, 1]
        self.large = [lazy(self.number, KV, PAGE, D, dtype=dtype) for _ in range(2)]
        self.small = [torch.zeros(4, KV, PAGE, D, dtype=dtype) for _ in range(2)]
        for large, small in zip(self.large, self.small, strict=True):
            drawn = torch.randn(4, KV, PAGE, D, generator=noise)
            small.copy_(drawn if dtype.is_floating_point else drawn.to(torch.float8_e4m3fn).view(torch.uint8))
            large[self.far] = small[self.near]

    def are_the_same(self):
        pairs = zip(self.large, self.small, strict=True)
        return all(torch.equal(large[self.far], small[self.near]) for large, small in pairs)


@pytest.mark.parametrize(("window", "splits"), [(128, 1), (None, 1), (None, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.uint8, marks=pytest.mark.exhaustive)])
def test_a_decode_finds_pages_at_the_end_of_a_large_pool(noise, turn, dtype, window, splits):
    pools = Pools(noise, dtype)
    qkv, sinks = torch.randn(1, (H + 2 * KV) * D, generator=noise), torch.zeros(H)
    answers = []
    with watching(poison=False):
        for pages, pool in ((pools.far, pools.large), (pools.near, pools.small)):
            for first_page in (0, 3):  # of a pool whose pages are numbered on from another's
                batch = batch_of([page + first_page for page in pages], [(100, 1)])
                out = torch.full((1, H * D), torch.nan)
                where = (first_page, sinks, batch, FULL, window, out)
                attention_decode.attend(qkv, turn, *pool, *where, splits)
                answers.append(out)
    assert answers[0].isfinite().all()
    assert all(torch.equal(answers[0], other) for other in answers[1:])
    assert pools.are_the_same()


@pytest.mark.parametrize(("window", "part"), [(128, 0), (None, 0), (None, 64)])
def test_chunks_find_pages_at_the_end_of_a_large_pool(noise, turn, window, part):
    pools = Pools(noise, torch.float32)
    qkv, sinks = torch.randn(5, (H + 2 * KV) * D, generator=noise), torch.zeros(H)
    answers = []
    with watching(poison=False):
        for pages, pool in ((pools.far, pools.large), (pools.near, pools.small)):
            batch = batch_of(pages, [(90, 5)])
            rotary.write(qkv, turn, batch.positions, batch.slots[FULL], *pool, 0, H)
            out = torch.full((5, H * D), torch.nan)
            attention_prefill.attend(qkv, turn, *pool, 0, sinks, batch, FULL, window, out, part)
            answers.append(out)
    assert answers[0].isfinite().all()
    assert torch.equal(*answers)
    assert pools.are_the_same()


@pytest.mark.parametrize("part", [0, 64])
def test_the_last_tokens_of_a_very_long_step_have_their_own_rows(noise, turn, part):
    """Of two sequences: the second has three tokens, and the first all others."""
    tokens = rows_beyond((H + 2 * KV) * D if not part else 3 * H * D)
    pool = [torch.randn(3, KV, PAGE, D, generator=noise) for _ in range(2)]
    sinks, few = torch.zeros(H), batch_of([2, 0, 1], [(70, 3)])
    some = torch.randn(3, (H + 2 * KV) * D, generator=noise)
    want, qkv = torch.zeros(3, H * D), lazy(tokens, (H + 2 * KV) * D)
    qkv[-3:] = some
    many = replace(
        few,
        positions=lazy(tokens, dtype=torch.int64),
        slots=lazy(2, tokens, dtype=torch.int64),
        starts=torch.tensor([0, tokens - 3, tokens], dtype=torch.int32),
        lengths=torch.tensor([tokens - 3, 73], dtype=torch.int32),
        page_table=few.page_table.expand(2, 2, -1).contiguous(),
    )
    many.positions[-3:], many.slots[:, -3:] = few.positions, few.slots
    pools = [[each.clone() for each in pool] for _ in range(2)]
    got = lazy(tokens, H * D)
    with watching(poison=False):
        rotary.write(some, turn, few.positions, few.slots[FULL], *pools[0], 0, H)
        attention_prefill.attend(some, turn, *pools[0], 0, sinks, few, FULL, None, want, part)

    def of_the_last_three(grid):
        """The last three rows, or the last two blocks of rows: the very last has none in it."""
        count = 3 if grid[1] == 1 else 2
        return list(product(range(grid[0] - count, grid[0]), range(grid[1]), range(grid[2])))

    with watching(programs=of_the_last_three, poison=False):
        rotary.write(qkv, turn, many.positions, many.slots[FULL], *pools[1], 0, H)
        attention_prefill.attend(qkv, turn, *pools[1], 0, sinks, many, FULL, None, got, part)
    assert torch.equal(got[-3:], want)
    for ours, theirs in zip(*pools, strict=True):
        assert torch.equal(ours, theirs)


# Experts: the last of 120b, and rows of a step of many tokens


def matrices(outputs, width, noise):
    """The experts of 120b, of which only the last is not zero; and that one alone."""
    words = lazy(E, outputs, width // 8, dtype=torch.int32)
    scales, bias = lazy(E, outputs, width // 32, dtype=torch.uint8), lazy(E, outputs)
    words[-1] = torch.randint(-(2**31), 2**31, words.shape[1:], generator=noise, dtype=torch.int32)
    scales[-1], bias[-1] = SCALE, torch.randn(outputs, generator=noise)
    return Matrices(words, scales, bias), Matrices(words[-1:], scales[-1:], bias[-1:])


def test_the_last_expert_of_120b_is_found_for_few_tokens(noise):
    mlp1, one1 = matrices(2 * F, C, noise)
    mlp2, one2 = matrices(C, F, noise)
    logits = torch.zeros(2, E)
    logits[:, -1] = 9.0
    x, inner = torch.randn(2, C, generator=noise) / 50, torch.zeros(2, F)
    with watching(programs=last, poison=False):
        experts_few.gate_up(codes.prescaled(x), logits, mlp1, inner, CONFIG.swiglu_limit, 1)
        out = torch.zeros(2, C)
        experts_few.down(codes.prescaled(x[:, :F]), logits, mlp2, out, 1)
    want = experts_few.plain_gate_up(x, logits[:, -1:], one1, CONFIG.swiglu_limit, 1)
    at = [(n % 8) * (F // 8) + n // 8 for n in (F - 2, F - 1)]
    close(inner[-1, at], want[-1, at])
    assert inner.count_nonzero() == 2
    want = experts_few.plain_down(x[:, :F], logits[:, -1:], one2, torch.zeros(2, C))
    outputs = experts_few.DOWN_TILE["BN"]
    close(out[-1, -outputs:], want[-1, -outputs:])
    assert out.count_nonzero() == outputs


def test_the_last_expert_and_the_last_rows_are_found_for_very_many_tokens(noise):
    mlp1, one1 = matrices(2 * F, C, noise)
    mlp2, one2 = matrices(C, F, noise)
    tokens = rows_beyond(C)
    starts, order = torch.zeros(E + 1, dtype=torch.int32), lazy(tokens, dtype=torch.int32)
    starts[-1] = tokens
    order[-128:] = tokens - 128 + torch.randperm(128, generator=noise)
    here = order[-128:].long() - (tokens - 128)
    x, shares = torch.randn(128, C, generator=noise) / 50, torch.rand(128, 1, generator=noise)
    normed, inner = lazy(tokens, codes.padded(C)), lazy(tokens, codes.padded(F))
    outer = lazy(tokens, C)

    def of_the_last_rows(grid):
        return [(tokens // 128 - 1, grid[1] - 1, 0)]

    one_expert = torch.tensor([0, 128])
    with watching(programs=of_the_last_rows, poison=False):
        normed[-128:] = codes.in_fragments(x)
        experts_many.gate_up(normed, mlp1, order, starts, inner, CONFIG.swiglu_limit)
    want = experts_many.plain_gate_up(x, one1, here, one_expert, CONFIG.swiglu_limit, 1)
    close(inner[-128:, -codes.BLOCK.value :], want[:, -codes.BLOCK.value :])

    all_shares = lazy(tokens, 1)
    all_shares[-128:] = shares
    with watching(programs=of_the_last_rows, poison=False):
        inner[-128:] = codes.in_fragments(x[:, :F])
        experts_many.down(inner, mlp2, order, starts, all_shares, outer)
    want = experts_many.plain_down(x[:, :F], one2, here, one_expert, shares)
    close(outer[-128:, -64:], want[:, -64:])


def test_the_last_token_of_very_many_adds_up_its_experts(noise):
    tokens = rows_beyond(4 * C)
    outer, x = lazy(4 * tokens, C), lazy(tokens, C)
    outer[-4:], x[-1] = torch.randn(4, C, generator=noise), torch.randn(C, generator=noise)
    want = x[-1] + outer[-4:].sum(0)
    with watching(programs=last_in_the_first_dimension, poison=False):
        experts_many.combine(outer, x)
    close(x[-1], want)


def test_codes_are_packed_behind_the_two_thousand_millionth_word(noise):
    blocks = lazy((FAR + 4096) // 4, 16, dtype=torch.uint8)
    some = torch.randint(0, 256, (256, 16), generator=noise, dtype=torch.uint8)
    blocks[-256:] = some
    with watching(programs=last, poison=False):
        codes.pack(blocks)
    with watching():
        assert torch.equal(blocks[-256:].flatten(), codes.pack(some.clone()).view(torch.uint8).flatten())


# Rows of dense products, norms and logits


def test_the_last_row_of_very_many_is_normalised(noise):
    tokens = rows_beyond(C)
    x, norm = lazy(tokens, C), 1 + torch.randn(C, generator=noise) / 9
    x[-1] = torch.randn(C, generator=noise)
    outs = lazy(tokens, C), lazy(tokens, codes.padded(C))
    with watching(programs=last, poison=False):
        normalise(x, norm, 1e-5, *outs)
    for got, want in zip(outs, plain_normalise(x[-1:], norm, 1e-5), strict=True):
        close(got[-1:], want)


def unembedding(kind, noise):
    """Weights [V, C] of which only the last 64 rows are not zero."""
    if kind == "int8":
        weight = Quantised(lazy(V, C, dtype=torch.int8), lazy(V, C // GROUP))
        weight.codes[-64:] = torch.randint(-127, 128, (64, C), generator=noise, dtype=torch.int8)
        weight.scales[-64:] = torch.rand(64, C // GROUP, generator=noise) / 2000
        return weight
    weight = lazy(V, C)
    weight[-64:] = torch.randn(64, C, generator=noise) / 50
    return weight


def ending(weight):
    if isinstance(weight, Quantised):
        return Quantised(weight.codes[-64:], weight.scales[-64:])
    return weight[-64:]


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_logits_of_very_many_rows_have_their_own_places(noise, kind, invariant):
    weight, rows = unembedding(kind, noise), rows_beyond(V)
    x, norm, out = lazy(rows, C), 1 + torch.randn(C, generator=noise) / 9, lazy(rows, V)
    x[-64:] = torch.randn(64, C, generator=noise)
    with watching(programs=last, poison=False):
        dense.product(x, weight, out, norm=norm, rows=torch.arange(rows), invariant=invariant)
    want = plain_product(x[-64:], ending(weight), out[-64:, -64:], norm=norm)
    close(out[-64:, -64:], want)


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("count", [1, 5])
def test_samples_are_rows_of_a_very_long_step(noise, kind, count):
    weight, tokens = unembedding(kind, noise), rows_beyond(C)
    x, out = lazy(tokens, C), lazy(count, V)
    x[-count:] = torch.randn(count, C, generator=noise)
    rows = torch.arange(tokens - count, tokens)
    with watching(programs=last, poison=False):
        dense.product(x, weight, out, rows=rows)
    want = plain_product(x[-count:], ending(weight), out[:, -64:])
    changed = out[0] != 0
    assert changed.any()
    close(out[:, -64:][:, changed[-64:]], want[:, changed[-64:]])
    assert not changed[:-64].any()


@pytest.mark.parametrize("filters", [False, True])
def test_a_row_of_logits_behind_very_many_others_is_chosen_from_as_if_alone(noise, filters):
    size = 5000  # of a row, so that all of its blocks can run
    rows = rows_beyond(size)
    logits = lazy(rows, size)
    logits[-1] = 3 * torch.randn(size, generator=noise)

    def draws(count):
        return Draws(
            seeds=torch.full((count,), 5),
            temperature=torch.ones(count),
            top_k=torch.full((count,), 40, dtype=torch.int32),
            top_p=torch.full((count,), 0.9),
            min_p=torch.zeros(count),
            filters=filters,
        )

    def step(count):
        none = torch.zeros(0, dtype=torch.int64)
        return Batch(none, torch.full((count,), 77), none, none, none, none, torch.arange(count))

    def of_the_last_row(grid):
        return last(grid) if grid[1] == 1 else list(product(range(grid[0]), [grid[1] - 1], [0]))

    with watching(programs=of_the_last_row, poison=False):
        got = token_choice.choose_tokens(logits, draws(rows), step(rows))
    with watching():
        want = token_choice.choose_tokens(logits[-1:].clone(), draws(1), step(1))
    assert got[:, -1:].tolist() == want.tolist()
    assert want[1].item() == 1


def test_a_row_of_logits_behind_very_many_others_is_edited_as_if_alone(noise):
    """The last token of the last row among them, by a record, in flight, and by a mask."""
    size = 5000
    rows = rows_beyond(size)
    logits, alone = lazy(rows, size), torch.randn(1, size, generator=noise)
    logits[-1:] = alone

    def edits(count):
        starts, penalties = lazy(count + 1, dtype=torch.int32), lazy(3, count)
        starts[-1] = 2
        penalties[:, -1] = torch.tensor([1.3, 0.5, 0.1])
        return Edits(
            records=torch.tensor([[7, 2, 0, 0], [size - 1, 0, 0, 1]], dtype=torch.int32),
            starts=starts,
            penalties=penalties,
            masked=torch.tensor([count - 1], dtype=torch.int32),
            masks=torch.full((1, -(-size // 32)), 0x5A5A5A5A, dtype=torch.int32),
        )

    def of_the_last_row(grid):
        return last(grid) if grid[1] == 1 and grid[0] == rows else list(product(*map(range, grid)))

    for latest in (size - 1, 11):
        with watching(programs=of_the_last_row, poison=False):
            edit_logits(logits, edits(rows), torch.full((rows,), latest))
        edit(alone, edits(1), torch.tensor([latest]))
        assert torch.equal(logits[-1:], alone)
    assert not logits[-2].any()
