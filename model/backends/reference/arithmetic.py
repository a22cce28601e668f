"""The kernels in plain PyTorch: slow, on any device.  They define the correct result.

Everything between input and output is float32.  Experts stay in MXFP4.  Those that a step uses are decoded
one matrix at a time, and a limited number of bytes of them is cached (`WIDENED_BYTES`): all of a tiny model,
so that its steps take milliseconds, and very little of a real one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch import Batch
from model.layers import clamped_swiglu
from model.loading.mxfp4 import decode

WIDENED_BYTES = 64 << 20
"""Maximum bytes of cached decoded float32 matrices, in all layers of a model together."""

SCORES = 16 << 20
"""Attention scores that are computed at a time: 64 MiB of float32."""

UNEMBEDDING_ROWS = 8192
"""Rows of the unembedding that are converted to float32 at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Matrices:
    """One matrix of every expert: blocks [E, out, in / 32, 16], scales [E, out, in / 32], bias [E, out]."""

    blocks: Tensor
    scales: Tensor
    bias: Tensor


class Arithmetic:
    """The cache, attention, the experts and the unembedding.

    Letters as in layers.py; N rows that sample.  For one model, and one thread at a time.
    """

    def __init__(self, swiglu_limit: float):
        self.swiglu_limit = swiglu_limit
        self._widened: OrderedDict[object, Tensor] = OrderedDict()  # least recently used first
        self._widened_bytes = 0

    def prepare_experts(
        self, mlp1: tuple[Tensor, Tensor, Tensor], mlp2: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Matrices, Matrices]:
        """One layer's experts in the form that `experts` needs, still in MXFP4.

        mlp1  blocks [E, 2F, C / 32, 16] uint8, scales [E, 2F, C / 32] uint8, bias [E, 2F]
        mlp2  blocks [E, C, F / 32, 16] uint8,  scales [E, C, F / 32] uint8,  bias [E, C]
        """
        (blocks1, scales1, bias1), (blocks2, scales2, bias2) = mlp1, mlp2
        return Matrices(blocks1, scales1, bias1.float()), Matrices(blocks2, scales2, bias2.float())

    def write_kv(self, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
        """Each token's key and value [T, KV, D] into its slot [T] of one layer's pages, in place."""
        keys.flatten(0, 1)[slots] = key
        values.flatten(0, 1)[slots] = value

    def attention(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        sinks: Tensor,
        batch: Batch,
        kind: int,
        window: int | None,
    ) -> Tensor:
        """Causal grouped-query attention over pages, with a learned sink per head.

        q       [T, H, D]                  queries, already rotated
        keys    [pages, page_size, KV, D]  one layer's, likewise values; H is a multiple of KV
        sinks   [H]                        a logit each head may spend its attention on; it has no value
        kind    the row of the batch's page_table: BANDED or FULL
        window  keys a query may see, itself included; None for all
        returns [T, H * D]

        gpt-oss model card (arXiv:2508.10925), section 2.2.
        """
        starts, lengths = batch.starts.tolist(), batch.lengths.tolist()
        seen = torch.empty_like(q)
        for sequence, length in enumerate(lengths):
            start, end = starts[sequence], starts[sequence + 1]
            rows = max(1, SCORES // (q.shape[1] * length))
            for first in range(start, end, rows):
                last = min(first + rows, end)
                pages, known = batch.page_table[kind, sequence], length - (end - last)
                seen[first:last] = _attend(q[first:last], keys, values, sinks, pages, known, window)
        return seen.flatten(1)

    def experts(
        self, x: Tensor, chosen: Tensor, weights: Tensor, prepared: tuple[Matrices, Matrices]
    ) -> Tensor:
        """Each token's chosen experts, weighted and added up.

        x         [T, C]  normalised
        chosen    [T, A]  int64; experts that this rank does not have (negative, or from E on) add nothing
        weights   [T, A]  float32
        prepared  what `prepare_experts` returned
        returns   [T, C]
        """
        mlp1, mlp2 = prepared
        # The (token, expert) pairs in the order of their experts, so that each expert has consecutive rows.
        flat, experts = chosen.flatten(), len(mlp1.blocks)
        order = flat.argsort(stable=True)
        order = order[(flat[order] >= 0) & (flat[order] < experts)]
        if not len(order):
            return torch.zeros_like(x)
        tokens = order // chosen.shape[1]
        counts = flat[order].bincount(minlength=experts).tolist()

        inner = clamped_swiglu(self._each(mlp1, x[tokens].float(), counts), self.swiglu_limit)
        outer = self._each(mlp2, inner, counts) * weights.flatten()[order, None]
        return torch.zeros_like(x, dtype=torch.float32).index_add_(0, tokens, outer).to(x.dtype)

    def unembed(self, x: Tensor, weight: Tensor) -> Tensor:
        """Logits [N, V] float32 of x [N, C] under weight [V, C]."""
        logits = []
        for row in range(0, len(weight), UNEMBEDDING_ROWS):
            rows = weight[row : row + UNEMBEDDING_ROWS]
            logits.append(F.linear(x.float(), self._widen(("unembedding", row), rows.float)))
        return torch.cat(logits, dim=1)

    def _each(self, matrices: Matrices, x: Tensor, counts: list[int]) -> Tensor:
        """Consecutive groups of rows, each times the matrix of its own expert.

        x        [rows, in]  the first counts[0] rows are expert 0's, and so on
        returns  [rows, out]
        """
        rows = []
        start = 0
        for expert, count in enumerate(counts):
            if count:
                run = x[start : start + count]
                rows.append(F.linear(run, self._decoded(matrices, expert), matrices.bias[expert]))
                start += count
        return torch.cat(rows)

    def _decoded(self, matrices: Matrices, expert: int) -> Tensor:
        """One expert's matrix [out, in]."""
        return self._widen(
            (matrices, expert),
            lambda: decode(matrices.blocks[expert], matrices.scales[expert], torch.float32),
        )

    def _widen(self, key: object, make: Callable[[], Tensor]) -> Tensor:
        """The float32 matrix that is cached under `key`, or a new one."""
        if (matrix := self._widened.get(key)) is not None:
            self._widened.move_to_end(key)
            return matrix
        matrix = make()
        self._widened[key] = matrix
        self._widened_bytes += matrix.nbytes
        while self._widened_bytes > WIDENED_BYTES:
            _, oldest = self._widened.popitem(last=False)
            self._widened_bytes -= oldest.nbytes
        return matrix


def _attend(
    q: Tensor, keys: Tensor, values: Tensor, sinks: Tensor, pages: Tensor, known: int, window: int | None
) -> Tensor:
    """Attention of the last n of one sequence's `known` positions.

    q        [n, H, D]
    pages    [P]        of this sequence; only those that hold visible keys are looked up
    returns  [n, H, D]
    """
    count, heads, head_dim = q.shape
    page_size, kv_heads = keys.shape[1], keys.shape[2]

    # Keys [first, known) can be seen by some query, in pages [first // page_size, ceil(known / page_size)).
    first = 0 if window is None else max(0, known - count - window + 1)
    held = pages[first // page_size : -(-known // page_size)]
    inside = slice(first % page_size, first % page_size + known - first)
    k = keys[held].flatten(0, 1)[inside].float()  # [keys, KV, D]
    v = values[held].flatten(0, 1)[inside].float()

    # Query heads that share a key head are rows of one matrix: [KV, group * n, D].
    group = heads // kv_heads
    grouped = q.float().view(count, kv_heads, group, head_dim).permute(1, 2, 0, 3)
    scores = grouped.flatten(1, 2) @ k.permute(1, 2, 0) * head_dim**-0.5
    scores = scores.view(kv_heads, group, count, -1)

    query = torch.arange(known - count, known, device=q.device)[:, None]
    key = torch.arange(first, known, device=q.device)
    hidden = key > query
    if window is not None:
        hidden |= key <= query - window
    scores = scores.masked_fill(hidden, float("-inf"))
    sink = sinks.float().view(kv_heads, group, 1, 1).expand(-1, -1, count, 1)
    shares = torch.cat((scores, sink), dim=-1).softmax(-1)[..., :-1]
    seen = shares.flatten(1, 2) @ v.transpose(0, 1)
    return seen.view(kv_heads, group, count, head_dim).permute(2, 0, 1, 3).reshape(q.shape).to(q.dtype)
