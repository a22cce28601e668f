"""MXFP4 compared with the tables of the OCP Microscaling specification, computed in float64 without torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.loading.mxfp4 import decode, encode

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def by_hand(blocks: torch.Tensor, scales: torch.Tensor) -> np.ndarray:
    """Decodes bit by bit: sign, two bits of exponent with bias 1, one of mantissa."""
    codes = (
        np.stack([blocks.numpy() & 15, blocks.numpy() >> 4], axis=-1)
        .reshape(*scales.shape, 32)
        .astype(np.int64)
    )
    sign, exponent, mantissa = codes >> 3, codes >> 1 & 3, codes & 1
    magnitude = np.where(exponent == 0, mantissa / 2, (1 + mantissa / 2) * 2.0 ** (exponent - 1))
    values = (
        np.where(sign == 1, -magnitude, magnitude)
        * 2.0 ** (scales.numpy().astype(np.float64) - 127)[..., None]
    )
    return values.reshape(*values.shape[:-2], -1)


def random_blocks(*shape: int, low: int = 1, high: int = 253) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(7)
    blocks = torch.randint(0, 256, (*shape, 16), generator=random).to(torch.uint8)
    return blocks, torch.randint(low, high, shape, generator=random).to(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_every_code_has_its_value_low_bits_first(dtype):
    pairs = torch.arange(0, 256, 17, dtype=torch.uint8).view(1, 16)  # byte 17 k holds code k twice
    decoded = decode(pairs, torch.tensor([127], dtype=torch.uint8), dtype)
    assert decoded.dtype == dtype
    assert decoded.tolist() == [value for value in E2M1 for _ in range(2)]
    assert decode(torch.tensor([[0x72] + [0] * 15], dtype=torch.uint8), torch.tensor([127]), dtype)[
        :2
    ].tolist() == [1, 6]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_decoding_is_exact_at_every_scale(dtype):
    blocks, scales = random_blocks(3, 5, 7)
    np.testing.assert_array_equal(decode(blocks, scales, dtype).double().numpy(), by_hand(blocks, scales))


def test_the_extreme_scales():
    ones = torch.full((1, 16), 0x22, dtype=torch.uint8)
    values = {
        scale: decode(ones, torch.tensor([scale], dtype=torch.uint8))[0].item() for scale in (0, 254, 255)
    }
    assert values[0] == 2.0**-127
    assert values[254] == 2.0**127
    assert np.isnan(values[255])


def test_what_is_on_the_grid_is_kept():
    """Values stay the same, but perhaps not codes: a block without a 4 or a 6 has also a lower scale."""
    blocks, scales = random_blocks(64, 9, low=3)
    values = decode(blocks, scales, torch.float32)
    again = encode(values)
    assert torch.equal(
        decode(*again, torch.float32).view(torch.int32), values.view(torch.int32)
    )  # zero's sign too


def test_codes_come_back_as_they_were():
    """If the largest magnitude is 4 or 6, only one scale is possible."""
    blocks, scales = random_blocks(64, 9, high=252)
    blocks[..., 0] = blocks[..., 0] & 0xF0 | torch.randint(6, 8, scales.shape, dtype=torch.uint8)
    again = encode(decode(blocks, scales))
    assert torch.equal(again[0], blocks)
    assert torch.equal(again[1], scales)


def test_all_codes_survive():
    blocks = torch.arange(0, 256, 17, dtype=torch.uint8).view(1, 16)
    again, scales = encode(decode(blocks, torch.tensor([100], dtype=torch.uint8)))
    assert again.tolist() == blocks.tolist()
    assert scales.tolist() == [100]


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (0.25, 0),
        (0.75, 1),
        (1.25, 1),
        (1.75, 2),
        (2.5, 2),
        (3.5, 4),
        (5, 4),
        (0.26, 0.5),
        (0.74, 0.5),
        (5.1, 6),
    ],
)
def test_halfway_goes_to_the_even_code(value, rounded):
    block = torch.tensor([[6.0, value, -value] + [0.0] * 29])
    assert decode(*encode(block), torch.float32)[0, :3].tolist() == [6, rounded, -rounded]


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=32, max_size=32))
@settings(max_examples=200, deadline=None)
def test_no_value_of_the_format_is_nearer(values):
    """With the block's scale, which is large enough for the largest magnitude."""
    block = torch.tensor([values], dtype=torch.float32)
    blocks, scales = encode(block)
    power = 2.0 ** (scales.item() - 127)
    grid = np.array(E2M1) * power
    nearest = np.abs(block.double().numpy()[0, :, None] - grid).min(-1)
    actual = np.abs(block.double().numpy()[0] - decode(blocks, scales, torch.float64).numpy()[0])
    np.testing.assert_array_equal(actual, nearest)
    assert np.abs(block.numpy()).max() <= 7 * power


def test_the_largest_and_the_smallest_floats_stay_finite():
    largest = torch.finfo(torch.float32).max
    block = torch.tensor([[largest, -largest, 1e38] + [1.0] * 29])
    assert decode(*encode(block), torch.float32)[0, :3].tolist() == [6 * 2.0**125, -6 * 2.0**125, 2.0**126]
    tiny = torch.full((1, 32), 2.0**-140)
    assert encode(tiny)[1].item() == 0
    assert decode(*encode(tiny)).abs().max() == 0


def test_zeros_have_the_smallest_scale():
    blocks, scales = encode(torch.zeros(2, 64))
    assert scales.unique().tolist() == [0]
    assert blocks.unique().tolist() == [0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="NaN and infinity"):
        encode(torch.tensor([1.0] * 31 + [bad]))
