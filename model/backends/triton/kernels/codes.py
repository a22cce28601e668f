"""MXFP4 for the GPU: eight codes in a word, arranged so that two at a time become a pair of bfloat16.

A code has a sign, two bits of exponent and one of mantissa: s ee m.  At bits 15 and 8 to 6 of a bfloat16, it
is the code's value times 2 ** -126 (a subnormal number if ee is 0, exactly as in e2m1).  A word of 32 bits
holds two bfloat16, so one rotation and one mask convert two codes, if both are equally far from their places
in the bfloat16.  A word has room for three such pairs; the fourth needs two rotations:

    bit    31 30 29 28 27 26 25 24 23 22 21 20 19 18 17 16 15 14 13 12 11 10  9  8  7  6  5  4  3  2  1  0
    code    1  4  4  4  3  6  7  1  1  1  5  3  3  3  7  7  0  5  5  5  2  7  6  0  0  0  4  2  2  2  6  6
    part    s  e  e  m  s  e  s  e  e  m  s  e  e  m  e  m  s  e  e  m  s  e  s  e  e  m  s  e  e  m  e  m

Word j of a row holds the codes of columns 8 j to 8 j + 7, like the checkpoint's bytes read as 32-bit words;
pair i of a word is its codes 2 i and 2 i + 1.

Tensor cores need the weights of 128 columns in registers, with four lanes for a row, and each lane should
read 16 bytes of codes that share one scale.  A lane that has 32 columns then multiplies them with activations
that are not contiguous in memory, unless these are in **fragment order**: of 128 columns first 0, 1, 32, 33,
64, 65, 96, 97, then 2, 3, 34 and so on.  The rows of activations that experts read are in this order, padded
with zeros to a multiple of 128 columns.

The experts of few tokens decode one code after the other, as float32, which has sign and exponent at the same
bits as the upper bfloat16 of a pair.  They need activations in **planes**: plane i of a row has its columns 8
j + i, so that code i of all words is multiplied with contiguous numbers.

    words  [..., K / 8] int32      scales  [..., K / 32] uint8: 2 ** (byte - 127), shared by four words
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

PLACES = (
    (6, 7, 8, 15), (22, 23, 24, 31), (2, 3, 4, 11), (18, 19, 20, 27),
    (28, 29, 30, 5), (12, 13, 14, 21), (0, 1, 26, 9), (16, 17, 10, 25),
)  # fmt: skip
"""The bits of a word at which bits 0 to 3 of each code are: m, e, e, s."""

_TARGETS = ((6, 7, 8, 15), (22, 23, 24, 31))
"""The bits of a word at which a pair of bfloat16 needs them."""

LARGEST_SCALE = 154
"""`paired_power` contains a factor of 2 ** 100, and must not overflow a bfloat16.  With scales below 21,
weights lose bits or become zero, because they are smaller than 2 ** -103.
"""

GROUP = tl.constexpr(32)
"""Columns that share a scale."""
GROUPS = tl.constexpr(4)
"""Groups of a block in fragment order: one for each of the lanes that share a row."""
BLOCK = tl.constexpr(128)
"""Columns of such a block."""


def _parts(*codes: tuple[int, tuple[int, ...]]) -> tuple[tuple[int, int], ...]:
    """How to move codes to their targets: two pairs of a rotation of the word to the left, in bits, and the
    mask of the bits that are then in place.  A mask of 0 means that the second rotation is not needed.

    codes  (code, target bits)
    """
    masks: dict[int, int] = {}
    for code, targets in codes:
        for place, bit in zip(PLACES[code], targets, strict=True):
            turn = (bit - place) % 32
            masks[turn] = masks.get(turn, 0) | 1 << bit
    assert len(masks) <= 2
    return (*masks.items(), (0, 0))[:2]


_PAIRS = [_parts(*zip((2 * i, 2 * i + 1), _TARGETS, strict=True)) for i in range(4)]
_SINGLE = [_parts((i, _TARGETS[1])) for i in range(8)]  # a float32 has the bits of the upper bfloat16
_PAIR_TURN, _PAIR_MASK, _TURN, _MASK = (
    tl.constexpr(tuple(tuple(part[what] for part in parts) for parts in each))
    for each in (_PAIRS, _SINGLE)
    for what in range(2)
)
_PLACES = tl.constexpr(PLACES)

_PACKED = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1")
"""Whether two bfloat16 are multiplied by one instruction, which the interpreter does not support."""

PRESCALE = tl.constexpr(2.0**100)
"""A factor of activations (`prescaled`) or of scales (`paired_power`), so that products do not underflow."""
_MULTIPLY = tl.constexpr("{.reg .b32 both; fma.rn.bf16x2 both, $2, $3, $4; mov.b32 {$0, $1}, both;}")
"""PTX: multiplies operands 2 and 3 in both halves, adds operand 4, and separates the results."""

CODE_TO_ONE = tl.constexpr(2.0**26)
"""The factor that a sum of products still needs: 2 ** 126 of the codes, divided by PRESCALE."""


@triton.jit
def _part(words, TURN: tl.constexpr, MASK: tl.constexpr):
    """The bits of each word that are in place after this rotation."""
    turned = words
    if TURN > 0:
        turned = (words << TURN) | (words >> (32 - TURN))
    return turned & MASK


@triton.jit
def code(words, i: tl.constexpr):
    """Code i of each word, times 2 ** -126, as float32."""
    bits = _part(words, _TURN[i][0], _MASK[i][0])
    if _MASK[i][1] != 0:
        bits |= _part(words, _TURN[i][1], _MASK[i][1])
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def pair(words, i: tl.constexpr):
    """Codes 2 i and 2 i + 1 of each word, times 2 ** -126, as bfloat16 in the lower and the upper half."""
    bits = _part(words, _PAIR_TURN[i][0], _PAIR_MASK[i][0])
    if _PAIR_MASK[i][1] != 0:
        bits |= _part(words, _PAIR_TURN[i][1], _PAIR_MASK[i][1])
    return bits


@triton.jit
def power(scales):
    """2 ** (byte - 127), as float32; a byte of 0, which stands for 2 ** -127, gives 0."""
    return (scales.to(tl.uint32) << 23).to(tl.float32, bitcast=True)


@triton.jit
def paired_power(scales):
    """2 ** (byte - 127) * 2 ** 100 as bfloat16, twice in a word."""
    return (scales.to(tl.uint32) + 100) * 0x00800080


@triton.jit
def scaled(pairs, powers, DTYPE: tl.constexpr):
    """Both numbers of each pair times its power of two: two tensors.  Exact, in bfloat16 too."""
    if tl.bfloat16 == DTYPE and _PACKED:
        minus_zero = powers * 0 + 0x80008000  # adding it changes nothing, not even the sign of a zero
        low, high = tl.inline_asm_elementwise(
            _MULTIPLY,
            "=h,=h,r,r,r",
            [pairs, powers, minus_zero],
            dtype=(tl.bfloat16, tl.bfloat16),
            is_pure=True,
            pack=1,
        )
    else:
        scale = (powers << 16).to(tl.float32, bitcast=True)
        low = ((pairs << 16).to(tl.float32, bitcast=True) * scale).to(DTYPE)
        high = ((pairs & 0xFFFF0000).to(tl.float32, bitcast=True) * scale).to(DTYPE)
    return low, high


@triton.jit
def weights(words, scales, DTYPE: tl.constexpr):
    """A block of weights [ROWS, 128] in fragment order, times 2 ** -26.

    words   [ROWS, 4, 4] uint32: the four words of each group of 32 columns
    scales  [ROWS, 4] uint8
    """
    powers = tl.broadcast_to(paired_power(scales)[:, :, None], words.shape)
    low0, high0 = scaled(pair(words, 0), powers, DTYPE)
    low1, high1 = scaled(pair(words, 1), powers, DTYPE)
    low2, high2 = scaled(pair(words, 2), powers, DTYPE)
    low3, high3 = scaled(pair(words, 3), powers, DTYPE)
    low = tl.join(tl.join(low0, low2), tl.join(low1, low3))
    high = tl.join(tl.join(high0, high2), tl.join(high1, high3))
    both = tl.reshape(tl.join(low, high), [words.shape[0], GROUPS, GROUP // 2, 2])
    return tl.reshape(tl.permute(both, [0, 2, 1, 3]), [words.shape[0], BLOCK])


@triton.jit
def fragment_place(column):
    """The place of a column in fragment order."""
    group, within = column % BLOCK // GROUP, column % GROUP
    return column // BLOCK * BLOCK + within // 2 * (2 * GROUPS) + group * 2 + within % 2


@triton.jit
def fragment_column(place):
    """The column at this place in fragment order."""
    group, within = place % (2 * GROUPS) // 2, place % BLOCK // (2 * GROUPS) * 2 + place % 2
    return place // BLOCK * BLOCK + group * GROUP + within


@triton.jit
def _pack_kernel(words, num_words, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    raw = tl.load(words + at, at < num_words, 0).to(tl.uint32, bitcast=True)
    packed = raw & 0
    for i in tl.static_range(8):
        for bit in tl.static_range(4):
            packed |= ((raw >> (4 * i + bit)) & 1) << _PLACES[i][bit]
    tl.store(words + at, packed.to(tl.int32, bitcast=True), at < num_words)


def pack(blocks: Tensor) -> Tensor:
    """Converts the checkpoint's blocks [..., K / 32, 16] uint8, contiguous, in place to words [..., K / 8]
    int32.
    """
    words: Tensor = blocks.flatten(-2).view(torch.int32)
    block = 1024
    _pack_kernel[(triton.cdiv(words.numel(), block),)](words, words.numel(), block)
    return words


def unpack(words: Tensor) -> Tensor:
    """The checkpoint's blocks: the inverse of `pack`."""
    raw = torch.zeros_like(words)
    for i, places in enumerate(PLACES):
        for bit, place in enumerate(places):
            raw |= ((words >> place) & 1) << (4 * i + bit)
    blocks: Tensor = raw.view(torch.uint8).unflatten(-1, (-1, 16))
    return blocks


def padded(width: int) -> int:
    """The width of a row of `width` columns in fragment order."""
    block: int = BLOCK.value
    return -(-width // block) * block


def in_fragments(x: Tensor) -> Tensor:
    """Rows x [..., K] in fragment order: [..., padded(K)], padded with zeros."""
    width = x.shape[-1]
    blocks = F.pad(x, (0, padded(width) - width)).unflatten(-1, (-1, GROUPS.value, GROUP.value // 2, 2))
    rows: Tensor = blocks.transpose(-3, -2).flatten(-4)
    return rows


def prescaled(x: Tensor) -> Tensor:
    """x [..., K] in the form that `code`'s results are multiplied with: in planes, float32, times 2
    ** 100.
    """
    rows: Tensor = planes(x).float() * PRESCALE.value
    return rows


def planes(x: Tensor) -> Tensor:
    """The columns of x [..., K], ordered by plane: plane i has the K / 8 columns 8 j + i."""
    rows: Tensor = x.unflatten(-1, (-1, 8))
    return rows.transpose(-1, -2).flatten(-2)
