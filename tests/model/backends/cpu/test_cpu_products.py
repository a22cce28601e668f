"""Products of packed weights with 16-bit rows are exact, except for specified roundings, on every instruction
set.

cpu_steps.py computes the expected bits in numpy.  The kernels must give these bits for every instruction set,
number of rows, number of threads and size.
"""

import numpy as np
import pytest

from model.backends.cpu.program import BF16, HIGH, INT8, LOW, MXFP4
from tests.model.backends.cpu.cpu_steps import (
    ISAS,
    Machine,
    bf16_bits,
    coarse_product,
    codes_of,
    from_bf16_bits,
    group_product,
    half_weights,
    int8_product,
    int8_weights,
    mxfp4_product,
)

SIZES = [(32, 32), (40, 96), (7, 64), (96, 160), (33, 320), (64, 2880)]  # outputs, inputs


@pytest.fixture(params=ISAS)
def isa(request):
    if request.param not in Machine.available():
        pytest.skip(f"this processor cannot run {request.param}")
    return request.param


def mxfp4(random, outputs, inputs, low=100, high=140):
    blocks = random.integers(0, 256, (outputs, inputs // 32, 16), dtype=np.uint8)
    return blocks, random.integers(low, high, (outputs, inputs // 32), dtype=np.uint8)


def any_weights(random, format, outputs, inputs):
    if format == MXFP4:
        return mxfp4(random, outputs, inputs)
    return bf16_bits(random.standard_normal((outputs, inputs)))


def same_bits(a, b):
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 12, 16, 17, 67, 150])
def test_mxfp4_products_are_the_contracts_bits(isa, outputs, inputs, tokens):
    random = np.random.default_rng(outputs + inputs + tokens)
    blocks, scales = mxfp4(random, outputs, inputs)
    x = random.standard_normal((tokens, inputs)).astype(np.float32)
    with Machine(isa) as machine:
        packed = machine.pack(MXFP4, (blocks, scales), outputs, inputs)
        got = machine.multiply(MXFP4, packed, x, outputs)
    assert same_bits(got, mxfp4_product(x, blocks, scales))


@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 12, 16, 17, 67, 150])
def test_int8_products_are_the_contracts_bits(isa, outputs, inputs, tokens):
    random = np.random.default_rng(outputs + inputs + tokens)
    weights = bf16_bits(random.standard_normal((outputs, inputs)))
    x = random.standard_normal((tokens, inputs)).astype(np.float32)
    with Machine(isa) as machine:
        got = machine.multiply(INT8, machine.pack(INT8, weights, outputs, inputs), x, outputs)
    assert same_bits(got, int8_product(x, weights))


@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 12, 16, 17, 67, 150])
@pytest.mark.parametrize("format", [HIGH, LOW])
def test_products_of_halves_are_the_contracts_bits(isa, format, outputs, inputs, tokens):
    random = np.random.default_rng(outputs + inputs + tokens)
    weights = bf16_bits(random.standard_normal((outputs, inputs)))
    x = random.standard_normal((tokens, inputs)).astype(np.float32)
    with Machine(isa) as machine:
        got = machine.multiply(format, machine.pack(format, weights, outputs, inputs), x, outputs)
    assert same_bits(got, group_product(x, *half_weights(weights, format)))


