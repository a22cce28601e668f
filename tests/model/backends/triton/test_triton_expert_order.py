"""The experts' logits in parts, the choice, and the order of pairs: all implementations are bit-identical."""

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
from model.backends.triton.kernels import expert_order
from model.backends.triton.kernels.router import GATE_TILE, choose, gate_parts, plain_choose

UNEVEN = [(9, 5, 3, 96), (33, 32, 4, 160), (70, 7, 1, 64), (17, 128, 4, 2880), (1, 3, 2, 72)]
"""Tokens, experts, experts of a token, columns: with full, half empty and empty tiles and parts."""


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def in_two_kernels(parts, bias, used):
    _, tokens, experts = parts.shape
    chosen = torch.full((tokens, used), -1, dtype=torch.int32, device=DEVICE)
    shares = torch.full((tokens, used), torch.nan, device=DEVICE)
    choose(parts, bias, chosen, shares)
    return *expert_order.sort(chosen, experts), shares, chosen


@pytest.mark.parametrize(("tokens", "experts", "used", "width"), UNEVEN)
def test_parts_add_up_and_one_kernel_chooses_and_sorts_as_two_do(tokens, experts, used, width):
    normed, gate, bias = random(tokens, width), random(experts, width, seed=1), random(experts, seed=2)
    parts = gate_parts(normed, gate)
    want = normed.double() @ gate.double().T
    torch.testing.assert_close(parts.double().sum(0), want, rtol=1e-4, atol=1e-4)
    assert expert_order.at_once(tokens, experts)
    order, starts, shares = expert_order.choose_and_sort(parts, bias, used)
    *want_order, want_shares, chosen = in_two_kernels(parts, bias, used)
    assert torch.equal(order, want_order[0])
    assert torch.equal(starts, want_order[1])
    assert torch.equal(shares, want_shares)
    right, right_shares = plain_choose(want.float() + bias, used)
    assert torch.equal(chosen.long(), right.long())
    torch.testing.assert_close(shares, right_shares, rtol=1e-4, atol=1e-5)
    plain_order, plain_starts = expert_order.plain_sort(chosen, experts)
    assert torch.equal(order, plain_order)
    assert torch.equal(starts, plain_starts)


def test_logits_that_are_not_numbers_are_sorted_too():
    """Such a token chooses some experts, perhaps one twice; each of its pairs still has a place."""
    parts = random(2, 11, 6)
    parts[0, 3], parts[1, 7, 2], parts[0, 9, :4] = torch.nan, torch.nan, -torch.inf
    bias = torch.zeros(6, device=DEVICE)
    order, starts, shares = expert_order.choose_and_sort(parts, bias, 3)
    assert sorted(order.tolist()) == list(range(33))
    assert starts[-1] == 33
    *want, want_shares, _ = in_two_kernels(parts, bias, 3)
    assert [order.tolist(), starts.tolist()] == [each.tolist() for each in want]
    torch.testing.assert_close(shares, want_shares, rtol=0, atol=0, equal_nan=True)
    assert shares[3].isnan().all()


def test_a_tokens_logits_have_the_same_bits_in_any_company():
    """The interpreter's products are NumPy's.  On some processors they sum a row in an order that depends on
    its place in the tile; so there the numbers are such that every sum is exact.
    """
    rows = GATE_TILE["BM"]
    normed, gate = random(3 * rows + 1, 160), random(5, 160, seed=1)
    if DEVICE.type == "cpu":
        normed, gate = ((8 * each).round() / 8 for each in (normed, gate))
    parts = gate_parts(normed, gate)
    for few in (slice(0, 1), slice(rows - 1, 2 * rows), slice(3 * rows, None)):
        assert torch.equal(gate_parts(normed[few].contiguous(), gate), parts[:, few])


def test_many_tokens_are_for_two_kernels():
    assert expert_order.at_once(256, 32)
    assert expert_order.at_once(64, 128)
    assert not expert_order.at_once(257, 32)
    assert not expert_order.at_once(65, 128)
