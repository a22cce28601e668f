"""Attention at large offsets: page numbers of a large pool, and rows of a step of many tokens."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
if DEVICE.type == "cuda":
    pytest.skip("tests/gpu is at true sizes anyway", allow_module_level=True)

from model.backends.triton.kernels import attention_decode, attention_prefill, rotary
from model.batch import FULL, Batch
from model.layers import yarn_frequencies
from tests.model.backends.triton.offsets.far import CONFIG, FAR, KV, PAGE, D, H, lazy, rows_beyond
from tests.tools.sanitizer.sanitizer import watching

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine


@pytest.fixture(scope="module")
def turn():
    return rotary.angles(512, *yarn_frequencies(CONFIG, DEVICE))


def batch_of(pages, chunks):
    """A batch of chunks (keys before, tokens) over these pages."""
    width = -(-max(known + length for known, length in chunks) // PAGE)
    table = torch.tensor(pages[: len(chunks) * width], dtype=torch.int32).view(1, len(chunks), width)
    return Batch.of(
        chunks, table.expand(2, -1, -1).contiguous(), PAGE, samples=torch.empty(0, dtype=torch.int64)
    )


class Pools:
    """Keys and values in a pool of many pages, and the same in a pool of a few."""

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
    """There are two sequences: the second has three tokens, the first all others."""
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
        """Selects the programs of the last three rows, or of the last two blocks of rows."""
        count = 3 if grid[1] == 1 else 2
        return list(product(range(grid[0] - count, grid[0]), range(grid[1]), range(grid[2])))

    with watching(programs=of_the_last_three, poison=False):
        rotary.write(qkv, turn, many.positions, many.slots[FULL], *pools[1], 0, H)
        attention_prefill.attend(qkv, turn, *pools[1], 0, sinks, many, FULL, None, got, part)
    assert torch.equal(got[-3:], want)
    for ours, theirs in zip(*pools, strict=True):
        assert torch.equal(ours, theirs)
