"""MXFP4 for the GPU: eight codes in a word, with their bits where a float32 wants them.

A code has a sign, two bits of exponent and one of mantissa: s ee m.  The last three, put at bits 22 to 24 of
a float32, read as the code's magnitude times 2 ** -126 (as a subnormal number if ee is 0, exactly as e2m1
means it), and the sign belongs at bit 31.  So a rotation and a mask make a number of a code, if its sign is
nine places above its mantissa, counted around the word.  A word has room for six such codes; the others come
in two parts, and take two of each:

    bit    31 30 29 28 27 26 25 24 23 22 21 20 19 18 17 16 15 14 13 12 11 10  9  8  7  6  5  4  3  2  1  0
    code    0  2  2  2  1  7  6  0  0  0  5  1  1  1  7  6  4  5  5  5  6  6  3  4  4  4  2  7  7  3  3  3
    part    s  e  e  m  s  s  s  e  e  m  s  e  e  m  m  m  s  e  e  m  e  e  s  e  e  m  s  e  e  e  e  m

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

PLACES = (
    (22, 23, 24, 31), (18, 19, 20, 27), (28, 29, 30, 5), (0, 1, 2, 9),
    (6, 7, 8, 15), (12, 13, 14, 21), (16, 10, 11, 25), (17, 3, 4, 26),
)  # fmt: skip
"""Where bits 0 to 3 of each code are in a word: m, e, e, s."""

_WANTED = (22, 23, 24, 31)
"""Where a float32 wants them."""

LARGEST_SCALE = 154
"""`lent_power` has a factor of 2 ** 100 in it, and must still be a float32."""


def _parts(places: tuple[int, ...]) -> list[tuple[int, int, bool]]:
    """How a code's bits get where they are wanted: by how many bits to rotate the word to the left, the mask
    of what is right then, and whether what it masks has gone around the word's end."""
    turns: dict[int, list[tuple[int, int]]] = {}
    for place, wanted in zip(places, _WANTED, strict=True):
        turns.setdefault((wanted - place) % 32, []).append((place, wanted))
    return [
        (turn, sum(1 << wanted for _, wanted in bits), any(wanted < place for place, wanted in bits))
        for turn, bits in turns.items()
    ]


_NONE = (0, 0, False)
_ALL_PARTS = [(*_parts(places), _NONE)[:2] for places in PLACES]
assert all(len(_parts(places)) <= 2 for places in PLACES)

_TURN, _MASK, _AROUND = (
    tl.constexpr(tuple(tuple(part[what] for part in parts) for parts in _ALL_PARTS)) for what in range(3)
)
_PLACES = tl.constexpr(PLACES)

CODE_TO_ONE = tl.constexpr(2.0**26)
"""What is left to multiply a sum of products by: 2 ** 126 over the 2 ** 100 that was lent to one factor."""
LENT = tl.constexpr(2.0**100)
"""Either the activations bring it along (`lent`), or the scale does (`lent_power`)."""


@triton.jit
def _part(words, i: tl.constexpr, part: tl.constexpr):
    """One part of code i of each word, where it is wanted."""
    turned = words
    if _AROUND[i][part]:
        turned = (words << _TURN[i][part]) | (words >> (32 - _TURN[i][part]))
    elif _TURN[i][part] > 0:
        turned = words << _TURN[i][part]
    return turned & _MASK[i][part]


@triton.jit
def code(words, i: tl.constexpr):
    """Code i of each word, times 2 ** -126, as float32."""
    bits = _part(words, i, 0)
    if _MASK[i][1] != 0:
        bits |= _part(words, i, 1)
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
        for bit in tl.static_range(4):
            packed |= ((raw >> (4 * i + bit)) & 1) << _PLACES[i][bit]
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
    for i, places in enumerate(PLACES):
        for bit, place in enumerate(places):
            raw |= ((words >> place) & 1) << (4 * i + bit)
    blocks: Tensor = raw.view(torch.uint8).unflatten(-1, (-1, 16))
    return blocks


def lent(x: Tensor) -> Tensor:
    """x [..., K] as `code` wants what it is multiplied by: in planes, float32, times 2 ** 100."""
    rows: Tensor = planes(x).float() * LENT.value
    return rows


def planes(x: Tensor) -> Tensor:
    """Columns of x [..., K] by their remainder: plane i first to last [..., K / 8 of each]."""
    rows: Tensor = x.unflatten(-1, (-1, 8))
    return rows.transpose(-1, -2).flatten(-2)
