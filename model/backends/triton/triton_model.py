"""gpt-oss on a GPU: the network, made of the kernels in this folder.

Between kernels activations are bfloat16, as in training; inside them sums are float32.  The residual stream
is one tensor, x, to which attention and experts of each layer add in place.
"""

from __future__ import annotations

import contextlib
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from model.backends.triton.graphs import Graphs
from model.backends.triton.kernels import (
    attention_decode,
    attention_prefill,
    expert_order,
    experts_few,
    experts_many,
    fp8,
    rotary,
)
from model.backends.triton.kernels.codes import padded
from model.backends.triton.kernels.dense import Dense, add_linear, linear, product
from model.backends.triton.kernels.dense_int8 import Quantised
from model.backends.triton.kernels.edits import edit_logits
from model.backends.triton.kernels.norm import normalise
from model.backends.triton.kernels.router import choose, gate_parts, router
from model.backends.triton.kernels.token_choice import choose_tokens
from model.backends.triton.weights import Layer, Weights
from model.batch import Batch, KVCache, PerKind
from model.config import ModelConfig
from model.device import Meter, copy_meter
from model.draws import Draws
from model.layers import yarn_frequencies
from model.logit_edits import Edits
from model.parallel.ranks import ALONE, Ranks, owned_rows
from model.sizes import decode_bytes

FEW_FOR_EXPERTS = 8
"""Up to this many tokens, each pair of token and expert is a separate product; more are sorted by expert."""

FEW_FOR_DENSE = 16
"""Up to this many tokens, dense products are this folder's kernels, fused with other operations; for more,
the library's are as fast.
"""

MOST_SPLITS = 64
MOST_SPLIT = 1024
"""Maximum parts of one sequence's keys; and maximum key heads, of all sequences, whose keys are in parts: at
most twice the number of multiprocessors.
"""

KEYS_OF_A_PART = 8192
"""Keys of each part of a long context with `batch_invariant`, because the number of sequences may
not matter.
"""

KV_CACHES = ("bf16", "fp8")


