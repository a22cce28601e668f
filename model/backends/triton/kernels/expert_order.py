"""Pairs of token and expert in the order of experts, for steps of many tokens.

    order   the pairs (token * A + rank), sorted by expert, and for the same expert by number
    starts  the pairs of expert e are order[starts[e] : starts[e + 1]]

For up to a few hundred tokens, one kernel chooses the experts and sorts (`choose_and_sort`): each of its
programs chooses for all tokens, which is little work, and writes the pairs of its own expert.  For more
tokens, `choose` of router.py is followed by `sort`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.kernels.router import best_experts, logits_of

MOST_LOGITS = 8192
"""Maximum logits that a program of `choose_and_sort` has in its registers: those of 256 tokens of 20b."""


def at_once(tokens: int, experts: int) -> bool:
    """Whether `choose_and_sort` is used for this many tokens."""
    rows: int = triton.next_power_of_2(tokens) * triton.next_power_of_2(experts)
    return rows <= MOST_LOGITS


@triton.jit(do_not_specialize=["tokens"])
def _choose_and_sort_kernel(
    parts, bias, order, starts, shares, tokens,
    E: tl.constexpr, E_PAD: tl.constexpr, A: tl.constexpr, A_PAD: tl.constexpr, PARTS: tl.constexpr,
    TOKENS: tl.constexpr,
):  # fmt: skip
    """Program e writes the pairs of expert e, after those of all lower experts, and their shares."""
    expert = tl.program_id(0)
    token, rank = tl.arange(0, TOKENS), tl.arange(0, A_PAD)
    logits = logits_of(parts, bias, token, tokens, E, E_PAD, PARTS)
    chosen, share = best_experts(logits, E, A, A_PAD)
    here = (token < tokens)[:, None] & (rank < A)[None, :]
    start = tl.sum(tl.sum((here & (chosen < expert)).to(tl.int32), 1), 0)
    mine = (here & (chosen == expert)).to(tl.int32)
    of_token = tl.sum(mine, 1)
    place = start + (tl.cumsum(of_token, 0) - of_token)[:, None] + tl.cumsum(mine, 1) - mine
    pair = token[:, None] * A + rank[None, :]
    tl.store(order + place, pair, mine == 1)
    tl.store(shares + pair, share, mine == 1)
    tl.store(starts + expert, start)
    if expert == E - 1:
        tl.store(starts + E, tokens * A)


def choose_and_sort(parts: Tensor, bias: Tensor, used: int) -> tuple[Tensor, Tensor, Tensor]:
    """The results of `choose` and `sort`, bit-identical: order, starts, and shares [T, used] float32.

    parts  [PARTS, T, E], see `choose`; `at_once(T, E)` must be true
    """
    count, tokens, experts = parts.shape
    order = torch.empty(tokens * used, dtype=torch.int32, device=parts.device)
    starts = torch.empty(experts + 1, dtype=torch.int32, device=parts.device)
    shares = torch.empty(tokens, used, dtype=torch.float32, device=parts.device)
    sizes = (experts, triton.next_power_of_2(experts), used, triton.next_power_of_2(used), count)
    rows = max(16, triton.next_power_of_2(tokens))
    _choose_and_sort_kernel[(experts,)](parts, bias, order, starts, shares, tokens, *sizes, rows, num_warps=8)
    return order, starts, shares


@triton.jit(do_not_specialize=["num_pairs"])
def _sort_kernel(chosen, order, starts, num_pairs, BLOCK: tl.constexpr):
    """Program e writes the pairs of expert e, in their order, after those of all lower experts."""
    expert = tl.program_id(0)
    below = tl.zeros([BLOCK], tl.int32)
    for first in range(0, num_pairs, BLOCK):
        pair = first + tl.arange(0, BLOCK)
        below += (tl.load(chosen + pair, pair < num_pairs, expert) < expert).to(tl.int32)
    place = tl.sum(below, 0)
    tl.store(starts + expert, place)
    for first in range(0, num_pairs, BLOCK):
        pair = first + tl.arange(0, BLOCK)
        mine = (tl.load(chosen + pair, pair < num_pairs, -1) == expert).to(tl.int32)
        tl.store(order + place + tl.cumsum(mine, 0) - 1, pair, mine == 1)
        place += tl.sum(mine, 0)
    if expert == tl.num_programs(0) - 1:
        tl.store(starts + expert + 1, num_pairs)


def sort(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """
    chosen   [T, A] int32
    returns  order [T * A] int32, starts [experts + 1] int32
    """
    order = torch.empty(chosen.numel(), dtype=torch.int32, device=chosen.device)
    starts = torch.empty(experts + 1, dtype=torch.int32, device=chosen.device)
    _sort_kernel[(experts,)](chosen, order, starts, chosen.numel(), BLOCK=1024)
    return order, starts


def plain_sort(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    flat = chosen.flatten()
    counts = flat.long().bincount(minlength=experts)
    starts = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    return flat.argsort(stable=True).int(), starts.int()
