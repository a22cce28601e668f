"""Checks each instruction of the CPU kernels separately, on a model's own weights, against plain PyTorch.

A step is run one instruction at a time.  The inputs of an instruction are in the scratch memory before it,
its results after it, so each instruction is checked by itself, whatever the errors of those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from ctypes import Structure

import torch
from torch import Tensor

from model.backends.cpu.cpu_model import CANDIDATES, CpuModel
from model.backends.cpu.program import (
    Activate,
    Attend,
    Combine,
    Decide,
    Dense,
    Embed,
    Experts,
    Norm,
    Program,
    Quantise,
    Rescore,
    Route,
    Store,
)
from model.backends.reference.arithmetic import Arithmetic
from model.batch import KVCache
from model.check import SMALL, Check, relative_error
from model.interfaces import Model
from model.layers import clamped_swiglu, rms_norm, rotate, rotation, route, yarn_frequencies
from model.loading import mxfp4
from model.loading.synthetic import Synthetic
from model.speed import Load

TOKENS = (1, 3, 70)
"""Numbers of tokens to try: one row, a small odd number, and more than one panel of 64 rows and two pages."""

FLOAT32, SIXTEEN_BITS, KEYS, INT8_WEIGHTS, FOUR_BITS = 1e-5, 1e-4, 1e-3, 1e-2, 0.2
"""Tolerances: sums in another order; activations of 16 bits; keys and values of 8;
weights of 7, and of 4."""


def checks(model: Model, tokens: Iterable[int]) -> Iterator[Check]:
    """model  made of the random weights of `model.check.SMALL`; it cannot be used afterwards"""
    assert isinstance(model, CpuModel)
    assert model.config == SMALL
    counts = list(tokens)
    model.reserve(max(counts))
    whole = model.program.operands
    for count in counts:
        yield from _Walk(model, count, whole).all()


class _Walk:
    """One step of `count` tokens of one sequence, instruction by instruction."""

    def __init__(self, model: CpuModel, count: int, operands: list[Structure]):
        self.model, self.count, self.config = model, count, model.config
        self.weights = Synthetic(model.config)
        self.load = Load(model, 1, count, 0, math.inf)
        self.batch = self.load.batch(seed=count)
        self.scratch = model.scratch
        self.operands = list(operands)  # those not yet run
        self.dense = INT8_WEIGHTS if model.dense == "int8" else FLOAT32

    def all(self) -> Iterator[Check]:
        yield self._embedding()
        for layer in range(self.config.num_layers):
            yield from self._attention(layer)
            yield from self._experts(layer)
        yield from self._logits()

    # Running instructions, and reading what they wrote.

    def _run(self, *kinds: type[Structure]) -> Tensor:
        """Run the next instructions, which must be of these kinds.  Returns the logits if they write them."""
        operands = [self.operands.pop(0) for _ in kinds]
        assert [type(each) for each in operands] == list(kinds)
        self.model.program = Program(operands)
        return self.model.forward(self.batch, self.load.cache)

    def _take(self, name: str) -> Tensor:
        return self.weights.read(name).float()

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self._take(f"{name}.weight").T + self._take(f"{name}.bias")

    @property
    def x(self) -> Tensor:
        return self.scratch.x[: self.count].clone()

    @property
    def normed(self) -> Tensor:
        return self.scratch.normed[: self.count].clone()

    def _rows(self, tensor: Tensor) -> Tensor:
        """The used rows of a scratch tensor that has a row for each token and chosen expert."""
        return tensor[: self.count * self.config.experts_per_token].clone()

    def _check(self, name: str, got: Tensor, want: Tensor, tolerance: float) -> Check:
        return Check(name, self.count, relative_error(got, want), tolerance)

    # The instructions, in the order of the network.

    def _embedding(self) -> Check:
        self._run(Embed)
        return self._check("embedding", self.x, self._take("embedding.weight")[self.batch.tokens], 0)

    def _norm(self, name: str) -> Check:
        self._run(Norm)
        want = rms_norm(self.x, self._take(name), self.config.rms_norm_eps)
        return self._check("RMSNorm", self.normed, want, FLOAT32)

    def _attention(self, layer: int) -> Iterator[Check]:
        config, block = self.config, f"block.{layer}.attn"
        yield self._norm(f"{block}.norm.scale")

        heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
        width = (heads + 2 * kv_heads) * dim
        self._run(Dense)
        qkv = self.scratch.qkv[: self.count, :width].clone()
        yield self._check(
            f"{self.model.dense} product", qkv, self._linear(self.normed, f"{block}.qkv"), self.dense
        )

        self._run(Store)
        q, k, v = torch.tensor_split(
            qkv.view(-1, heads + 2 * kv_heads, dim), (heads, heads + kv_heads), dim=1
        )
        turn = rotation(self.batch.positions, *yarn_frequencies(config))
        q, k = rotate(q, *turn), rotate(k, *turn)
        turned = self.scratch.qkv[: self.count, : heads * dim].view_as(q) * dim**0.5
        yield self._check("rotation", turned, q, FLOAT32)

        self._run(Attend)
        kind = layer % 2
        kernels = Arithmetic(config.swiglu_limit)
        cache = self._plain_cache(kernels, k, v, kind)
        sinks = self._take(f"{block}.sinks")
        want = kernels.attention(
            q, cache.keys[0], cache.values[0], sinks, self.batch, kind, config.window(layer)
        )
        seen = self.scratch.seen[: self.count].clone()
        yield self._check("attention, windowed" if config.window(layer) else "attention", seen, want, KEYS)

        if isinstance(self.operands[0], Quantise):
            self._run(Quantise)
        before = self.x
        self._run(Dense)
        want = before + self._linear(seen, f"{block}.out")
        yield self._check(f"{self.model.dense} product, added", self.x, want, self.dense)

    def _plain_cache(self, kernels: Arithmetic, k: Tensor, v: Tensor, kind: int) -> KVCache:
        """Keys and values in the reference's layout, in bfloat16 as in every cache."""
        shape = (1, self.load.cache.num_pages, self.model.page_size, *k.shape[1:])
        cache = KVCache(*(torch.full(shape, torch.nan) for _ in range(2)))
        keys, values = k.bfloat16().float(), v.bfloat16().float()
        kernels.write_kv(keys, values, cache.keys[0], cache.values[0], self.batch.slots[kind])
        return cache

    def _experts(self, layer: int) -> Iterator[Check]:
        config, block = self.config, f"block.{layer}.mlp"
        yield self._norm(f"{block}.norm.scale")

        self._run(Dense)
        gate = self.scratch.gate[: self.count, : config.num_experts].clone()
        yield self._check("bf16 product", gate, self._linear(self.normed, f"{block}.gate"), FLOAT32)

        self._run(Route)
        chosen, shares = route(gate, config.experts_per_token)
        yield self._check("routing", self._rows(self.scratch.chosen), chosen.flatten(), 0)
        yield self._check("routing, shares", self._rows(self.scratch.shares), shares.flatten(), FLOAT32)

        self._run(Experts)
        rows = self.normed.repeat_interleave(config.experts_per_token, dim=0)
        inner = self._ungrouped(self._rows(self.scratch.inner))
        yield self._check(
            "MXFP4 product, gate and up", inner, self._matrices(f"{block}.mlp1", rows, chosen), SIXTEEN_BITS
        )

        self._run(Activate)
        active = self._rows(self.scratch.inner)[:, : config.intermediate_size]
        yield self._check("SwiGLU", active, clamped_swiglu(inner, config.swiglu_limit), FLOAT32)

        self._run(Experts)
        outer = self._rows(self.scratch.outer)
        yield self._check(
            "MXFP4 product, down", outer, self._matrices(f"{block}.mlp2", active, chosen), SIXTEEN_BITS
        )

        before = self.x
        self._run(Combine)
        added = (outer.view(self.count, -1, config.hidden_size) * shares[..., None]).sum(1)
        yield self._check("weighted sum", self.x, before + added, FLOAT32)

    def _ungrouped(self, inner: Tensor) -> Tensor:
        """Interleaved gates and values, from tiles of 16 gates followed by their 16 values."""
        return inner.view(len(inner), -1, 2, 16).transpose(2, 3).reshape(len(inner), -1)

    def _matrices(self, name: str, rows: Tensor, chosen: Tensor) -> Tensor:
        """Each row [in] times the matrix of its own expert, and its bias."""
        blocks, scales = (self.weights.read(f"{name}_weight.{part}") for part in ("blocks", "scales"))
        decoded, bias = mxfp4.decode(blocks, scales, torch.float32), self._take(f"{name}_bias")
        each = zip(rows, chosen.flatten().tolist(), strict=True)
        return torch.stack([decoded[expert] @ row + bias[expert] for row, expert in each])

    def _logits(self) -> Iterator[Check]:
        self._run(Norm)
        want = rms_norm(self.x[self.batch.samples], self._take("norm.scale"), self.config.rms_norm_eps)
        normed = self.normed[: len(want)]
        yield self._check("RMSNorm, sampled rows", normed, want, FLOAT32)

        exact = normed @ self._take("unembedding.weight").T
        following = list(self.operands)
        logits = self._run(Dense)
        if not self.operands:
            yield self._check("unembedding", logits, exact, self.dense)
            return
        yield self._check("unembedding, upper halves", logits, exact, FOUR_BITS)
        self.operands = list(following)  # each run writes new logits
        logits = self._run(Dense, Decide, Dense)
        yield self._check("unembedding", logits, exact, self.dense)
        self.operands = list(following)
        logits = self._run(Dense, Decide, Dense, Rescore)
        best = exact.topk(CANDIDATES // 4).indices  # well within those that int8 finds
        yield self._check("rescoring", logits.gather(1, best), exact.gather(1, best), FLOAT32)
