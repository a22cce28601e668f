"""The last program to finish combines the results of all: bit-identical for any order of programs, with
counters that are zero again.  The sanitizer checks this; it knows what atomic operations release
(tests/tools/sanitizer).
"""

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
if DEVICE.type == "cuda":
    pytest.skip("a GPU takes its own order", allow_module_level=True)

import triton
import triton.language as tl

from model.backends.triton.kernels import attention_decode, attention_prefill, rotary
from model.backends.triton.kernels import router as router_kernels
from model.backends.triton.kernels.router import plain_choose, plain_router, router
from model.batch import FULL, Batch
from model.layers import rotation
from tests.tools.sanitizer.sanitizer import ORDERS, watching
from tests.tools.sanitizer.sanitizer_memory import Finding

TOKENS, K, E, A = 3, 72, 7, 3


def routed(order):
    """Chosen experts, shares and normalised rows of some tokens, and the expected ones."""
    noise = torch.Generator().manual_seed(1)
    x, norm = torch.randn(TOKENS, K, generator=noise), torch.rand(K, generator=noise)
    gate, bias = torch.randn(E, K, generator=noise), torch.randn(E, generator=noise)
    arrivals = torch.zeros(TOKENS + 2, dtype=torch.int32)
    chosen, shares = torch.full((TOKENS, A), -1, dtype=torch.int32), torch.full((TOKENS, A), torch.nan)
    normed = torch.full((TOKENS, K), torch.nan)
    with watching(order):
        for _ in range(2):  # the second launch finds what the first has left
            router(x, norm, gate, bias, arrivals, chosen, shares, normed, 1e-5)
    assert arrivals.tolist() == [0] * (TOKENS + 2)
    logits, want_normed = plain_router(x, norm, gate, bias, 1e-5)
    return (chosen, shares, normed), (*plain_choose(logits, A), want_normed)


def test_the_last_program_of_a_token_writes_its_choice():
    first, want = routed("numbered")
    torch.testing.assert_close(first, want, check_dtype=False, rtol=1e-4, atol=1e-5)
    for order in ORDERS:
        got, _ = routed(order)
        assert all(torch.equal(*both) for both in zip(got, first, strict=True)), order


H, KV, D, PAGE = 6, 2, 16, 4
LENGTHS = (70, 1)
"""Lengths of two sequences: one has five splits of 16 keys, the other only its own key."""


def attended(order, splits, monkeypatch):
    monkeypatch.setitem(attention_decode.TILE, "BN", 16)
    monkeypatch.setattr(attention_decode, "SPLITS_AT_ONCE", 2)
    noise = torch.Generator().manual_seed(2)
    width = max(-(-length // PAGE) for length in LENGTHS)
    table = torch.randperm(2 * len(LENGTHS) * width, generator=noise).view(2, len(LENGTHS), width)
    batch = Batch.of([(length - 1, 1) for length in LENGTHS], table, PAGE)
    pools = [torch.randn(table.numel(), KV, PAGE, D, generator=noise) for _ in range(2)]
    qkv, sinks = torch.randn(len(LENGTHS), (H + 2 * KV) * D, generator=noise), torch.randn(H, generator=noise)
    turn = rotation(torch.arange(80), torch.rand(D // 2, generator=noise), 1.0)
    right = [pool.clone() for pool in pools]
    rotary.plain_write(qkv, turn, batch.positions, batch.slots[FULL], *right, H)
    want = attention_prefill.plain_attend(qkv, turn, *right, sinks, batch, FULL, None)
    arrivals = torch.zeros(len(LENGTHS) * KV + 1, dtype=torch.int32)
    out = torch.full((len(LENGTHS), H * D), torch.nan)
    with watching(order):
        for _ in range(2):
            where = (0, sinks, batch, FULL, None, out)
            attention_decode.attend(qkv, turn, *pools, *where, splits, arrivals=arrivals)
    assert not arrivals.any()
    return out, want


def test_the_last_split_adds_all_up(monkeypatch):
    """Two at a time."""
    first, want = attended("numbered", 8, monkeypatch)
    torch.testing.assert_close(first, want, rtol=1e-4, atol=1e-5)
    for order in ORDERS:
        got, _ = attended(order, 8, monkeypatch)
        assert torch.equal(got, first), order


@triton.jit
def _counts_without_order(arrivals, programs):
    tl.debug_barrier()
    last = tl.atomic_add(arrivals, 1, sem="relaxed") == programs - 1
    if last:
        tl.atomic_xchg(arrivals, 0, sem="relaxed")
    return last


@triton.jit
def _counts_without_barrier(arrivals, programs):
    last = tl.atomic_add(arrivals, 1, sem="acq_rel") == programs - 1
    if last:
        tl.atomic_xchg(arrivals, 0, sem="relaxed")
    return last


@pytest.mark.parametrize("count", [_counts_without_order, _counts_without_barrier])
def test_a_count_that_releases_nothing_is_found(count, monkeypatch):
    """The last program would then read stores that it may not see, which is sometimes wrong on a GPU."""
    monkeypatch.setattr(router_kernels, "arrives_last", count)
    monkeypatch.setattr(attention_decode, "arrives_last", count)
    with pytest.raises(Finding, match="race: _router_kernel"):
        routed("shuffled")
    with pytest.raises(Finding, match="race: _decode_kernel"):
        attended("numbered", 3, monkeypatch)


def test_fewer_splits_are_added_at_once_where_sixteen_spill():
    """Because Triton's compiler spilled 8 to 16 bytes of each thread there."""
    at_once = {
        each: attention_decode.splits_at_once(each) for each in ((8, 0), (8, 9), (9, 0), (10, 0), (12, 0))
    }
    assert at_once == {(8, 0): 16, (8, 9): 8, (9, 0): 16, (10, 0): 8, (12, 0): 16}
