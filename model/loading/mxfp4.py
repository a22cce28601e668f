"""MXFP4, the number format of the experts: 32 values share one scale, 4.25 bits a value.

A value is an e2m1 code of four bits (sign, two of exponent, one of mantissa: 0 ½ 1 1½ 2 3 4 6 and their
negatives); two codes fill a byte, the earlier value in the low four bits.  The scale of a block is a byte
that stands for 2 ** (byte - 127), or for NaN if 255.

    blocks  [..., K / 32, 16] uint8      scales  [..., K / 32] uint8      ↔      [..., K]

OCP Microscaling Formats (MX) Specification v1.0, sections 5.2 to 5.4 and 6.3.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

BLOCK = 32
"""Values that share a scale."""

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_MIDDLES = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)  # between code 0 and 1, 1 and 2, ... of the above
_LARGEST_SCALE = 252  # 6 * 2 ** 125: at the next scale, the largest code would be beyond float32


def decode(blocks: Tensor, scales: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Decode, exactly: two bits of significand fit into any dtype with float32's exponents.

    A scale of 255 makes its block NaN.  From 253 on, values beyond float32 become infinite.

    blocks   [..., K / 32, 16] uint8
    scales   [..., K / 32]     uint8
    returns  [..., K] in `dtype`: bfloat16, float32 or float64
    """
    pairs, powers = _tables(dtype, blocks.device)
    looked_up = pairs.index_select(
        0, blocks.flatten().int()
    )  # one element a pair: 5x faster than rows of two
    values = looked_up.view(dtype).view(*scales.shape, BLOCK)
    return (values * powers[scales.int()][..., None]).flatten(-2)


def encode(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Encode by rounding to the nearest value; of two equally near ones, to the even code.

    A block's scale is the smallest one at which its largest magnitude is at most 7, so that it rounds to a
    code.  (The specification's choice, which depends only on the exponent of the magnitude, would reduce
    magnitudes between 7 and 8 to 6.)  Values on the format's grid, such as those `decode` returns, stay
    exactly the same, including the sign of zero.  A block of zeros has scale 0, the smallest; values too
    small for it become zero.  Scales are at most 252, so that finite values stay finite.

    weights  [..., K], K a multiple of 32
    returns  blocks [..., K / 32, 16] uint8, scales [..., K / 32] uint8
    raises   ValueError if a weight is NaN or infinite
    """
    values = weights.float().reshape(*weights.shape[:-1], -1, BLOCK)
    largest = values.abs().amax(-1)
    if not bool(largest.isfinite().all()):
        raise ValueError("NaN and infinity have no MXFP4 value")
    mantissa, exponent = torch.frexp(largest)  # largest = mantissa * 2 ** exponent, mantissa in [½, 1)
    scales = exponent - 3 + (mantissa > 7 / 8) + 127  # so that largest / 2 ** (scale - 127) is in (3.5, 7]
    scales = torch.where(largest == 0, 0, scales.clamp(0, _LARGEST_SCALE)).to(torch.uint8)

    _, powers = _tables(torch.float32, weights.device)
    scaled = values / powers[scales.int()][..., None]
    codes = 8 * scaled.signbit().to(torch.uint8)
    magnitudes = scaled.abs_()
    for code, middle in enumerate(
        _MIDDLES
    ):  # one code more for each middle that is passed, or reached below an even code
        codes += magnitudes > middle if code % 2 == 0 else magnitudes >= middle
    return codes[..., ::2] | codes[..., 1::2] << 4, scales


@cache
def _tables(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The two values of every byte, as one element twice as wide, and the power of two of every scale."""
    values = [*_MAGNITUDES, *(-magnitude for magnitude in _MAGNITUDES)]
    pairs = [(values[byte & 15], values[byte >> 4]) for byte in range(256)]
    powers = [2.0 ** (byte - 127) for byte in range(255)] + [float("nan")]
    wide = {2: torch.int32, 4: torch.int64, 8: torch.complex128}[dtype.itemsize]
    return (
        torch.tensor(pairs, dtype=dtype, device=device).view(wide).flatten(),
        torch.tensor(powers, dtype=dtype, device=device),
    )
