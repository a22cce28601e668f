"""Operations of the CPU kernels on rows equal layers.py, and are bit-identical on all instruction sets."""

import numpy as np
import pytest
import torch

from model import layers
from model.backends.cpu.program import Activate, Assignment, Combine, Embed, Norm, Rescore, Route, Rows
from tests.model.backends.cpu.cpu_steps import Machine, bf16_bits, from_bf16_bits

TOKENS = 11


@pytest.fixture
def everywhere():
    """Runs a function on all instruction sets.  Returns its result, which must be bit-identical on all."""

    def run(function):
        results = []
        for isa in Machine.available():
            with Machine(isa) as machine:
                results.append(function(machine))
        assert all(np.array_equal(each, results[0]) for each in results)
        return torch.from_numpy(results[0])

    return run


def no_rows(tokens, width):
    """Memory for the codes that an instruction also writes."""
    codes, sums = np.zeros((tokens, 4 * width), np.int8), np.zeros((tokens, width // 32), np.int32)
    arrays = codes, sums, np.zeros(tokens, np.float32)
    return Rows(*(array.ctypes.data for array in arrays)), arrays


def normal(*shape, seed=0, spread=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.float32)


def test_norm(everywhere):
    x, scale = normal(TOKENS, 96, spread=3), normal(96, seed=1)
    x[3] = 0

    def run(machine):
        out = np.full_like(x, np.nan)
        machine.run(
            Norm(x.ctypes.data, scale.ctypes.data, out.ctypes.data, Rows(), 96, 0, 1e-5), num_tokens=TOKENS
        )
        return out

    torch.testing.assert_close(everywhere(run), layers.rms_norm(torch.from_numpy(x), torch.from_numpy(scale)))


def test_clamped_swiglu(everywhere):
    """From far below the clamp to far above, where the exponential is 0 or too large."""
    width, used = 96, 3
    x = torch.from_numpy(normal(TOKENS * used, 2 * width, spread=8))
    x[0, :8] = torch.tensor([-1e4, 1e4, 1e4, -1e4, -60.0, 7.0, 7.0, -7.0])
    gathered = x.view(-1, width // 16, 16, 2).transpose(2, 3).reshape(-1, 2 * width).numpy()

    def run(machine):
        values = gathered.copy()
        rows, held = no_rows(TOKENS * used, width)
        machine.run(Activate(values.ctypes.data, rows, width, used, 7.0, 1.702), num_tokens=TOKENS)
        assert held[2].all()
        return values[:, :width].copy()

    torch.testing.assert_close(everywhere(run), layers.clamped_swiglu(x, 7.0), rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("isa", Machine.available())
def test_what_is_not_a_number_remains_none_through_swiglu(isa):
    """Clamping could turn it into a plausible 7."""
    values = np.ones((2, 64), np.float32)
    values[0, 3], values[1, 16 + 5] = np.nan, np.nan  # a gate, and a value
    rows, _held = no_rows(2, 32)
    with Machine(isa) as machine:
        machine.run(Activate(values.ctypes.data, rows, 32, 1, 7.0, 1.702), num_tokens=2)
    assert np.argwhere(np.isnan(values[:, :32])).tolist() == [[0, 3], [1, 5]]


@pytest.mark.parametrize("experts", [5, 32, 128])
def test_routing_and_its_lists(experts):
    """If logits are equal, the lower expert comes first; an expert's list has all its pairs, in order."""
    used, padded = 4, experts + -experts % 32
    logits = np.random.default_rng(experts).integers(-3, 4, (TOKENS, padded)).astype(np.float32)  # many ties
    chosen, pairs = (np.full((TOKENS, used), -1, np.int32) for _ in range(2))
    shares, starts = np.full((TOKENS, used), np.nan, np.float32), np.full(experts + 1, -1, np.int32)
    where = Assignment(*(a.ctypes.data for a in (chosen, shares, starts, pairs)), experts, used, 0, experts)
    with Machine("portable") as machine:
        machine.run(Route(logits.ctypes.data, where), num_tokens=TOKENS)
    want, weights = layers.route(torch.from_numpy(logits[:, :experts]), used)
    assert torch.equal(torch.from_numpy(chosen).long(), want)
    torch.testing.assert_close(torch.from_numpy(shares), weights)
    for expert in range(experts):
        listed = pairs.ravel()[starts[expert] : starts[expert + 1]]
        assert listed.tolist() == np.flatnonzero(chosen.ravel() == expert).tolist()


def test_combine(everywhere):
    used, width = 3, 64
    values, shares, x = (
        normal(TOKENS * used, width),
        normal(TOKENS, used, seed=1),
        normal(TOKENS, width, seed=2),
    )

    def run(machine):
        out = x.copy()
        machine.run(
            Combine(values.ctypes.data, shares.ctypes.data, out.ctypes.data, width, used), num_tokens=TOKENS
        )
        return out

    want = x + np.einsum("tac,ta->tc", values.reshape(TOKENS, used, width), shares)
    torch.testing.assert_close(everywhere(run), torch.from_numpy(want))


def test_embedding():
    table = bf16_bits(normal(50, 64))
    tokens = np.array([49, 0, 7], dtype=np.int64)
    out = np.full((3, 64), np.nan, np.float32)
    with Machine("portable") as machine:
        machine.run(
            Embed(table.ctypes.data, out.ctypes.data, 64, 50, 0, 50), num_tokens=3, tokens=tokens.ctypes.data
        )
    assert np.array_equal(out, from_bf16_bits(table)[tokens])


@pytest.mark.parametrize("vocabulary", [50, 211, 5000])
def test_the_best_logits_are_scored_again(everywhere, vocabulary):
    """Exactly the best 64, the first ones if equal; all others stay unchanged."""
    samples, width, candidates = 3, 96, 64
    padded = vocabulary + -vocabulary % 32
    table, hidden = bf16_bits(normal(vocabulary, width)), normal(samples, width, seed=1)
    rough = np.round(normal(samples, padded, seed=2) * 8) / 8  # many ties
    rough[1, : vocabulary // 2] = 9.0

    def run(machine):
        logits = rough.astype(np.float32)
        op = Rescore(hidden.ctypes.data, table.ctypes.data, width, vocabulary, candidates)
        machine.run(op, num_tokens=samples, num_samples=samples, logits=logits.ctypes.data)
        return logits[:, :vocabulary].copy()

    got = everywhere(run).numpy()
    exact = hidden.astype(np.float64) @ from_bf16_bits(table).astype(np.float64).T
    for row in range(samples):
        best = np.argsort(-rough[row, :vocabulary], kind="stable")[:candidates]
        np.testing.assert_allclose(got[row, best], exact[row, best], rtol=1e-5, atol=1e-5)
        rest = np.setdiff1d(np.arange(vocabulary), best)
        assert np.array_equal(got[row, rest], rough[row, rest].astype(np.float32))


@pytest.mark.parametrize("isa", Machine.available())
def test_logits_that_are_not_numbers_have_no_rank(isa):
    """The best other logits are computed again, and NaN stays NaN."""
    vocabulary, width, candidates = 3000, 64, 64
    table, hidden = bf16_bits(normal(vocabulary, width)), normal(1, width, seed=1)
    rough = normal(1, vocabulary + -vocabulary % 32, seed=2)
    random = np.random.default_rng(3)
    lost = random.permutation(vocabulary)[:1500]
    rough[0, lost] = np.nan
    logits = rough.copy()
    op = Rescore(hidden.ctypes.data, table.ctypes.data, width, vocabulary, candidates)
    with Machine(isa) as machine:
        machine.run(op, num_tokens=1, num_samples=1, logits=logits.ctypes.data)
    assert set(np.flatnonzero(np.isnan(logits[0, :vocabulary]))) == set(lost)
    changed = np.flatnonzero(logits[0, :vocabulary] != rough[0, :vocabulary])
    assert len(np.setdiff1d(changed, lost)) <= candidates
    exact = (hidden.astype(np.float64) @ from_bf16_bits(table).astype(np.float64).T)[0]
    best = np.setdiff1d(changed, lost)
    np.testing.assert_allclose(logits[0, best], exact[best], rtol=1e-5, atol=1e-5)
