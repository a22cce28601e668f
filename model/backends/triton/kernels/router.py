"""Chooses the experts of a token: computes their logits, and takes the best A.

For few tokens one kernel does everything: the last of a token's programs to finish reads all logits, and
writes the choice.  For many tokens the logits are a matrix product, with the columns in parts, so that there
is work for many programs; `choose` adds the parts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from model.backends.triton.kernels.codes import PRESCALE, prescaled
from model.backends.triton.kernels.dependent_launch import await_previous, launch_next
from model.backends.triton.kernels.last_arrival import arrives_last
from model.layers import rms_norm, route

ROUTER_TILE = {"BK": 1024, "num_warps": 4}
"""A row is read in three pieces by four warps: with one warp and twelve pieces, most of the time would be
waiting.
"""


@triton.jit
def best_experts(logits, E: tl.constexpr, A: tl.constexpr, A_PAD: tl.constexpr):
    """The A experts of each token with the largest logits, best first, and the softmax over those alone.

    If logits are equal, the lower expert number comes first.  If logits are NaN, some existing expert is
    chosen: the result is NaN too, but every memory access is valid.

    logits   [TOKENS, E_PAD]; minus infinity beyond E
    returns  experts, shares  [TOKENS, A_PAD]; the shares beyond A are 0
    """
    expert = tl.arange(0, logits.shape[1])[None, :]
    rank = tl.arange(0, A_PAD)[None, :]
    chosen = tl.zeros([logits.shape[0], A_PAD], tl.int32)
    parts = tl.zeros([logits.shape[0], A_PAD], tl.float32)
    total = tl.zeros([logits.shape[0]], tl.float32)
    highest = tl.max(logits, 1)
    left = logits
    for a in tl.static_range(A):
        logit = tl.max(left, 1)
        first = tl.min(tl.where(left == logit[:, None], expert, E - 1), 1)
        part = tl.exp(logit - highest)
        total += part  # in order of rank, so that all callers get bit-identical results
        chosen = tl.where(rank == a, first[:, None], chosen)
        parts = tl.where(rank == a, part[:, None], parts)
        left = tl.where(expert == first[:, None], float("-inf"), left)
    return chosen, parts / total[:, None]


GATE_TILE = {"BM": 16, "BK": 64, "num_warps": 4, "num_stages": 4}
"""Rows and columns of a tile.  They are the same for any number of tokens, so a token's result is
bit-identical.
"""

PARTS = 4
"""Number of parts of the columns."""


@triton.jit(do_not_specialize=["tokens"])
def _gate_kernel(
    normed, gate, parts, tokens,
    E: tl.constexpr, E_PAD: tl.constexpr, K: tl.constexpr, PARTS: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Program (rows, part)."""
    WIDTH: tl.constexpr = (K + PARTS * BK - 1) // (PARTS * BK) * BK
    token, part = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM), tl.program_id(1)
    expert = tl.arange(0, E_PAD)
    here, there = (token < tokens)[:, None], (expert < E)[None, :]
    logits = tl.zeros([BM, E_PAD], tl.float32)
    for first in range(part * WIDTH, tl.minimum(part * WIDTH + WIDTH, K), BK):
        k = first + tl.arange(0, BK)
        rows = tl.load(normed + token[:, None] * K + k[None, :], here & (k < K)[None, :], 0.0)
        columns = tl.load(gate + expert[None, :] * K + k[:, None], there & (k < K)[:, None], 0.0)
        logits = tl.dot(rows, columns, logits, input_precision="ieee")
    tl.store(parts + (part * tokens + token[:, None]) * E + expert[None, :], logits, here & there)


def gate_parts(normed: Tensor, gate: Tensor) -> Tensor:
    """[PARTS, T, E] float32, whose sum over parts is normed [T, K] @ gate.T."""
    (tokens, width), experts = normed.shape, len(gate)
    parts = torch.empty(PARTS, tokens, experts, dtype=torch.float32, device=normed.device)
    sizes = (experts, max(16, triton.next_power_of_2(experts)), width, PARTS)
    grid = (triton.cdiv(tokens, GATE_TILE["BM"]), PARTS)
    _gate_kernel[grid](normed, gate, parts, tokens, *sizes, **GATE_TILE)
    return parts


