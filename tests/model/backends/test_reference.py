"""The reference kernels against their formulas, written out in float64 with loops and numpy."""

import math

import numpy as np
import pytest
import torch

from model.backends.reference import arithmetic as reference
from model.backends.reference.arithmetic import Arithmetic
from model.batch import BANDED, FULL, Batch
from model.layers import clamped_swiglu
from model.loading.mxfp4 import decode, encode
from tests.model.paging import NOWHERE

H, KV, D, PAGE, PAGES = 12, 3, 8, 5, 40  # all different, H // KV too: no swapped axis can pass
C, F, E, A = 64, 32, 7, 3


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attention_by_hand(q, keys, values, sinks, position, window) -> np.ndarray:
    """Attention of one query [H, D] to keys [n, KV, D], computed one head at a time."""
    seen = np.zeros((H, D))
    first = 0 if window is None else max(0, position - window + 1)
    for head in range(H):
        group = head // (H // KV)
        scores = [float(q[head] @ keys[j, group]) / math.sqrt(D) for j in range(first, position + 1)]
        total = sum(math.exp(score) for score in scores) + math.exp(sinks[head])
        for j, score in enumerate(scores):
            seen[head] += math.exp(score) / total * values[first + j, group]
    return seen.reshape(-1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kind", "window"), [(BANDED, 7), (BANDED, 1), (FULL, None)])
@pytest.mark.parametrize("scores", [1, 500, reference.SCORES])
def test_attention_of_mixed_chunks_over_scattered_pages(kind, window, seed, scores, monkeypatch):
    """Unwritten pages contain NaN; pages behind the window or past the end are out of range.

    scores  how many are computed at a time: a query alone, a few queries, whole chunks
    """
    monkeypatch.setattr(reference, "SCORES", scores)
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 30, (4,), generator=draw).tolist()
    chunks = [int(torch.randint(1, length + 1, (1,), generator=draw)) for length in lengths]
    pages = torch.randperm(PAGES, generator=draw).tolist()
    keys, values = (torch.full((PAGES, PAGE, KV, D), torch.nan) for _ in range(2))
    q, sinks = random(seed, sum(chunks), H, D), random(seed + 10, H)

    tables = torch.full((2, len(lengths), 6), NOWHERE, dtype=torch.int32)
    expected = []
    for s, (length, chunk) in enumerate(zip(lengths, chunks, strict=True)):
        k, v = random(seed + 20 + s, length, KV, D), random(seed + 30 + s, length, KV, D)
        first = 0 if window is None else max(0, length - chunk - window + 1)
        for page in range(first // PAGE, -(-length // PAGE)):
            tables[kind, s, page] = number = pages.pop()
            for position in range(max(first, page * PAGE), min(length, (page + 1) * PAGE)):
                keys[number, position % PAGE] = k[position]
                values[number, position % PAGE] = v[position]
        rows = q[sum(chunks[:s]) :][:chunk].double().numpy()
        for i, row in enumerate(rows):
            position = length - chunk + i
            expected.append(
                attention_by_hand(
                    row, k.double().numpy(), v.double().numpy(), sinks.tolist(), position, window
                )
            )

    nothing = torch.empty(0)
    starts = torch.tensor([0, *np.cumsum(chunks)], dtype=torch.int32)
    batch = Batch(
        nothing, nothing, nothing, starts, torch.tensor(lengths, dtype=torch.int32), tables, nothing
    )
    seen = Arithmetic(7.0).attention(q, keys, values, sinks, batch, kind, window)
    np.testing.assert_allclose(seen.numpy(), np.array(expected), rtol=0, atol=1e-5)


def test_a_large_sink_takes_all_attention_and_a_small_one_none():
    """With one key, which has all attention if there is no sink."""
    keys, values = random(1, 1, PAGE, KV, D), random(2, 1, PAGE, KV, D)
    one = torch.tensor([1], dtype=torch.int32)
    table = torch.zeros(2, 1, 1, dtype=torch.int32)
    batch = Batch(one, one, one, torch.tensor([0, 1]), one, table, one)
    sinks = torch.tensor([100.0] * (H // 2) + [-100.0] * (H // 2))
    seen = Arithmetic(7.0).attention(random(3, 1, H, D), keys, values, sinks, batch, FULL, None).view(H, D)
    assert seen[: H // 2].abs().max() < 1e-30
    torch.testing.assert_close(seen[H // 2 :], values[0, 0].repeat_interleave(H // KV, 0)[H // 2 :])


def test_write_kv_touches_its_slots_alone():
    keys, values = (torch.full((PAGES, PAGE, KV, D), torch.nan) for _ in range(2))
    slots = torch.tensor([3 * PAGE + 4, 0, 17 * PAGE + 2])
    key, value = random(1, 3, KV, D), random(2, 3, KV, D)
    Arithmetic(7.0).write_kv(key, value, keys, values, slots)
    for pool, written in ((keys, key), (values, value)):
        for slot, row in zip(slots.tolist(), written, strict=True):
            assert torch.equal(pool[slot // PAGE, slot % PAGE], row)
        assert pool.isfinite().all(dim=(-1, -2)).sum() == 3


@pytest.fixture
def layer():
    """Matrices and biases of one layer's experts: (blocks, scales, bias) twice."""
    return tuple(
        (*encode(random(rows, E, rows, columns) / 8), random(rows + 1, E, rows))
        for rows, columns in ((2 * F, C), (C, F))
    )


def experts_by_hand(x, chosen, weights, layer) -> torch.Tensor:
    """One token and one expert at a time, in float64."""
    (blocks1, scales1, bias1), (blocks2, scales2, bias2) = layer
    matrices1, matrices2 = decode(blocks1, scales1, torch.float64), decode(blocks2, scales2, torch.float64)
    total = torch.zeros(x.shape, dtype=torch.float64)
    for t in range(len(x)):
        for expert, weight in zip(chosen[t].tolist(), weights[t].tolist(), strict=True):
            inner = clamped_swiglu(matrices1[expert] @ x[t].double() + bias1[expert], 7.0)
            total[t] += weight * (matrices2[expert] @ inner + bias2[expert])
    return total


@pytest.mark.parametrize("tokens", [1, 2, 33])
def test_experts(tokens, layer):
    x, weights = random(1, tokens, C), random(2, tokens, A).softmax(-1)
    chosen = random(3, tokens, E).argsort(-1)[:, :A]
    kernels = Arithmetic(7.0)
    ours = kernels.experts(x, chosen, weights, kernels.prepare_experts(*layer))
    torch.testing.assert_close(
        ours.double(), experts_by_hand(x, chosen, weights, layer), rtol=1e-4, atol=1e-4
    )


def test_no_more_bytes_are_remembered_than_allowed_and_answers_do_not_change(layer, monkeypatch):
    """With room for two and a half matrices, the least recently used one is dropped and decoded again."""
    allowed = int(2.5 * 2 * F * C * 4)
    monkeypatch.setattr(reference, "WIDENED_BYTES", allowed)
    small = Arithmetic(7.0)
    prepared = small.prepare_experts(*layer)
    for seed in range(5):
        x, weights = random(seed, 4, C), random(seed + 5, 4, A).softmax(-1)
        chosen = random(seed + 9, 4, E).argsort(-1)[:, :A]
        ours = small.experts(x, chosen, weights, prepared)
        torch.testing.assert_close(
            ours.double(), experts_by_hand(x, chosen, weights, layer), rtol=1e-4, atol=1e-4
        )
        held = sum(matrix.nbytes for matrix in small._widened.values())
        assert held == small._widened_bytes
        assert 0 < held <= allowed


def test_a_token_that_is_not_finite_spoils_no_other(layer):
    """A batch has tokens of several requests, which must not affect each other."""
    x, weights = random(1, 3, C), random(2, 3, A).softmax(-1)
    chosen = torch.tensor([[0, 1, 2], [2, 1, 0], [0, 2, 1]])
    kernels = Arithmetic(7.0)
    prepared = kernels.prepare_experts(*layer)
    sound = kernels.experts(x, chosen, weights, prepared)
    x[1] = torch.nan
    spoiled = kernels.experts(x, chosen, weights, prepared)
    assert spoiled[1].isnan().all()
    torch.testing.assert_close(spoiled[[0, 2]], sound[[0, 2]])


@pytest.mark.parametrize("rows", [1, 100, 8192])
def test_logits_are_float32_however_many_rows_at_a_time(rows, monkeypatch):
    """In bfloat16, logits near 16 would be multiples of ⅛."""
    monkeypatch.setattr(reference, "UNEMBEDDING_ROWS", rows)
    x, weight = random(1, 2, C).bfloat16(), random(2, 211, C).bfloat16()
    logits = Arithmetic(7.0).unembed(x, weight)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), x.double() @ weight.double().T, rtol=1e-5, atol=1e-5)
