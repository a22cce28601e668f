"""MXFP4 for the GPU: eight codes in a word, with their bits where a float32 wants them.

A code has a sign, two bits of exponent and one of mantissa: s ee m.  The last three, put at bits 22 to 24 of
a float32, read as the code's magnitude times 2 ** -126 (as a subnormal number if ee is 0, exactly as e2m1
means it), and the sign belongs at bit 31.  So a shift and a mask make a number of a code, if its sign is nine
places above its mantissa.  For four of eight codes there is room for that in a word; the others take one more
of each:

    bit    31 30 29 28 27 26 25 24 23 22 21 20 19 18 17 16 15 14 13 12 11 10  9  8  7  6  5  4  3  2  1  0
    code    7  4  3  6  1  0  2  7  7  7  6  6  6  2  2  2  5  4  4  4  3  3  3  5  5  5  1  1  1  0  0  0
    part    s  s  s  s  s  s  s  e  e  m  e  e  m  e  e  m  s  e  e  m  e  e  m  e  e  m  e  e  m  e  e  m

Word j of a row holds the codes of columns 8 j to 8 j + 7, as the checkpoint's bytes do, read as 32-bit words.
`plane` i of a row of activations is its columns 8 j + i, so that code i of all words meets contiguous
numbers.

    words  [..., K / 8] int32      scales  [..., K / 32] uint8: 2 ** (byte - 127), shared by four words
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MAGNITUDE_AT = (0, 3, 16, 9, 12, 6, 19, 22)
SIGN_AT = (26, 27, 25, 29, 30, 15, 28, 31)
"""The lowest bit of code i's magnitude, and the bit of its sign."""

LARGEST_SCALE = 154
"""`lent_power` has a factor of 2 ** 100 in it, and must still be a float32."""

_MAGNITUDE_SHIFT = tl.constexpr(tuple(22 - bit for bit in MAGNITUDE_AT))
_SIGN_SHIFT = tl.constexpr(tuple(31 - bit for bit in SIGN_AT))
_AT_MAGNITUDE = tl.constexpr(MAGNITUDE_AT)
_AT_SIGN = tl.constexpr(SIGN_AT)

CODE_TO_ONE = tl.constexpr(2.0**26)
"""What is left to multiply a sum of products by: 2 ** 126 over the 2 ** 100 that was lent to one factor."""
LENT = tl.constexpr(2.0**100)


@triton.jit
def code(words, i: tl.constexpr):
    """Code i of each word, times 2 ** -126, as float32."""
    if _MAGNITUDE_SHIFT[i] == _SIGN_SHIFT[i]:
        bits = (words << _MAGNITUDE_SHIFT[i]) & 0x81C00000
    else:
        bits = ((words << _MAGNITUDE_SHIFT[i]) & 0x01C00000) | ((words << _SIGN_SHIFT[i]) & 0x80000000)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def power(scales):
    """2 ** (byte - 127), as float32; a byte of 0, which stands for 2 ** -127, gives 0."""
    return (scales.to(tl.uint32) << 23).to(tl.float32, bitcast=True)


@triton.jit
def lent_power(scales):
    """2 ** (byte - 127), with 2 ** 100 lent: a code times this is a bfloat16 to the last bit."""
    return ((scales.to(tl.uint32) + 100) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _pack_kernel(words, num_words, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    raw = tl.load(words + at, at < num_words, 0).to(tl.uint32, bitcast=True)
    packed = raw & 0
    for i in tl.static_range(8):
        packed |= ((raw >> (4 * i)) & 7) << _AT_MAGNITUDE[i]
        packed |= ((raw >> (4 * i + 3)) & 1) << _AT_SIGN[i]
    tl.store(words + at, packed.to(tl.int32, bitcast=True), at < num_words)


def pack(blocks: Tensor) -> Tensor:
    """The checkpoint's blocks [..., K / 32, 16] uint8, contiguous, as words [..., K / 8] int32: in place."""
    words: Tensor = blocks.flatten(-2).view(torch.int32)
    block = 1024
    _pack_kernel[(triton.cdiv(words.numel(), block),)](words, words.numel(), block)
    return words


def unpack(words: Tensor) -> Tensor:
    """The checkpoint's blocks again: what `pack` was given."""
    raw = torch.zeros_like(words)
    for i, (magnitude, sign) in enumerate(zip(MAGNITUDE_AT, SIGN_AT, strict=True)):
        raw |= ((words >> magnitude) & 7 | ((words >> sign) & 1) << 3) << 4 * i
    blocks: Tensor = raw.view(torch.uint8).unflatten(-1, (-1, 16))
    return blocks


def planes(x: Tensor) -> Tensor:
    """Columns of x [..., K] by their remainder: plane i first to last [..., K / 8 of each]."""
    rows: Tensor = x.unflatten(-1, (-1, 8))
    return rows.transpose(-1, -2).flatten(-2)