@triton.jit
def logits_of(parts, bias, token, tokens, E: tl.constexpr, E_PAD: tl.constexpr, PARTS: tl.constexpr):
    """Logits [TOKENS, E_PAD] of the tokens `token`: the parts, added in order, and the bias."""
    expert = tl.arange(0, E_PAD)
    mask = (token < tokens)[:, None] & (expert < E)[None, :]
    at = parts + token[:, None] * E + expert[None, :]
    logits = tl.zeros([token.shape[0], E_PAD], tl.float32)
    for _ in tl.static_range(PARTS):
        logits += tl.load(at, mask, 0.0)
        at += tokens.to(tl.int64) * E
    return logits + tl.load(bias + expert, expert < E, float("-inf")).to(tl.float32)[None, :]


@triton.jit
def _write_choice(logits, chosen, shares, token, E: tl.constexpr, A: tl.constexpr, A_PAD: tl.constexpr):
    """Writes the choice of the token [1] with these logits [1, E_PAD]."""
    experts, parts = best_experts(logits, E, A, A_PAD)
    rank = tl.arange(0, A_PAD)[None, :]
    tl.store(chosen + token[:, None] * A + rank, experts, rank < A)
    tl.store(shares + token[:, None] * A + rank, parts, rank < A)


@triton.jit
def _router_kernel(
    x, norm, gate, bias, arrivals, logits, chosen, shares, normed, eps,
    E: tl.constexpr, E_PAD: tl.constexpr, A: tl.constexpr, A_PAD: tl.constexpr,
    K: tl.constexpr, PDL: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Program e < E of a token computes the logit of expert e; program E writes the normalised row."""
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
        if arrives_last(arrivals + token, E):
            every = tl.arange(0, E_PAD)[None, :]
            own = tl.load(logits + token * E + every, every < E, float("-inf"))
            _write_choice(own, chosen, shares, token + tl.arange(0, 1), E, A, A_PAD)
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
    arrivals: Tensor,
    chosen: Tensor,
    shares: Tensor,
    normed: Tensor,
    eps: float,
    pdl: bool = False,
) -> Tensor:
    """The chosen experts of x [T, K], and its normalised rows in the form that experts need, for few tokens.

    norm      [K]
    gate      [E, K]
    bias      [E]
    arrivals  [T] or more, int32: zeros, before and after (last_arrival.py)
    chosen    [T, A] int32, best first
    shares    [T, A] float32
    normed    [T, K] float32, `prescaled` (codes.py)
    pdl       whether it may begin while the previous kernel ends, see dependent_launch.py
    returns   logits [T, E] float32
    """
    (tokens, width), experts, used = x.shape, len(gate), chosen.shape[1]
    logits = torch.empty(tokens, experts, dtype=torch.float32, device=x.device)
    operands = (x, norm, gate, bias, arrivals, logits, chosen, shares, normed, eps)
    sizes = (experts, triton.next_power_of_2(experts), used, triton.next_power_of_2(used), width, pdl)
    _router_kernel[(tokens, experts + 1)](*operands, *sizes, **ROUTER_TILE, launch_pdl=pdl)
    return logits


def plain_router(x: Tensor, norm: Tensor, gate: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The logits and `normed` of `router`; the logits are computed from the row before it is rounded."""
    logits = F.linear(rms_norm(x.float(), norm, eps), gate.float(), bias.float())
    return logits, prescaled(rms_norm(x, norm, eps))


@triton.jit(do_not_specialize=["tokens"])
def _choose_kernel(
    parts, bias, chosen, shares, tokens,
    E: tl.constexpr, E_PAD: tl.constexpr, A: tl.constexpr, A_PAD: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    logits = logits_of(parts, bias, token, tokens, E, E_PAD, PARTS)
    _write_choice(logits, chosen, shares, token, E, A, A_PAD)


def choose(parts: Tensor, bias: Tensor, chosen: Tensor, shares: Tensor) -> None:
    """Adds the parts of logits, and writes the chosen experts and their shares.

    parts   [PARTS, T, E]
    bias    [E], added to each sum
    chosen  [T, A] int32, best first
    shares  [T, A] float32
    """
    (count, tokens, experts), used = parts.shape, chosen.shape[1]
    sizes = (experts, triton.next_power_of_2(experts), used, triton.next_power_of_2(used), count)
    _choose_kernel[(tokens,)](parts, bias, chosen, shares, tokens, *sizes, num_warps=1)


def plain_choose(logits: Tensor, experts_per_token: int) -> tuple[Tensor, Tensor]:
    return route(logits, experts_per_token)
