"""Offsets beyond 2 ** 31 elements, at the true sizes of 20b and 120b.

A 32-bit product of a row number and a width overflows in a large tensor, and the kernel then reads somewhere
else.  The tensors here have the sizes that occur on a GPU of 80 GB in a step of many tokens, but only the
parts that are touched take memory.  Of each launch only the last programs run.  The sanitizer checks that
they stay inside the tensors, and a small copy of the data gives the expected result.
"""

import math
from itertools import product

import pytest
import torch

from model.loading.synthetic import SIZES
from tests.tools.sanitizer.sanitizer_memory import lazy_zeros

FAR = 2**31
CONFIG = SIZES["120b"]
C, F, E, V = CONFIG.hidden_size, CONFIG.intermediate_size, CONFIG.num_experts, CONFIG.vocab_size
H, KV, D, PAGE = CONFIG.num_heads, CONFIG.num_kv_heads, CONFIG.head_dim, 32
SCALE = 120
"""The exponent byte of weights: a scale of 2 ** -7."""


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


def rows_beyond(width):
    """The number of rows of this width after which offsets exceed 2 ** 31; a multiple of 128."""
    return (FAR // width + 256) // 128 * 128


def close(got, want):
    torch.testing.assert_close(got.float(), want.float(), rtol=2e-4, atol=2e-4)
