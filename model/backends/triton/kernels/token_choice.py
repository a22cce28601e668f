"""Chooses a token for each row of logits, on the device.

Gumbel-max: of the allowed tokens, the one with the largest score, logit / temperature - log E, where the E
are independent and exponentially distributed (Maddison et al. 2014, arXiv:1411.0030).  E depends only on the
row's seed, the position and the token's id (Philox 4x32-10, Salmon et al. 2011), so the drawn token depends
on nothing else in the batch, and E can be computed again at any time.

This saves a search for the filters' threshold.  The winner among all tokens, if the filters keep it, is also
the winner among the kept ones.  If they do not keep it, they keep no less likely token either, so the winner
among the more likely tokens is the next candidate, and so on.  A nucleus of 95% keeps the first candidate in
19 of 20 cases.

    survey   one program for each 1,024 tokens: their largest logit, their mass, their winner
    weigh    the same, only if there are filters: how many tokens are more likely than the winner of all,
             their mass, and their winner
    settle   one program for each row: accepts the first or the second winner, or reads the row again until
             one is kept

Tokens exactly as likely as the last that top_k or top_p keeps are kept too.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.batch import Batch
from model.draws import Draws

BLOCK = 1024
PASS = 4096
"""Tokens that `settle` processes at once when it reads a row again."""

SMALL = 2**-8
"""Up to this v, -log(1 - v) is computed by its series, because 1 - v would be rounded too much."""


@triton.jit
def _noise(seed, position, first, COUNT: tl.constexpr):
    """-log E of tokens first : first + COUNT, both multiples of 4: four tokens share one call of Philox."""
    group = (first // 4 + tl.arange(0, COUNT // 4)).to(tl.uint32)
    zero = group * 0
    a, b, c, d = tl.philox(seed, group, zero + position.to(tl.uint32), zero, zero)
    bits = tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
    v = tl.minimum((bits.to(tl.float32) + 0.5) * 2**-32, 1 - 2**-24)
    series = v * (1 + v * (0.5 + v * 0.33333334))
    return -tl.log(tl.where(v < 2**-8, series, -tl.log(1 - v)))


@triton.jit
def _scores(x, temperature, seed, position, first, COUNT: tl.constexpr):
    scores = x
    if temperature > 0:
        scores = x / temperature + _noise(seed, position, first, COUNT)
    return scores


@triton.jit
def _mass(x, peak, temperature):
    """Likelihoods of x relative to `peak`; 0 for minus infinity."""
    return tl.where(x > float("-inf"), tl.exp((x - peak) / temperature), 0.0)


_SIZES = ["row_size", "size", "blocks"]
_PIECES = ["seeds", "temperatures", "positions", "rows"]
_LIMITS = ["top_ks", "top_ps", "min_ps"]
"""Arguments for whose values or alignment Triton must not compile again: widths of rows, and pointers into
larger tensors, from which a program reads one number.
"""


@triton.jit(do_not_specialize=_SIZES[:2], do_not_specialize_on_alignment=_PIECES)
def _survey_kernel(
    logits, row_size, size, seeds, temperatures, positions, rows,
    peaks, masses, scores, tokens,
    FILTERS: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Program (block, row).  The peak of a block that is not finite is NaN."""
    block, row = tl.program_id(0), tl.program_id(1)
    first = block * BLOCK
    token = first + tl.arange(0, BLOCK)
    x = tl.load(logits + row.to(tl.int64) * row_size + token, token < size, float("-inf"))
    temperature = tl.load(temperatures + row)
    position = tl.load(positions + tl.load(rows + row)) + 1
    score = _scores(x, temperature, tl.load(seeds + row), position, first, BLOCK)
    best = tl.max(score, 0)
    winner = tl.min(tl.where(score == best, token, size - 1), 0)
    peak = tl.max(x, 0)
    broken = tl.max(((x != x) | (x == float("inf"))).to(tl.int32), 0) > 0

    at = row * BLOCKS + block
    tl.store(peaks + at, tl.where(broken, float("nan"), peak))
    tl.store(scores + at, best)
    tl.store(tokens + at, winner)
    if FILTERS and temperature > 0:
        tl.store(masses + at, tl.sum(_mass(x, peak, temperature), 0))