@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("tokens", [1, 3, 5, 12, 17, 67, 300])
def test_products_of_8_bit_rows_are_the_contracts_bits(isa, outputs, inputs, tokens):
    random = np.random.default_rng(outputs + inputs + tokens)
    blocks, scales = mxfp4(random, outputs, inputs)
    bits = bf16_bits(random.standard_normal((outputs, inputs)))
    x = random.standard_normal((tokens, inputs)).astype(np.float32) * random.choice([1, 9, 1e-20], inputs)
    codes, groups = int8_weights(bits)
    powers = (scales.astype(np.uint32) << 23).view(np.float32)
    with Machine(isa) as machine:
        packed = machine.pack(MXFP4, (blocks, scales), outputs, inputs)
        got = machine.multiply(MXFP4, packed, x, outputs, prompt=tokens)
        assert same_bits(got, coarse_product(x, codes_of(blocks).reshape(outputs, inputs), powers, 0.5))
        got = machine.multiply(INT8, machine.pack(INT8, bits, outputs, inputs), x, outputs, prompt=tokens)
        assert same_bits(got, coarse_product(x, codes, groups.repeat(2, axis=1)[:, : inputs // 32], 1.0))


@pytest.mark.parametrize("format", [MXFP4, INT8])
def test_rows_of_16_bits_are_the_same_beside_rows_of_8(isa, format):
    random = np.random.default_rng(6)
    outputs, inputs = 96, 160
    x = random.standard_normal((60, inputs)).astype(np.float32)
    with Machine(isa, threads=2) as machine:
        packed = machine.pack(format, any_weights(random, format, outputs, inputs), outputs, inputs)
        exact = machine.multiply(format, packed, x, outputs)
        coarse = machine.multiply(format, packed, x, outputs, prompt=60)
        mixed = machine.multiply(format, packed, x, outputs, prompt=33)
    assert same_bits(mixed[:33], coarse[:33])
    assert same_bits(mixed[33:], exact[33:])
    assert (coarse != exact).mean() > 0.9


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_visible_in_rows_of_8_bits(isa, wrong):
    blocks, scales = mxfp4(np.random.default_rng(1), 32, 64)
    x = np.ones((20, 64), np.float32)
    x[0, 5], x[17, 63] = wrong, wrong
    with Machine(isa) as machine:
        got = machine.multiply(MXFP4, machine.pack(MXFP4, (blocks, scales), 32, 64), x, 32, prompt=20)
    assert np.isfinite(got).all(axis=1).tolist() == [row not in (0, 17) for row in range(20)]


def test_both_halves_are_the_whole(isa):
    """High bits alone give the nearest 4-bit estimate; with the low ones the product is exact."""
    random = np.random.default_rng(9)
    weights = bf16_bits(random.standard_normal((64, 2880)))
    x = random.standard_normal((3, 2880)).astype(np.float32)
    with Machine(isa) as machine:
        high, low, whole = (
            machine.multiply(format, machine.pack(format, weights, 64, 2880), x, 64)
            for format in (HIGH, LOW, INT8)
        )
    np.testing.assert_allclose(high + low, whole, rtol=1e-5, atol=1e-4)
    assert 0.05 < np.linalg.norm(high - whole) / np.linalg.norm(whole) < 0.15


@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_bf16_products_have_the_same_bits_everywhere_and_float32s_precision(outputs, inputs):
    random = np.random.default_rng(outputs + inputs)
    weights = bf16_bits(random.standard_normal((outputs, inputs)))
    x = random.standard_normal((6, inputs)).astype(np.float32)
    exact = x.astype(np.float64) @ from_bf16_bits(weights).astype(np.float64).T
    results = []
    for isa in Machine.available():
        with Machine(isa) as machine:
            results.append(machine.multiply(BF16, machine.pack(BF16, weights, outputs, inputs), x, outputs))
    assert np.linalg.norm(results[0] - exact) < 1e-6 * np.linalg.norm(exact)
    assert all(same_bits(each, results[0]) for each in results)


@pytest.mark.parametrize("format", [MXFP4, INT8, BF16, HIGH, LOW])
def test_a_row_alone_and_in_company_on_any_number_of_threads(isa, format):
    random = np.random.default_rng(5)
    outputs, inputs = 200, 160
    weights = any_weights(random, format, outputs, inputs)
    x = random.standard_normal((130, inputs)).astype(np.float32)  # more than two panels of 64
    with Machine(isa, threads=1) as one, Machine(isa, threads=3) as three:
        packed = one.pack(format, weights, outputs, inputs)
        together = three.multiply(format, packed, x, outputs)
        for row in (0, 63, 64, 129):
            assert same_bits(one.multiply(format, packed, x[row : row + 1], outputs), together[row : row + 1])


def test_every_code_and_the_edges_of_the_scale(isa):
    """All 16 codes in both halves of a byte; scales from the smallest, which counts as 0, to the largest."""
    inputs = 32
    blocks = np.arange(256, dtype=np.uint8).reshape(16, 1, 16)
    scales = np.array([0, 1, 2, 64, 126, 127, 128, 129, 200, 253, 254, 0, 1, 127, 127, 127], np.uint8)[
        :, None
    ]
    x = np.random.default_rng(0).standard_normal((3, inputs)).astype(np.float32)
    with Machine(isa) as machine:
        got = machine.multiply(MXFP4, machine.pack(MXFP4, (blocks, scales), 16, inputs), x, 16)
    with np.errstate(over="ignore"):
        assert same_bits(got, mxfp4_product(x, blocks, scales))
    assert not got[:, [0, 11]].any()


@pytest.mark.parametrize(
    "row",
    [
        np.zeros(64),
        np.full(64, 1e-38),
        np.r_[1e30, np.ones(63)],
        np.r_[np.full(63, -1.0), 3e38],
        np.where(np.arange(64) % 2, 1.0, -1.0),  # all codes at their limits
        np.r_[np.ones(32), np.zeros(32)],
    ],
    ids=["zero", "denormal", "outlier", "overflow", "limits", "half"],
)
def test_rows_at_the_edges(isa, row):
    random = np.random.default_rng(1)
    blocks, scales = mxfp4(random, 32, 64, 120, 130)
    weights = bf16_bits(np.where(random.random((32, 64)) < 0.5, 1.0, -1.0))  # int8 codes of 127 and -127
    x = row[None].astype(np.float32)
    with Machine(isa) as machine, np.errstate(over="ignore"):
        got = machine.multiply(MXFP4, machine.pack(MXFP4, (blocks, scales), 32, 64), x, 32)
        assert same_bits(got, mxfp4_product(x, blocks, scales))
        got = machine.multiply(INT8, machine.pack(INT8, weights, 32, 64), x, 32)
        assert same_bits(got, int8_product(x, weights))
        for format in (HIGH, LOW):
            got = machine.multiply(format, machine.pack(format, weights, 32, 64), x, 32)
            assert same_bits(got, group_product(x, *half_weights(weights, format)))


def test_what_is_not_finite_stays_visible(isa):
    blocks, scales = mxfp4(np.random.default_rng(1), 32, 64)
    x = np.ones((3, 64), np.float32)
    x[0, 5], x[1, 63] = np.nan, np.inf
    with Machine(isa) as machine:
        got = machine.multiply(MXFP4, machine.pack(MXFP4, (blocks, scales), 32, 64), x, 32)
    assert not np.isfinite(got[:2]).any()
    assert np.isfinite(got[2]).all()


@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", [INT8, BF16, HIGH, LOW])
def test_a_weight_that_is_not_finite_stays_visible(isa, format, wrong):
    weights = np.ones((40, 96), np.float32)
    weights[33, 70] = wrong
    x = np.arange(96, dtype=np.float32)[None]
    with Machine(isa) as machine:
        got = machine.multiply(format, machine.pack(format, bf16_bits(weights), 40, 96), x, 40)
    assert np.isfinite(got[0]).tolist() == [output != 33 for output in range(40)]


@pytest.mark.parametrize("format", [MXFP4, INT8, BF16, HIGH, LOW])
def test_bias_and_residual_are_added_after_the_product(isa, format):
    random = np.random.default_rng(3)
    weights = any_weights(random, format, 40, 64)
    x, bias, residual = (random.normal(size=shape).astype(np.float32) for shape in ((5, 64), 40, (5, 40)))
    with Machine(isa) as machine:
        packed = machine.pack(format, weights, 40, 64)
        plain = machine.multiply(format, packed, x, 40)
        assert same_bits(machine.multiply(format, packed, x, 40, bias=bias), plain + bias)
        both = machine.multiply(format, packed, x, 40, bias=bias, add_to=residual)
    assert same_bits(both, residual + (plain + bias))


def test_pairs_of_rows_are_gathered_by_tile(isa):
    """`paired`: in each tile of 32, the 16 even rows come first."""
    random = np.random.default_rng(4)
    weights = mxfp4(random, 64, 64)
    x = random.standard_normal((2, 64)).astype(np.float32)
    with Machine(isa) as machine:
        plain = machine.multiply(MXFP4, machine.pack(MXFP4, weights, 64, 64), x, 64)
        paired = machine.multiply(MXFP4, machine.pack(MXFP4, weights, 64, 64, paired=True), x, 64)
    assert same_bits(paired, plain.reshape(2, 2, 16, 2).swapaxes(2, 3).reshape(2, 64))


@pytest.mark.parametrize("outlier", [1.0, 30.0])
def test_sixteen_bits_of_activation_are_nearly_exact(isa, outlier):
    """Compared with float64 activations; one channel is 30 times larger, as in real models."""
    random = np.random.default_rng(7)
    outputs, inputs = 128, 2880
    x = random.standard_normal((4, inputs)).astype(np.float32)
    x[:, 11] *= outlier
    blocks, scales = mxfp4(random, outputs, inputs, 120, 124)
    exact = np.ldexp(codes_of(blocks) / 2, scales[:, :, None].astype(int) - 127).reshape(outputs, inputs)
    bits = bf16_bits(random.standard_normal((outputs, inputs)))
    codes, groups = int8_weights(bits)
    dequantised = codes * np.repeat(groups, 64, axis=1).astype(np.float64)[:, :inputs]

    def error(got, weights):
        want = x.astype(np.float64) @ weights.T
        return np.linalg.norm(got - want) / np.linalg.norm(want)

    with Machine(isa) as machine:
        packed = machine.pack(MXFP4, (blocks, scales), outputs, inputs)
        dense = machine.pack(INT8, bits, outputs, inputs)
        assert error(machine.multiply(MXFP4, packed, x, outputs), exact) < 5e-4
        got = machine.multiply(INT8, dense, x, outputs)
        coarse = [
            error(machine.multiply(MXFP4, packed, x, outputs, prompt=4), exact),
            error(machine.multiply(INT8, dense, x, outputs, prompt=4), dequantised),
        ]
    assert error(got, dequantised) < 5e-4
    # Eight bits: half a step of 1/127 of the largest of each 32; an outlier costs its own 32 only.
    assert all(3e-3 < each < (8e-3 if outlier == 1 else 1e-2) for each in coarse), coarse
    assert error(got, from_bf16_bits(bits).astype(np.float64)) < 1e-2