class TritonModel:
    """A gpt-oss in memory; a `Model`.

    `forward` returns logits that are valid until the next call, because all graphs write to the same memory.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        page_size: int = 32,
        kv_cache_dtype: str = "bf16",
        batch_invariant: bool = False,
        ranks: Ranks = ALONE,
    ):
        """
        weights         their device is the model's, and their dtype is that of activations
        page_size       positions of one page of the cache
        kv_cache_dtype  format of keys and values in full layers: "bf16" (like activations) or "fp8"; banded
                        layers, which need little memory, always have "bf16"
        batch_invariant a token's result is bit-identical whatever else is in the batch, and however its
        prompt is
                        divided into chunks: the choice of kernels and the order of sums depend on nothing
                        else
        ranks           the ranks that compute the model; config and weights are then this rank's part
        """
        if kv_cache_dtype not in KV_CACHES:
            raise ValueError(
                f"keys and values can be kept as {' or '.join(KV_CACHES)}, not {kv_cache_dtype!r}"
            )
        self.config = config
        self.ranks = ranks
        self.weights = weights
        self.device = device = weights.embedding.device
        self.dtype = weights.embedding.dtype
        self.page_size = page_size
        self.full_dtype = fp8.storage(device) if kv_cache_dtype == "fp8" else self.dtype
        self.kv_cache_dtype = kv_cache_dtype
        self.batch_invariant = batch_invariant
        self.pdl = False
        """Whether each kernel of a decode step begins while the previous one ends, see
        dependent_launch.py.
        """
        on_gpu = device.type == "cuda"
        self.multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count if on_gpu else 1
        capability = torch.cuda.get_device_capability(device) if on_gpu else (9, 0)
        self.tiles = experts_many.tiles_for(capability)
        self.splits_at_once = attention_decode.splits_at_once(capability)
        self.router_arrivals = torch.zeros(FEW_FOR_EXPERTS, dtype=torch.int32, device=device)
        self.split_arrivals = torch.zeros(MOST_SPLIT, dtype=torch.int32, device=device)
        """Counters that are zero before and after each kernel, see last_arrival.py."""
        self.current = torch.cuda.device(device) if on_gpu else contextlib.nullcontext()
        with self.current:
            self.turn = rotary.angles(config.max_context, *yarn_frequencies(config, device))
        self.weight_bytes = weights.nbytes
        pages = -(-config.max_context // page_size)
        self.vocabulary = ranks.size * config.vocab_size
        """Number of logits of a row, from all ranks together."""
        self.graphs = None
        if on_gpu:
            self.graphs = Graphs(self.network, device, pages, self.vocabulary, needed=ranks.size > 1)

    @property
    def dense(self) -> str:
        """The format of attention's matrices and the unembedding."""
        return "int8" if isinstance(self.weights.unembedding, Quantised) else "bf16"

    @property
    def settings(self) -> dict[str, str | bool]:
        return {
            "dense": self.dense,
            "kv_cache_dtype": self.kv_cache_dtype,
            "batch_invariant": self.batch_invariant,
        }

    def decode_bytes(self, context: int) -> float:
        return decode_bytes(self.config, self.dense, context, self.kv_cache_dtype)

    def meter(self) -> Meter:
        return copy_meter(self.device)

    @property
    def page_bytes(self) -> PerKind:
        config = self.config
        numbers = 2 * self._pairs * self.page_size * config.num_kv_heads * config.head_dim
        banded, full = (numbers * dtype.itemsize for dtype in (self.dtype, self.full_dtype))
        return banded if self.full_dtype == self.dtype else (banded, full)

    @property
    def cache_format(self) -> str:
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "interpreter"
        kept = f"dense {self.dense} cache {self.kv_cache_dtype} batch invariant {self.batch_invariant}"
        return f"triton {device} {kept} torch {torch.__version__}"

    def new_cache(self, num_pages: PerKind) -> KVCache:
        """A page's layout is [KV, page_size, D], so that each program reads contiguous memory."""
        if isinstance(num_pages, int):
            assert self.full_dtype == self.dtype, "each kind of layer has its own pool"
            return KVCache(*self._pool(num_pages, self.dtype))
        banded, full = num_pages
        return KVCache(*self._pool(banded, self.dtype), full=self._pool(full, self.full_dtype))

    def _pool(self, num_pages: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        shape = (self._pairs, num_pages, self.config.num_kv_heads, self.page_size, self.config.head_dim)
        keys, values = (torch.empty(shape, dtype=dtype, device=self.device) for _ in range(2))
        return keys, values

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        with self.current:  # Triton launches on the current device
            if self.graphs is not None and (logits := self.graphs.run(batch, cache)) is not None:
                return logits
            return self.network(batch, cache)

    def prepare(self, cache: KVCache, rows: int) -> None:
        """Captures the graphs of decode steps of up to `rows` sequences."""
        if self.graphs is not None:
            with self.current, torch.inference_mode():
                self.graphs.prepare(cache, rows)

    def edit(self, logits: Tensor, edits: Edits, latest: Tensor | None = None) -> None:
        with self.current:
            edit_logits(logits, edits, latest)

    def choose(self, logits: Tensor, draws: Draws, batch: Batch) -> Tensor:
        with self.current:
            return choose_tokens(logits, draws, batch)

    def network(self, batch: Batch, cache: KVCache, logits: Tensor | None = None) -> Tensor:
        """The pass itself, kernel by kernel.  Graphs capture it, and it runs directly if there is no graph.

        logits  [N, V] float32, to write them to; None for new ones
        """
        x = self.embedded(batch.tokens)
        for number, layer in enumerate(self.weights.layers):
            pending_bias = self.add_attention(number, layer, x, batch, cache)
            self.add_experts(layer, x, pending_bias)
        if self.ranks.size > 1:
            gathered = self.ranks.gathered(self.unembedded(x, batch))
            return gathered if logits is None else logits.copy_(gathered)
        return self.unembedded(x, batch, logits)

    def embedded(self, tokens: Tensor) -> Tensor:
        """[T, C]"""
        if self.ranks.size == 1:
            return F.embedding(tokens, self.weights.embedding)
        x = owned_rows(tokens, self.weights.embedding, self.ranks)
        self.ranks.add_up(x)
        return x

    def unembedded(self, x: Tensor, batch: Batch, logits: Tensor | None = None) -> Tensor:
        """This rank's logits [N, V] of x [T, C]."""
        if logits is None:
            logits = x.new_empty(len(batch.samples), self.config.vocab_size, dtype=torch.float32)
        return product(
            x,
            self.weights.unembedding,
            logits,
            norm=self.weights.norm,
            eps=self.config.rms_norm_eps,
            rows=batch.samples,
            invariant=self.batch_invariant,
            pdl=self.pdl,
        )

    def add_attention(
        self, number: int, layer: Layer, x: Tensor, batch: Batch, cache: KVCache
    ) -> Tensor | None:
        """Adds the attention of layer `number` to x [T, C].  Returns a bias [C] that must still be added, by
        the kernel that reads x next, or None.
        """
        config, eps, tokens = self.config, self.config.rms_norm_eps, len(x)
        few = tokens <= FEW_FOR_DENSE and not self.batch_invariant
        if few:
            qkv = x.new_empty(tokens, len(layer.qkv))
            norm = layer.attention_norm
            product(x, layer.qkv, qkv, bias=layer.qkv_bias, norm=norm, eps=eps, pdl=self.pdl)
        else:
            normed = torch.empty_like(x)
            normalise(x, layer.attention_norm, eps, normed)
            qkv = self.linear(normed, layer.qkv, layer.qkv_bias)

        seen = x.new_empty(tokens, config.num_heads * config.head_dim)
        kind, window = number % 2, config.window(number)
        keys, values = cache.of(number)
        first_page = cache.first_page(number)
        where = (layer.sinks, batch, kind, window, seen)
        if tokens == len(batch.lengths) and not self.batch_invariant:  # each sequence has one token
            splits = self.splits(tokens) if window is None else 1
            inputs = (qkv, self.turn, keys, values, first_page, *where)
            attention_decode.attend(*inputs, splits, self.pdl, self.split_arrivals, self.splits_at_once)
        else:
            places = (batch.positions, batch.slots[kind])
            rotary.write(qkv, self.turn, *places, keys, values, first_page, config.num_heads)
            part = KEYS_OF_A_PART if self.batch_invariant and window is None else 0
            attention_prefill.attend(qkv, self.turn, keys, values, first_page, *where, part)

        with self.ranks.adding(x):
            if not few and self.by_library(layer.out):
                add_linear(x, seen, layer.out)
                if self.ranks.size == 1:
                    return layer.out_bias
                x += layer.out_bias  # before the sum over the ranks, because only rank 0 has it
                return None
            invariant, pdl = self.batch_invariant, few and self.pdl
            product(seen, layer.out, x, bias=layer.out_bias, add=True, invariant=invariant, pdl=pdl)
        return None

    def by_library(self, weight: Dense) -> TypeGuard[Tensor]:
        """Whether the library computes products of many tokens: if it supports the format, and is
        allowed to.
        """
        return isinstance(weight, Tensor) and not self.batch_invariant

    def linear(self, x: Tensor, weight: Dense, bias: Tensor) -> Tensor:
        """x [T, K] of many tokens @ weight.T + bias."""
        if self.by_library(weight):
            return linear(x, weight, bias)
        out = x.new_empty(len(x), len(weight))
        return product(x, weight, out, bias=bias, invariant=self.batch_invariant)

    def add_experts(self, layer: Layer, x: Tensor, pending_bias: Tensor | None = None) -> None:
        """Adds the experts of one layer to x [T, C].

        pending_bias  the bias that `add_attention` returned
        """
        config, eps, tokens = self.config, self.config.rms_norm_eps, len(x)
        used, limit = config.experts_per_token, config.swiglu_limit
        invariant = self.batch_invariant
        if tokens <= FEW_FOR_EXPERTS and not invariant:
            assert pending_bias is None, "the kernels for few tokens add the bias themselves"
            normed = torch.empty_like(x, dtype=torch.float32)
            inner = normed.new_empty(tokens * used, config.intermediate_size)
            chosen, shares = self.choice(tokens)
            gate = (layer.experts_norm, layer.gate, layer.gate_bias)
            router(x, *gate, self.router_arrivals, chosen, shares, normed, eps, self.pdl)
            if self.ranks.size > 1:  # other ranks' experts are replaced by one of this rank with the share 0
                self.own(chosen, shares, other=0)
            experts_few.gate_up(normed, chosen, layer.mlp1, inner, limit, self.pdl)
            with self.ranks.adding(x):
                experts_few.down(inner, chosen, shares, layer.mlp2, x, self.pdl)
            return
        normed, in_order = torch.empty_like(x), x.new_empty(tokens, padded(config.hidden_size))
        inner = x.new_empty(tokens * used, padded(config.intermediate_size))
        normalise(x, layer.experts_norm, eps, normed, in_order, bias=pending_bias)
        parts = gate_parts(normed, layer.gate)
        outer = x.new_empty(tokens * used, config.hidden_size)
        if expert_order.at_once(tokens, config.num_experts) and self.ranks.size == 1:
            order, starts, shares = expert_order.choose_and_sort(parts, layer.gate_bias, used)
        else:
            chosen, shares = self.choice(tokens)
            choose(parts, layer.gate_bias, chosen, shares)
            if self.ranks.size > 1:  # other ranks' pairs are sorted first, and get no tile
                self.own(chosen, shares, other=-1)
                outer.zero_()
            order, starts = expert_order.sort(chosen, config.num_experts)
        experts_many.gate_up(in_order, layer.mlp1, order, starts, inner, limit, invariant, self.tiles)
        experts_many.down(inner, layer.mlp2, order, starts, shares, outer, invariant, self.tiles)
        with self.ranks.adding(x):
            experts_many.combine(outer, x)

    def choice(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Memory for the chosen experts of this many tokens and their shares, [T, A] each."""
        shape, device = (tokens, self.config.experts_per_token), self.device
        return torch.empty(shape, dtype=torch.int32, device=device), torch.empty(shape, device=device)

    def own(self, chosen: Tensor, shares: Tensor, other: int) -> None:
        """Converts expert numbers to this rank's own, in place; other ranks' experts become `other`, with
        share 0.
        """
        own = chosen.sub_(self.ranks.first(self.config.num_experts))
        elsewhere = (own < 0) | (own >= self.config.num_experts)
        own.masked_fill_(elsewhere, other)
        shares.masked_fill_(elsewhere, 0.0)

    def splits(self, sequences: int) -> int:
        """The number of parts of the keys, a power of two: up to four programs for each multiprocessor."""
        wanted = 4 * self.multiprocessors // (sequences * self.config.num_kv_heads)
        return min(MOST_SPLITS, 1 << max(0, wanted.bit_length() - 1))

    @property
    def _pairs(self) -> int:
        """Number of banded layers: as many as full ones, or one more if the number of layers is odd."""
        return (self.config.num_layers + 1) // 2
