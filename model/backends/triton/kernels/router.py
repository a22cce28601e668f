"""Which experts a token uses: their logits, and the best A of them.

For few tokens the logits take the place of a choice: who needs it chooses again from E numbers, which costs
less than one more kernel (`best_experts`).  For many tokens `choose` writes it down."""

from __future__ import annotations

import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.kernels.codes import PRESCALE, prescaled
from model.backends.triton.kernels.dependent_launch import await_previous, launch_next
from model.layers import rms_norm, route

ROUTER_TILE = {"BK": 1024, "num_warps": 4}
"""A row in three pieces, not in twelve by one warp: there is little to do, and all of it is waiting."""


@triton.jit
def _router_kernel(
    x, norm, gate, bias, logits, normed, eps,
    E: tl.constexpr, K: tl.constexpr, PDL: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Program e < E of a token finds the logit of expert e; program E writes the normalised row."""
    launch_next(PDL)
    token, expert = tl.program_id(0).to(tl.int64), tl.program_id(1)
    product = tl.zeros([BK], tl.float32)
    squares = tl.zeros([BK], tl.float32)
    gates = gate + tl.minimum(expert, E - 1) * K
    weights = ()
    for first in tl.static_range(0, K, BK):
        k = first + tl.arange(0, BK)
        weights = weights + (tl.load(gates + k, k < K, 0.0),)  # type: ignore[assignment]
    await_previous(PDL)
    for first in tl.static_range(0, K, BK):
        k = first + tl.arange(0, BK)
        row = tl.load(x + token * K + k, k < K, 0.0).to(tl.float32)
        squares += row * row
        row *= tl.load(norm + k, k < K, 0.0).to(tl.float32)
        product += row * weights[first // BK].to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(squares, 0) / K + eps)
    if expert < E:
        logit = tl.sum(product, 0) * scale + tl.load(bias + expert).to(tl.float32)
        tl.store(logits + token * E + expert, logit)
    else:
        for first in tl.static_range(0, K, BK):
            k = first + tl.arange(0, BK)
            row = tl.load(x + token * K + k, k < K, 0.0).to(tl.float32) * scale
            row *= tl.load(norm + k, k < K, 0.0).to(tl.float32)
            at = normed + token * K + (k % 8) * (K // 8) + k // 8
            tl.store(at, row.to(x.dtype.element_ty).to(tl.float32) * PRESCALE, k < K)


def router(
    x: Tensor,
    norm: Tensor,
    gate: Tensor,
    bias: Tensor,
    logits: Tensor,
    normed: Tensor,
    eps: float,
    pdl: bool = False,
) -> None:
    """Logits of x [T, K], and its normalised rows as experts want them, for few tokens.

    norm    [K]
    gate    [E, K], bias [E]
    logits  [T, E] float32
    normed  [T, K] float32, `prescaled` (codes.py)
    pdl     whether it may begin while the kernel before it ends, see dependent_launch.py
    """
    (tokens, width), experts = x.shape, len(gate)
    grid = (tokens, experts + 1)
    operands, sizes = (x, norm, gate, bias, logits, normed, eps), (experts, width, pdl)
    _router_kernel[grid](*operands, *sizes, **ROUTER_TILE, launch_pdl=pdl)


def plain_router(x: Tensor, norm: Tensor, gate: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """What `router` writes; the logits are of the row before it is rounded."""
    logits = F.linear(rms_norm(x.float(), norm, eps), gate.float(), bias.float())
    return logits, prescaled(rms_norm(x, norm, eps))


@triton.jit
def best_experts(logits, E: tl.constexpr, E_PAD: tl.constexpr, A: tl.constexpr, A_PAD: tl.constexpr):
    """The A experts of one token with the largest logits [E], best first, and the softmax over those alone.

    Of equal logits the lower expert's comes first.  Logits that are not numbers choose some expert: what
    comes of them is not a number either, but no memory is touched that is not there.

    returns  experts, shares  [A_PAD]; past A the shares are 0
    """
    expert = tl.arange(0, E_PAD)
    rank = tl.arange(0, A_PAD)
    left = tl.load(logits + expert, expert < E, float("-inf"))
    chosen = tl.zeros([A_PAD], tl.int32)
    highest = tl.full([A_PAD], float("-inf"), tl.float32)
    for a in tl.static_range(A):
        logit = tl.max(left, 0)
        first = tl.min(tl.where(left == logit, expert, E - 1), 0)
        chosen = tl.where(rank == a, first, chosen)
        highest = tl.where(rank == a, logit, highest)
        left = tl.where(expert == first, float("-inf"), left)
    parts = tl.where(rank < A, tl.exp(highest - tl.max(highest, 0)), 0.0)
    return chosen, parts / tl.sum(parts, 0)


@triton.jit
def _choose_kernel(
    logits, chosen, shares,
    E: tl.constexpr, E_PAD: tl.constexpr, A: tl.constexpr, A_PAD: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    experts, parts = best_experts(logits + token * E, E, E_PAD, A, A_PAD)
    rank = tl.arange(0, A_PAD)
    tl.store(chosen + token * A + rank, experts, rank < A)
    tl.store(shares + token * A + rank, parts, rank < A)


def choose(logits: Tensor, chosen: Tensor, shares: Tensor) -> None:
    """From logits [T, E] the chosen experts [T, A] int32, best first, and their shares [T, A] float32."""
    (tokens, experts), used = logits.shape, chosen.shape[1]
    sizes = (experts, triton.next_power_of_2(experts), used, triton.next_power_of_2(used))
    _choose_kernel[(tokens,)](logits, chosen, shares, *sizes, num_warps=1)


def plain_choose(logits: Tensor, experts_per_token: int) -> tuple[Tensor, Tensor]:
    return route(logits, experts_per_token)