@triton.jit
def _best_of(scores, tokens, row, blocks, size, BLOCKS: tl.constexpr):
    """The winner of a row, from the winners of its blocks."""
    block = tl.arange(0, BLOCKS)
    score = tl.load(scores + row * BLOCKS + block, block < blocks, float("-inf"))
    token = tl.load(tokens + row * BLOCKS + block, block < blocks, size - 1)
    return tl.min(tl.where(score == tl.max(score, 0), token, size - 1), 0)


@triton.jit
def _peak_of(peaks, row, blocks, BLOCKS: tl.constexpr):
    """The largest logit of a row, and whether one of its blocks is not finite."""
    block = tl.arange(0, BLOCKS)
    peak = tl.load(peaks + row * BLOCKS + block, block < blocks, float("-inf"))
    broken = tl.max((peak != peak).to(tl.int32), 0) > 0
    return tl.max(tl.where(peak == peak, peak, float("-inf")), 0), broken


@triton.jit
def _floor(peak, temperature, min_p):
    """The smallest logit that min_p keeps."""
    return tl.where(min_p > 0, peak + temperature * tl.log(tl.maximum(min_p, 1e-37)), float("-inf"))


@triton.jit(do_not_specialize=_SIZES[:2], do_not_specialize_on_alignment=_PIECES + _LIMITS)
def _weigh_kernel(
    logits, row_size, size, seeds, temperatures, top_ks, top_ps, min_ps, positions, rows,
    peaks, scores, tokens,
    counts_above, masses_above, scores_above, tokens_above,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Program (block, row)."""
    block, row, blocks = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    top_k, top_p, min_p = tl.load(top_ks + row), tl.load(top_ps + row), tl.load(min_ps + row)
    temperature = tl.load(temperatures + row)
    if temperature > 0 and (top_k < size or top_p < 1 or min_p > 0):
        logits += row.to(tl.int64) * row_size
        peak, _broken = _peak_of(peaks, row, blocks, BLOCKS)
        winner = tl.load(logits + _best_of(scores, tokens, row, blocks, size, BLOCKS))
        position = tl.load(positions + tl.load(rows + row)) + 1
        first = block * BLOCK
        token = first + tl.arange(0, BLOCK)
        x = tl.load(logits + token, token < size, float("-inf"))
        above = x > winner
        score = _scores(x, temperature, tl.load(seeds + row), position, first, BLOCK)
        score = tl.where(above & (x >= _floor(peak, temperature, min_p)), score, float("-inf"))
        best = tl.max(score, 0)
        at = row * BLOCKS + block
        tl.store(counts_above + at, tl.sum(above.to(tl.int32), 0))
        tl.store(masses_above + at, tl.sum(tl.where(above, _mass(x, peak, temperature), 0.0), 0))
        tl.store(scores_above + at, best)
        tl.store(tokens_above + at, tl.min(tl.where(score == best, token, size - 1), 0))


@triton.jit
def _from(logits, size, low, peak, temperature, PASS: tl.constexpr):
    """The number of logits of a row that are at least `low`, and their mass."""
    count, mass = 0, 0.0
    for first in range(0, size, PASS):
        token = first + tl.arange(0, PASS)
        x = tl.load(logits + token, token < size, float("-inf"))
        count += tl.sum((x >= low).to(tl.int32), 0)
        mass += tl.sum(tl.where(x >= low, _mass(x, peak, temperature), 0.0), 0)
    return count, mass


@triton.jit
def _smallest_of_top(logits, size, top_k, peak, temperature, PASS: tl.constexpr):
    """A threshold that keeps the top_k largest logits of a row, and the mass of these.

    The threshold goes down in steps that double until enough logits are kept, then halve until not too many
    are.
    """
    low, high, step = peak, peak, temperature
    count, mass = _from(logits, size, low, peak, temperature, PASS)
    while count < top_k and low > -1e38:
        high = low
        low -= step
        step *= 2
        count, mass = _from(logits, size, low, peak, temperature, PASS)
    middle = low + (high - low) / 2
    while count > top_k and middle > low and middle < high:
        count_there, mass_there = _from(logits, size, middle, peak, temperature, PASS)
        enough = count_there >= top_k
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
        count, mass = tl.where(enough, count_there, count), tl.where(enough, mass_there, mass)
        middle = low + (high - low) / 2
    return low, mass


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_PIECES + _LIMITS)
def _settle_kernel(
    logits, row_size, size, blocks, seeds, temperatures, top_ks, top_ps, min_ps, positions, rows,
    peaks, masses, scores, tokens,
    counts_above, masses_above, scores_above, tokens_above,
    chosen,
    FILTERS: tl.constexpr, BLOCKS: tl.constexpr, PASS: tl.constexpr,
):  # fmt: skip
    """Program (row)."""
    row = tl.program_id(0)
    logits += row.to(tl.int64) * row_size
    peak, broken = _peak_of(peaks, row, blocks, BLOCKS)
    token = _best_of(scores, tokens, row, blocks, size, BLOCKS)
    finite = (peak > float("-inf")) & (broken == 0)
    if FILTERS:
        top_k, top_p, min_p = tl.load(top_ks + row), tl.load(top_ps + row), tl.load(min_ps + row)
        temperature = tl.load(temperatures + row)
        if finite and temperature > 0 and (top_k < size or top_p < 1 or min_p > 0):
            seed, position = tl.load(seeds + row), tl.load(positions + tl.load(rows + row)) + 1
            block = tl.arange(0, BLOCKS)
            at = row * BLOCKS + block
            lowest = _floor(peak, temperature, min_p)
            most = float("inf")
            if top_p < 1:
                if top_k < size:
                    smallest, of_top = _smallest_of_top(logits, size, top_k, peak, temperature, PASS)
                    lowest = tl.maximum(lowest, smallest)
                    most = top_p * of_top
                else:
                    of_block = tl.load(masses + at, block < blocks, 0.0)
                    block_peak = tl.load(peaks + at, block < blocks, float("-inf"))
                    most = top_p * tl.sum(of_block * _mass(block_peak, peak, temperature), 0)

            count = tl.sum(tl.load(counts_above + at, block < blocks, 0), 0)
            mass = tl.sum(tl.load(masses_above + at, block < blocks, 0.0), 0)
            following = _best_of(scores_above, tokens_above, row, blocks, size, BLOCKS)
            x = tl.load(logits + token)
            while x < peak and (x < lowest or count >= top_k or mass >= most):
                token = following
                x = tl.load(logits + token)
                count, mass, best = 0, 0.0, float("-inf")
                for first in range(0, size, PASS):
                    each = first + tl.arange(0, PASS)
                    y = tl.load(logits + each, each < size, float("-inf"))
                    above = y > x
                    count += tl.sum(above.to(tl.int32), 0)
                    mass += tl.sum(tl.where(above, _mass(y, peak, temperature), 0.0), 0)
                    score = _scores(y, temperature, seed, position, first, PASS)
                    score = tl.where(above & (y >= lowest), score, float("-inf"))
                    largest = tl.max(score, 0)
                    winner = tl.min(tl.where(score == largest, each, size - 1), 0)
                    following = tl.where(largest > best, winner, following)
                    best = tl.maximum(largest, best)
    tl.store(chosen + row, token.to(tl.int64))
    tl.store(chosen + tl.num_programs(0) + row, finite.to(tl.int64))


def choose_tokens(logits: Tensor, draws: Draws, batch: Batch) -> Tensor:
    """A token for each row of logits [N, V] float32, which are not changed.

    draws    parameters of the N rows
    batch    the rows belong to its first N samples: a token's position is its sample's plus one
    returns  [2, N] int64: the tokens, and 1, or 0 where none can be chosen (NaN, infinite, none allowed)
    """
    (count, size), device = logits.shape, logits.device
    blocks = triton.cdiv(size, BLOCK)
    padded = triton.next_power_of_2(blocks)
    chosen = torch.empty(2, count, dtype=torch.int64, device=device)
    numbers = torch.empty(5, count, padded, dtype=torch.float32, device=device)
    tokens = torch.empty(3, count, padded, dtype=torch.int32, device=device)
    peaks, masses, scores, masses_above, scores_above = numbers.unbind()
    winners, winners_above, counts_above = tokens.unbind()

    of_row = (draws.seeds, draws.temperature)
    limits = (draws.top_k, draws.top_p, draws.min_p)
    places = (batch.positions, batch.samples)
    found = (peaks, masses, scores, winners)
    above = (counts_above, masses_above, scores_above, winners_above)
    row_size, grid = logits.stride(0), (blocks, count)
    _survey_kernel[grid](
        logits, row_size, size, *of_row, *places, *found,
        FILTERS=draws.filters, BLOCK=BLOCK, BLOCKS=padded, num_warps=4,
    )  # fmt: skip
    if draws.filters:
        _weigh_kernel[grid](
            logits, row_size, size, *of_row, *limits, *places, peaks, scores, winners, *above,
            BLOCK=BLOCK, BLOCKS=padded, num_warps=4,
        )  # fmt: skip
    width = min(PASS, padded * BLOCK)
    _settle_kernel[(count,)](
        logits, row_size, size, blocks, *of_row, *limits, *places, *found, *above, chosen,
        FILTERS=draws.filters, BLOCKS=padded, PASS=width,
        num_warps=width // 256 if draws.filters else 4,  # eight numbers a lane; otherwise registers spill
    )  # fmt: skip
    return chosen


def philox(seeds: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Four 32-bit numbers for each key of 64 bits and counter (first, second, 0, 0): [..., 4] int64.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", Philox 4x32-10.
    """
    word = 0xFFFF_FFFF

    def multiply(constant: int, by: Tensor) -> tuple[Tensor, Tensor]:
        """The upper and the lower word of the product."""
        above, below = by >> 16, by & 0xFFFF
        upper, lower = constant * above, constant * below
        return (upper + (lower >> 16)) >> 16, (((upper & 0xFFFF) << 16) + lower) & word

    key0, key1 = seeds & word, (seeds >> 32) & word
    c0, c1, c2, c3 = first & word, second & word, torch.zeros_like(first), torch.zeros_like(first)
    for _ in range(10):
        upper0, lower0 = multiply(0xD2511F53, c0)
        upper2, lower2 = multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = upper2 ^ c1 ^ key0, lower2, upper0 ^ c3 ^ key1, lower0
        key0, key1 = (key0 + 0x9E3779B9) & word, (key1 + 0xBB67AE85) & word
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), -1)


