"""MXFP4 codes in pairs: every code with every scale, the order of columns, and the one instruction that the
interpreter does not support.
"""

import re

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
import triton
import triton.language as tl

from model.backends.triton.kernels import codes, expert_order, experts_many
from model.backends.triton.weights import Matrices
from model.loading.mxfp4 import decode

ROWS = 64


@triton.jit
def _weights_kernel(words, scales, out, ROWS: tl.constexpr):
    row, four = tl.arange(0, ROWS), tl.arange(0, 4)
    w = tl.load(words + row[:, None, None] * 16 + four[None, :, None] * 4 + four[None, None, :])
    s = tl.load(scales + row[:, None] * 4 + four[None, :])
    block = codes.weights(w.to(tl.uint32, bitcast=True), s, out.dtype.element_ty)
    tl.store(out + row[:, None] * 128 + tl.arange(0, 128)[None, :], block)


@triton.jit
def _places_kernel(places, columns, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(places + at, codes.fragment_place(at))
    tl.store(columns + at, codes.fragment_column(at))


def decoded(blocks, scales, dtype):
    """A block of weights, decoded by the kernels' function, without its constant factors."""
    words = codes.pack(blocks.clone())
    out = torch.full((len(blocks), 128), torch.nan, dtype=dtype, device=DEVICE)
    _weights_kernel[(1,)](words, scales, out, len(blocks))
    return out.double() * codes.CODE_TO_ONE.value


@pytest.mark.exhaustive
def test_every_code_is_exact_under_every_scale():
    """For all scales that are large enough; smaller ones make weights that are negligible."""
    noise = torch.Generator().manual_seed(0)
    for scale in range(codes.LARGEST_SCALE + 1):
        blocks = torch.randint(0, 256, (ROWS, 4, 16), dtype=torch.uint8, generator=noise).to(DEVICE)
        scales = torch.full((ROWS, 4), scale, dtype=torch.uint8, device=DEVICE)
        want = codes.in_fragments(decode(blocks, scales, torch.float64))
        for dtype, smallest in (
            (torch.float32, 5),
            (torch.bfloat16, 28),
        ):  # an interpreter has no subnormal bfloat16
            got = decoded(blocks, scales, dtype)
            if scale >= smallest:
                assert torch.equal(got, want), (scale, dtype)
            else:
                assert (got - want).abs().max() < 1e-29


def test_each_group_has_its_own_scale():
    blocks = torch.full((ROWS, 4, 16), 0x22, dtype=torch.uint8, device=DEVICE)  # ones
    scales = (torch.arange(4 * ROWS, device=DEVICE).view(ROWS, 4) % 40 + 100).to(torch.uint8)
    want = codes.in_fragments(decode(blocks, scales, torch.float64))
    assert torch.equal(decoded(blocks, scales, torch.float32), want)


@pytest.mark.parametrize("width", [32, 96, 128, 192, 2880])
def test_fragment_order_is_a_permutation_with_zeros_behind(width):
    x = 1 + torch.arange(width, device=DEVICE)
    ordered = codes.in_fragments(x)
    assert len(ordered) == codes.padded(width) == -(-width // 128) * 128
    assert torch.equal(ordered.sort().values[-width:], x)
    assert (ordered == 0).sum() == len(ordered) - width
    size = triton.next_power_of_2(len(ordered))
    places, columns = (torch.zeros(size, dtype=torch.int32, device=DEVICE) for _ in range(2))
    _places_kernel[(1,)](places, columns, size)
    assert torch.equal(ordered[places[:width].long()], x)
    assert torch.equal(columns[places.long()].long(), torch.arange(size, device=DEVICE))


def test_a_lane_that_shares_a_row_reads_one_group():
    """The columns that a lane of a tensor core multiplies, 2 t and 2 t + 1 of every eight, all have the same
    scale: so it reads 16 bytes of codes, and one of scales."""
    columns = codes.in_fragments(torch.arange(128)).tolist()
    for lane in range(4):
        own = [column for at, column in enumerate(columns) if at % 8 // 2 == lane]
        assert own == list(range(32 * lane, 32 * lane + 32))


def halves(words):
    """The two bfloat16 numbers of each word, as float64."""
    both = (words & 0xFFFF, words >> 16 & 0xFFFF)
    return [part.to(torch.int16).view(torch.bfloat16).double() for part in both]


def run_assembly(text, operands):
    """Execute the instructions on words, as the PTX manual describes them.  Returns the outputs."""
    outputs = len(re.findall(r"mov\.b32 \{(.*?)\}", text)[0].split(","))
    registers = {f"${outputs + n}": operand for n, operand in enumerate(operands)}
    for line in text[1:-1].split(";"):
        name, _, rest = line.strip().partition(" ")
        target, *sources = (part.strip() for part in re.findall(r"\{.*?\}|[^,]+", rest) or [""])
        if name == "fma.rn.bf16x2":
            terms = zip(*(halves(registers[source]) for source in sources), strict=True)
            both = [(a * b + c).bfloat16() for a, b, c in terms]  # exact, then rounded once
            low, high = (part.view(torch.int16).long() & 0xFFFF for part in both)
            registers[target] = low | high << 16
        elif name == "mov.b32":
            names = target.strip("{}").split(",")
            for part, register in zip(halves(registers[sources[0]]), names, strict=True):
                registers[register.strip()] = part
        else:
            assert name in (".reg", ""), f"an instruction that this test does not know: {name}"
    return [registers[f"${n}"] for n in range(outputs)]


def test_the_assembly_says_what_the_plain_multiplication_says():
    """For every pair of codes with every scale: bit-identical, including signs of zeros."""
    every = torch.arange(16)
    bits = (every >> 3 << 15) | (every & 7) << 6
    pairs = (bits[:, None] | bits[None, :] << 16).flatten()
    for scale in range(codes.LARGEST_SCALE + 1):
        powers = torch.full_like(pairs, (scale + 100) * 0x00800080)
        got = run_assembly(codes._MULTIPLY.value, [pairs, powers, torch.full_like(pairs, 0x80008000)])
        for ours, code in zip(got, halves(pairs), strict=True):
            want = (code * 2.0 ** (scale - 27)).bfloat16().double()
            assert torch.equal(ours, want)
            assert torch.equal(ours.signbit(), want.signbit())


def matrices(experts, outputs, width, noise):
    blocks = torch.randint(0, 256, (experts, outputs, width // 32, 16), dtype=torch.uint8, generator=noise)
    scales = torch.randint(116, 124, (experts, outputs, width // 32), dtype=torch.uint8, generator=noise)
    bias = torch.randn(experts, outputs, generator=noise)
    return Matrices(codes.pack(blocks.to(DEVICE)), scales.to(DEVICE), bias.to(DEVICE))


UNEVEN = [(192, 96, 5, 3, 7), (64, 160, 4, 2, 33), (128, 256, 3, 1, 70), (352, 32, 6, 4, 21)]


@pytest.mark.parametrize(
    "tiles",
    [
        pytest.param(experts_many.OF_WARP_GROUPS, id="groups"),
        pytest.param(experts_many.OF_WARPS, id="warps", marks=pytest.mark.exhaustive),
        pytest.param(experts_many.NARROW, id="narrow", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize(("hidden", "width", "experts", "used", "tokens"), UNEVEN)
def test_sorted_experts_of_uneven_sizes(hidden, width, experts, used, tokens, tiles):
    """Widths below one block of 128 columns, or exactly one; rows and outputs below one tile."""
    noise = torch.Generator().manual_seed(tokens)
    mlp1, mlp2 = matrices(experts, 2 * width, hidden, noise), matrices(experts, hidden, width, noise)
    x = torch.randn(tokens, hidden, generator=noise).to(DEVICE)
    chosen = torch.rand(tokens, experts, generator=noise).topk(used).indices.int().to(DEVICE)
    shares = torch.rand(tokens, used, generator=noise).to(DEVICE)
    order, starts = expert_order.sort(chosen, experts)
    inner = torch.full((tokens * used, codes.padded(width)), torch.nan, device=DEVICE)
    experts_many.gate_up(codes.in_fragments(x), mlp1, order, starts, inner, 7.0, tiles=tiles)
    want = experts_many.plain_gate_up(x, mlp1, order, starts, 7.0, used)
    torch.testing.assert_close(inner, want, rtol=1e-4, atol=1e-4)
    inner = torch.randn(tokens * used, width, generator=noise).to(DEVICE)
    outer = torch.full((tokens * used, hidden), torch.nan, device=DEVICE)
    experts_many.down(codes.in_fragments(inner), mlp2, order, starts, shares, outer, tiles=tiles)
    want = experts_many.plain_down(inner, mlp2, order, starts, shares)
    torch.testing.assert_close(outer, want, rtol=1e-4, atol=1e-4)


def test_every_gpu_has_tiles_that_its_triton_compiles():
    """Triton 3.6 failed with "Illegal shared layout" for 10.0."""
    for capability in ((8, 0), (8, 9), (12, 0)):
        assert experts_many.tiles_for(capability, "3.6.0") is experts_many.OF_WARPS
    assert experts_many.tiles_for((9, 0), "3.6.0") is experts_many.OF_WARP_GROUPS
    assert experts_many.tiles_for((10, 0), "3.6.0+git1") is experts_many.NARROW
    assert experts_many.tiles_for((10, 3), "3.7.1") is experts_many.OF_WARP_GROUPS
    assert experts_many.tiles_for((10, 0), "3.10.0") is experts_many.OF_WARP_GROUPS
