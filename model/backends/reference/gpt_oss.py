"""The network of gpt-oss: embedding → L x (attention, experts) → norm → unembedding.

One pass computes a `Batch`: some tokens of some sequences, whose earlier keys and values are in the cache.
Between operations activations are bfloat16, as in training; inside them sums are float32.  Cache, attention
over pages, experts and unembedding are in arithmetic.py.

Source: gpt-oss model card (arXiv:2508.10925), section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.backends.reference.arithmetic import Arithmetic
from model.batch import Batch, KVCache
from model.device import Meter, copy_meter
from model.layers import rms_norm, rotate, rotation, route, yarn_frequencies
from model.loading.tensors import TensorSource
from model.parallel.ranks import ALONE, Ranks, owned_rows
from model.sizes import decode_bytes

Take = Callable[[str], Tensor]
"""Reads a tensor of the checkpoint onto the device."""


@dataclass(frozen=True, slots=True)
class Attention:
    """norm [C], qkv [(H + 2 KV) * D, C], sinks [H] float32, out [C, H * D]."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    sinks: Tensor
    out: Tensor
    out_bias: Tensor

    @classmethod
    def read(cls, take: Take, prefix: str) -> Attention:
        return cls(
            norm=take(f"{prefix}.norm.scale"),
            qkv=take(f"{prefix}.qkv.weight"),
            qkv_bias=take(f"{prefix}.qkv.bias"),
            sinks=take(f"{prefix}.sinks").float(),
            out=take(f"{prefix}.out.weight"),
            out_bias=take(f"{prefix}.out.bias"),
        )


@dataclass(frozen=True, slots=True)
class Experts:
    """norm [C], gate [E, C] float32, and the experts in the form that `Arithmetic` needs."""

    norm: Tensor
    gate: Tensor
    gate_bias: Tensor
    prepared: Any

    @classmethod
    def read(cls, take: Take, prefix: str, arithmetic: Arithmetic) -> Experts:
        mlp1, mlp2 = (
            (take(f"{mlp}_weight.blocks"), take(f"{mlp}_weight.scales"), take(f"{mlp}_bias"))
            for mlp in (f"{prefix}.mlp1", f"{prefix}.mlp2")
        )
        return cls(
            norm=take(f"{prefix}.norm.scale"),
            gate=take(f"{prefix}.gate.weight").float(),
            gate_bias=take(f"{prefix}.gate.bias").float(),
            prepared=arithmetic.prepare_experts(mlp1, mlp2),
        )


class GptOss:
    """A gpt-oss in memory; a `Model`.

    checkpoint  the source of its tensors
    dtype       of weights and activations: bfloat16, as it was trained, or float32 to compare with an oracle
    page_size   positions of one page of the cache
    arithmetic  a replacement, for tests
    ranks       the ranks that compute the model; `checkpoint` is then this rank's part
    """

    def __init__(
        self,
        checkpoint: TensorSource,
        device: torch.device,
        dtype: torch.dtype = torch.bfloat16,
        page_size: int = 32,
        arithmetic: Arithmetic | None = None,
        ranks: Ranks = ALONE,
    ):
        self.config = checkpoint.config
        self.arithmetic = arithmetic = arithmetic or Arithmetic(self.config.swiglu_limit)
        self.device = device
        self.dtype = dtype
        self.page_size = page_size
        self.ranks = ranks
        self.settings: dict[str, str] = {}
        self.weight_bytes = 0

        def take(name: str) -> Tensor:
            tensor = checkpoint.read(name)
            tensor = tensor.to(device, tensor.dtype if tensor.dtype == torch.uint8 else dtype)
            self.weight_bytes += tensor.nbytes
            return tensor

        self.embedding = take("embedding.weight")
        self.layers = [
            (
                Attention.read(take, f"block.{layer}.attn"),
                Experts.read(take, f"block.{layer}.mlp", arithmetic),
            )
            for layer in range(self.config.num_layers)
        ]
        self.norm = take("norm.scale")
        self.unembedding = take("unembedding.weight")
        self.frequencies, self.concentration = yarn_frequencies(self.config, device)

    @property
    def page_bytes(self) -> int:
        config = self.config
        return 2 * self._pairs * self.page_size * config.num_kv_heads * config.head_dim * self.dtype.itemsize

    @property
    def cache_format(self) -> str:
        return f"reference {self.device} {self.dtype} torch {torch.__version__}"

    def new_cache(self, num_pages: int) -> KVCache:
        shape = (self._pairs, num_pages, self.page_size, self.config.num_kv_heads, self.config.head_dim)
        keys, values = (torch.empty(shape, dtype=self.dtype, device=self.device) for _ in range(2))
        return KVCache(keys, values)

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        x = self._embedded(batch.tokens)
        turn = rotation(batch.positions, self.frequencies, self.concentration)
        for layer, (attention, experts) in enumerate(self.layers):
            x = x + self._attention(layer, attention, x, turn, batch, cache)
            x = x + self._experts(experts, x)
        x = rms_norm(x[batch.samples], self.norm, self.config.rms_norm_eps)
        return self.ranks.gathered(self.arithmetic.unembed(x, self.unembedding))

    def decode_bytes(self, context: int) -> float:
        return decode_bytes(self.config, "bf16", context)

    def meter(self) -> Meter:
        return copy_meter(self.device)

    def _embedded(self, tokens: Tensor) -> Tensor:
        """[T, C]"""
        if self.ranks.size == 1:
            return F.embedding(tokens, self.embedding)
        x = owned_rows(tokens, self.embedding, self.ranks)
        self.ranks.add_up(x)
        return x

    def _added_up(self, part: Tensor) -> Tensor:
        """The sum over the ranks, computed in float32."""
        if self.ranks.size == 1:
            return part
        total = part.float()
        self.ranks.add_up(total)
        return total.to(part.dtype)

    def _attention(
        self,
        layer: int,
        weights: Attention,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        batch: Batch,
        cache: KVCache,
    ) -> Tensor:
        """The result of one layer's attention, which is added to x [T, C]."""
        heads, kv_heads, head_dim = self.config.num_heads, self.config.num_kv_heads, self.config.head_dim
        x = rms_norm(x, weights.norm, self.config.rms_norm_eps)
        qkv = F.linear(x, weights.qkv, weights.qkv_bias).view(-1, heads + 2 * kv_heads, head_dim)
        q, k, v = torch.tensor_split(qkv, (heads, heads + kv_heads), dim=1)
        q, k = rotate(q, *turn), rotate(k, *turn)

        kind, window = layer % 2, self.config.window(layer)
        keys, values = cache.keys[layer // 2], cache.values[layer // 2]
        self.arithmetic.write_kv(k, v, keys, values, batch.slots[kind])
        seen = self.arithmetic.attention(q, keys, values, weights.sinks, batch, kind, window)
        return self._added_up(F.linear(seen, weights.out, weights.out_bias))

    def _experts(self, weights: Experts, x: Tensor) -> Tensor:
        """The result of one layer's experts, which is added to x [T, C]."""
        x = rms_norm(x, weights.norm, self.config.rms_norm_eps)
        # In float32, because a logit rounded to bfloat16 can tie with another and choose a different expert.
        logits = F.linear(x.float(), weights.gate, weights.gate_bias)
        chosen, shares = route(logits, self.config.experts_per_token)
        own = chosen - self.ranks.first(self.config.num_experts)
        return self._added_up(self.arithmetic.experts(x, own, shares, weights.prepared))

    @property
    def _pairs(self) -> int:
        """Number of banded layers: as many as full ones, or one more if the number of layers is odd."""
        return (self.config.num_layers + 1) // 2