def plain_noise(seeds: Tensor, positions: Tensor, size: int) -> Tensor:
    """-log E of each row's tokens [N, V]."""
    groups = torch.arange(-(-size // 4), device=seeds.device)
    bits = philox(seeds[:, None], groups.expand(len(seeds), -1), positions[:, None])
    v = ((bits.flatten(1)[:, :size].float() + 0.5) * 2**-32).clamp(max=1 - 2**-24)
    series = v * (1 + v * (0.5 + v * 0.33333334))
    return -torch.where(v < SMALL, series, -(1 - v).log()).log()


def plain_scores(logits: Tensor, draws: Draws, batch: Batch) -> Tensor:
    """The score of each token of each row [N, V], computed by sorting; minus infinity if it is not
    allowed.
    """
    positions = batch.positions[batch.samples[: len(logits)]] + 1
    greedy = (draws.temperature == 0)[:, None]
    temperature = draws.temperature[:, None].where(~greedy, 1.0)
    best = logits.sort(-1, descending=True).values
    likely = (best / temperature).double().softmax(-1)
    kept = best >= best.gather(1, draws.top_k[:, None].long() - 1)
    limit = torch.where(draws.top_p < 1, draws.top_p, torch.inf)[:, None] * (likely * kept).sum(-1, True)
    kept &= (likely.cumsum(-1) - likely < limit) & (likely >= draws.min_p[:, None] * likely[:, :1])
    kept[:, 0] = True  # even for top_p = 0
    smallest = torch.where(kept, best, torch.inf).min(-1, keepdim=True).values

    noise = plain_noise(draws.seeds, positions, logits.shape[1])
    scores = torch.where(logits >= smallest, logits / temperature + noise, -torch.inf)
    return torch.where(greedy, logits, scores)


def plain_tokens(logits: Tensor, draws: Draws, batch: Batch) -> Tensor:
    """The result of `choose_tokens`."""
    peak = logits.max(-1).values  # NaN, if there is one, is the largest
    return torch.stack((plain_scores(logits, draws, batch).argmax(-1), peak.isfinite().long()))
