"""Experts at large offsets: the last expert of 120b, and rows of a step of many tokens."""

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
if DEVICE.type == "cuda":
    pytest.skip("tests/gpu is at true sizes anyway", allow_module_level=True)

from model.backends.triton.kernels import codes, experts_few, experts_many
from model.backends.triton.weights import Matrices
from tests.model.backends.triton.offsets.far import (
    CONFIG,
    FAR,
    SCALE,
    C,
    E,
    F,
    close,
    last,
    last_in_the_first_dimension,
    lazy,
    rows_beyond,
)
from tests.tools.sanitizer.sanitizer import watching

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine


def matrices(outputs, width, noise):
    """The experts of 120b, of which only the last is not zero; and the last one alone."""
    words = lazy(E, outputs, width // 8, dtype=torch.int32)
    scales, bias = lazy(E, outputs, width // 32, dtype=torch.uint8), lazy(E, outputs)
    words[-1] = torch.randint(-(2**31), 2**31, words.shape[1:], generator=noise, dtype=torch.int32)
    scales[-1], bias[-1] = SCALE, torch.randn(outputs, generator=noise)
    return Matrices(words, scales, bias), Matrices(words[-1:], scales[-1:], bias[-1:])


def test_the_last_expert_of_120b_is_found_for_few_tokens(noise):
    mlp1, one1 = matrices(2 * F, C, noise)
    mlp2, one2 = matrices(C, F, noise)
    last_expert, whole = torch.full((2, 1), E - 1, dtype=torch.int32), torch.ones(2, 1)
    x, inner = torch.randn(2, C, generator=noise) / 50, torch.zeros(2, F)
    with watching(programs=last, poison=False):
        experts_few.gate_up(codes.prescaled(x), last_expert, mlp1, inner, CONFIG.swiglu_limit)
        out = torch.zeros(2, C)
        experts_few.down(codes.prescaled(x[:, :F]), last_expert, whole, mlp2, out)
    want = experts_few.plain_gate_up(x, last_expert * 0, one1, CONFIG.swiglu_limit)
    at = [(n % 8) * (F // 8) + n // 8 for n in (F - 2, F - 1)]
    close(inner[-1, at], want[-1, at])
    assert inner.count_nonzero() == 2
    want = experts_few.plain_down(x[:, :F], last_expert * 0, whole, one2, torch.zeros(2, C))
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
