"""Attention of the CPU kernels over scattered pages, compared with float64; its bits depend only on
positions.

Pages are filled with NaN first, so that a test fails if a kernel reads what was not written.
"""

import numpy as np
import pytest
import torch

from model.backends.cpu.program import Attend, Store
from tests.model.backends.cpu.cpu_steps import ISAS, Machine

PAGE = 32
THETA = 1000.0


@pytest.fixture(params=ISAS)
def isa(request):
    if request.param not in Machine.available():
        pytest.skip(f"this processor cannot run {request.param}")
    return request.param


class Sequences:
    """Random queries, keys and values of some sequences, and their pages."""

    def __init__(self, lengths, heads=12, kv_heads=3, head_dim=64, seed=0):
        self.lengths, self.heads, self.kv_heads, self.head_dim = lengths, heads, kv_heads, head_dim
        random = np.random.default_rng(seed)
        width = (heads + 2 * kv_heads) * head_dim
        self.stride = width + -width % 32
        self.qkv = [random.standard_normal((length, self.stride)).astype(np.float32) for length in lengths]
        self.sinks = random.standard_normal(heads).astype(np.float32)
        self.frequencies = (THETA ** -(np.arange(head_dim // 2) / (head_dim / 2))).astype(np.float32)
        self.table_width = max(-(-length // PAGE) for length in lengths)
        self.num_pages = len(lengths) * self.table_width + 3
        pages = random.permutation(self.num_pages)[: len(lengths) * self.table_width]
        self.table = np.ascontiguousarray(pages.reshape(len(lengths), self.table_width), dtype=np.int32)
        padded = head_dim + -head_dim % 32
        self.keys = np.full((self.num_pages, kv_heads, head_dim, PAGE), 0x7FC0, dtype=np.uint16)
        self.values = np.full((self.num_pages, kv_heads, PAGE, padded), 0x7FC0, dtype=np.uint16)

    def run(self, machine, chunks, window=0):
        """One step: chunks [(sequence, first, length)].  Returns [tokens, H * D]."""
        which = [sequence for sequence, _, _ in chunks]
        qkv = np.concatenate([self.qkv[s][first : first + length] for s, first, length in chunks])
        positions = np.concatenate([np.arange(first, first + length) for _, first, length in chunks])
        owner = np.repeat(which, [length for _, _, length in chunks])
        slots = self.table[owner, positions // PAGE].astype(np.int64) * PAGE + positions % PAGE
        starts = np.cumsum([0] + [length for _, _, length in chunks]).astype(np.int32)
        table = np.ascontiguousarray(self.table[which])
        out = np.full((len(qkv), self.heads * self.head_dim), np.nan, dtype=np.float32)
        sizes = (self.heads, self.kv_heads, self.head_dim)
        machine.run(
            Store(qkv.ctypes.data, self.frequencies.ctypes.data, 0, *sizes, 1.25, self.head_dim**-0.5),
            Attend(qkv.ctypes.data, self.sinks.ctypes.data, out.ctypes.data, 0, *sizes, window),
            num_tokens=len(qkv),
            positions=positions.ctypes.data,
            slots=slots.ctypes.data,
            starts=starts.ctypes.data,
            page_table=table.ctypes.data,
            keys=self.keys.ctypes.data,
            values=self.values.ctypes.data,
            num_pages=self.num_pages,
            num_sequences=len(chunks),
            table_width=self.table_width,
        )
        return out

    def expected(self, sequence, window=0):
        """The result in float64, without rounding keys and values: [length, H * D]."""
        length, dim, group = self.lengths[sequence], self.head_dim, self.heads // self.kv_heads
        width = (self.heads + 2 * self.kv_heads) * dim
        qkv = self.qkv[sequence][:, :width].astype(np.float64).reshape(length, -1, dim)
        q, k, v = np.split(qkv, [self.heads, self.heads + self.kv_heads], axis=1)
        angles = np.arange(length)[:, None] * self.frequencies.astype(np.float64)
        cos, sin = 1.25 * np.cos(angles)[:, None], 1.25 * np.sin(angles)[:, None]

        def rotate(x):
            first, second = x[..., : dim // 2], x[..., dim // 2 :]
            return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

        q, k = rotate(q) * dim**-0.5, rotate(k)
        out = np.empty((length, self.heads, dim))
        for t in range(length):
            first = max(0, t - window + 1) if window else 0
            for h in range(self.heads):
                scores = k[first : t + 1, h // group] @ q[t, h]
                top = max(scores.max(), self.sinks[h])
                weights = np.exp(scores - top)
                total = weights.sum() + np.exp(self.sinks[h] - top)
                out[t, h] = weights / total @ v[first : t + 1, h // group]
        return out.reshape(length, -1)


def error(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize("window", [0, 7, 128])
@pytest.mark.parametrize("sizes", [(12, 3, 64), (8, 1, 32), (10, 5, 16), (16, 2, 96)], ids=str)
def test_a_prompt_agrees_with_float64(isa, window, sizes):
    sequences = Sequences([1, 33, 150], *sizes)
    with Machine(isa) as machine:
        got = sequences.run(machine, [(s, 0, length) for s, length in enumerate(sequences.lengths)], window)
    parts = np.split(got, np.cumsum(sequences.lengths)[:-1])
    for s, part in enumerate(parts):
        assert error(part, sequences.expected(s, window)) < 4e-3


@pytest.mark.parametrize("window", [0, 128])
def test_decodes_across_segments_agree_with_float64(isa, window):
    """Segments of 512 keys are computed separately, by different threads, and then combined."""
    sequences = Sequences([31, 513, 1100], 4, 2, 32)
    with Machine(isa, threads=3) as machine:
        for s, length in enumerate(sequences.lengths):
            sequences.run(machine, [(s, 0, length - 1)], window)
        decodes = [(s, length - 1, 1) for s, length in enumerate(sequences.lengths)]
        got = sequences.run(machine, decodes, window)
    want = np.stack([sequences.expected(s, window)[-1] for s in range(3)])
    assert error(got, want) < 4e-3


@pytest.mark.parametrize("window", [0, 40])
def test_chunks_company_and_threads_change_no_bit(isa, window):
    lengths = [600, 45]
    whole, pieces = Sequences(lengths, 6, 2, 32), Sequences(lengths, 6, 2, 32)
    with Machine(isa, threads=1) as one, Machine(isa, threads=3) as three:
        want = np.split(whole.run(one, [(0, 0, 600), (1, 0, 45)], window), [600])
        first = pieces.run(three, [(0, 0, 511), (1, 0, 7)], window)
        second = pieces.run(one, [(1, 7, 30), (0, 511, 70)], window)
        third = pieces.run(three, [(0, 581, 18)], window)
        last = pieces.run(three, [(0, 599, 1)], window)
    got = np.concatenate([first[:511], second[30:], third, last])
    assert np.array_equal(got, want[0])
    assert np.array_equal(np.concatenate([first[511:], second[:30]]), want[1][:37])


def test_all_instruction_sets_give_the_same_bits():
    results = []
    for isa in Machine.available():
        sequences = Sequences([5, 700], 12, 3, 64)
        with Machine(isa) as machine:
            results.append(sequences.run(machine, [(0, 0, 5), (1, 0, 700)]))
    assert all(np.array_equal(each, results[0]) for each in results)


def test_a_large_sink_takes_everything_and_a_small_one_nothing(isa):
    sequences = Sequences([50], 4, 2, 32)
    with Machine(isa) as machine:
        sequences.sinks[:] = -1000.0
        without = sequences.run(machine, [(0, 0, 50)])
        sequences.sinks[:] = 1000.0
        assert not sequences.run(machine, [(0, 0, 50)]).any()
    value = torch.from_numpy(sequences.qkv[0][0, 6 * 32 : 8 * 32]).bfloat16().float().numpy()
    want = np.repeat(value.reshape(2, 1, 32), 2, axis=1)  # the first token sees itself alone
    np.testing.assert_allclose(without[0].reshape(2, 2, 32), want, rtol=1e-6)


def test_scores_far_apart_overflow_nothing(isa):
    sequences = Sequences([100], 4, 2, 32)
    sequences.qkv[0] *= 100.0
    with Machine(isa) as machine:
        got = sequences.run(machine, [(0, 0, 100)])
    assert np.isfinite(got).all()


def test_a_query_that_is_not_a_number_spoils_its_own_token_and_no_other(isa):
    sequences = Sequences([50], 4, 2, 32)
    sequences.qkv[0][20, 5] = np.nan  # of the first head
    with Machine(isa) as machine:
        got = sequences.run(machine, [(0, 0, 50)])
    assert np.isnan(got[20, :32]).all()
    assert np.isfinite(np.delete(got, 20, axis=0)).all()
