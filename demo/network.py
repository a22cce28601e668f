"""The network for training: the same arithmetic as in model/layers.py, over whole samples, with gradients.

Weights of the same kind are one parameter for all layers, so that the optimizer updates them together.
`export` writes them under the names of the original layout, the experts in MXFP4.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from demo import fused
from model.config import ModelConfig
from model.layers import rotation, route, yarn_frequencies
from model.loading import mxfp4
from model.loading.checkpoint import Checkpoint

ROWS = 128
"""The tokens of a pass are padded to a multiple of this, so that there are few shapes, and few kernels to
compile.
"""

CONFIG = ModelConfig(
    vocab_size=2048,
    hidden_size=256,
    num_layers=6,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    num_experts=8,
    experts_per_token=4,
    intermediate_size=128,
    sliding_window=128,
    swiglu_limit=7.0,
    rope_theta=150000.0,
    rope_scaling_factor=8.0,
    rope_ntk_alpha=1.0,
    rope_ntk_beta=32.0,
    initial_context_length=512,
)


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts' matrices for a pass, in the network's dtype, rounded to MXFP4 or not.

    mlp1  [L, E, 2F, C]
    mlp2  [L, E, C, F]
    """

    mlp1: Tensor
    mlp2: Tensor


class Network(nn.Module):
    """A gpt-oss with gradients.

    dtype  of activations and products, such as torch.bfloat16; the parameters are float32
    """

    def __init__(self, config: ModelConfig, seed: int, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        self.config, self.dtype = config, dtype
        noise = torch.Generator().manual_seed(seed)
        c, L, C, W, E = (
            config,
            config.num_layers,
            config.hidden_size,
            config.intermediate_size,
            config.num_experts,
        )
        heads, both = c.num_heads * c.head_dim, (c.num_heads + 2 * c.num_kv_heads) * c.head_dim

        def drawn(*shape: int, deviation: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=noise) * deviation)

        def filled(*shape: int, value: float = 0.0) -> nn.Parameter:
            return nn.Parameter(torch.full(shape, value))

        self.embedding = drawn(c.vocab_size, C, deviation=0.5)
        self.unembedding = filled(c.vocab_size, C)
        self.attn_norm, self.mlp_norm, self.norm = (
            filled(L, C, value=1.0),
            filled(L, C, value=1.0),
            filled(C, value=1.0),
        )
        self.qkv, self.qkv_bias = drawn(L, both, C, deviation=C**-0.5), filled(L, both)
        self.sinks = filled(L, c.num_heads)
        self.out, self.out_bias = drawn(L, C, heads, deviation=(heads * 2 * L) ** -0.5), filled(L, C)
        self.gate, self.gate_bias = drawn(L, E, C, deviation=C**-0.5), filled(L, E)
        self.mlp1, self.mlp1_bias = drawn(L, E, 2 * W, C, deviation=C**-0.5), filled(L, E, 2 * W)
        self.mlp2, self.mlp2_bias = drawn(L, E, C, W, deviation=(W * 2 * L) ** -0.5), filled(L, E, C)
        self.frequencies, self.concentration = yarn_frequencies(config)
        self._initialise_for_copying(noise)

    @torch.no_grad()
    def _initialise_for_copying(self, noise: torch.Generator) -> None:
        """Initialises weights so that copying is learned soon.  Otherwise a small model needs most of its
        training to find it by chance.

        Embedding and unembedding are the same vectors at first, and each head of the first layer attends to
        one place: its own token, the one before, the one before that ...
        """
        c = self.config
        C, D, H, KV = c.hidden_size, c.head_dim, c.num_heads, c.num_kv_heads
        self.unembedding.copy_(self.embedding * (0.4 * C**-0.5))
        here, there, said = (torch.linalg.qr(torch.randn(C, C, generator=noise))[0] for _ in range(3))
        slow = torch.cat(
            2 * (self.frequencies < 0.01,)
        )  # dimensions that hardly rotate, for comparing tokens
        fast = torch.where(self.frequencies > 0.05, 3.0, 0.0)  # pairs that distinguish neighbouring places
        heads = [torch.split(layer, [H * D, KV * D, KV * D]) for layer in self.qkv[:2]]
        q_bias, k_bias, _ = torch.split(self.qkv_bias[0].view(-1, D), [H, KV, KV])
        k_bias[:, : D // 2] = fast
        group = H // KV
        for kv in range(KV):
            rows = slice(kv * D, (kv + 1) * D)
            (_, _, v), (q1, k1, v1) = heads
            v[rows], k1[rows], v1[rows] = here[rows], 1.2 * slow[:, None] * there[rows], said[rows]
            for head in range(kv * group, (kv + 1) * group):
                back = head % group + 1
                columns = slice(head * D, (head + 1) * D)
                q_bias[head] = torch.cat(
                    (fast * (self.frequencies * back).cos(), -fast * (self.frequencies * back).sin())
                )
                q1[columns] = 1.2 * slow[:, None] * here[rows]
                self.out[1][:, columns] = said[rows].T / group
                if back == 1:
                    self.out[0][:, columns] = 0.7 * there[rows].T

    def experts(self, rounded: bool) -> Experts:
        """The experts' matrices; `rounded`: to MXFP4, with straight-through gradients (arXiv:1308.3432)."""
        if not rounded:
            return Experts(self.mlp1.to(self.dtype), self.mlp2.to(self.dtype))
        return Experts(_straight_through(self.mlp1, self.dtype), _straight_through(self.mlp2, self.dtype))

    def forward(
        self, prefix: Tensor, tokens: Tensor, rows: Tensor, experts: Experts
    ) -> tuple[Tensor, Tensor]:
        """Logits of the wanted rows, and how unevenly the experts are used.

        prefix   [P]     the common beginning of all rows; it is computed once
        tokens   [B, R]  the rest of each row
        rows     [N]     flat places in B * R
        returns  logits [N, V] float32
                 imbalance, 1 if all experts are used equally (arXiv:2101.03961, equation 4)
        """
        c = self.config
        frequencies = self.frequencies.to(tokens.device)
        sight = Sight.of(len(prefix), tokens.shape, c, frequencies, self.concentration, self.dtype)
        flat = torch.cat((prefix, tokens.flatten()))
        x = F.embedding(F.pad(flat, (0, -len(flat) % ROWS)), self.embedding.to(self.dtype))
        matrices = [
            self.qkv,
            self.qkv_bias,
            self.out,
            self.out_bias,
            self.gate,
            self.gate_bias,
            self.mlp2_bias,
        ]
        layers = zip(
            *(weight.to(self.dtype).unbind() for weight in matrices),
            *(weight.unbind() for weight in (self.attn_norm, self.mlp_norm, self.sinks, self.mlp1_bias)),
            experts.mlp1.unbind(),
            experts.mlp2.unbind(),
            strict=True,
        )
        imbalance = torch.zeros((), device=x.device)
        for layer, (
            qkv,
            qkv_bias,
            out,
            out_bias,
            gate,
            gate_bias,
            mlp2_bias,
            attn_norm,
            mlp_norm,
            sinks,
            mlp1_bias,
            mlp1,
            mlp2,
        ) in enumerate(layers):
            mixed = _attention(
                F.linear(fused.rms_norm(x, attn_norm, c.rms_norm_eps), qkv, qkv_bias),
                sinks,
                sight,
                layer % 2,
                c,
            )
            x = x + F.linear(mixed, out, out_bias)
            normed = fused.rms_norm(x, mlp_norm, c.rms_norm_eps)
            scores = F.linear(normed, gate, gate_bias).float()
            chosen, weights = route(scores, c.experts_per_token)
            imbalance = imbalance + _imbalance(scores[: len(flat)], chosen[: len(flat)])
            used = torch.zeros_like(scores).scatter(-1, chosen, weights)
            x = x + _experts(normed, used, mlp1, mlp1_bias, mlp2, mlp2_bias, c.swiglu_limit)
        padded = F.pad(rows, (0, -len(rows) % ROWS))
        x = fused.rms_norm(x[len(prefix) :].index_select(0, padded), self.norm, c.rms_norm_eps)
        return F.linear(x, self.unembedding.to(self.dtype)).float()[: len(rows)], imbalance / c.num_layers

    def export(self, folder: Path) -> None:
        """config.json and model.safetensors, in the original layout."""
        folder.mkdir(parents=True, exist_ok=True)
        c = self.config
        facts = {
            "num_hidden_layers": c.num_layers,
            "num_experts": c.num_experts,
            "experts_per_token": c.experts_per_token,
            "vocab_size": c.vocab_size,
            "hidden_size": c.hidden_size,
            "intermediate_size": c.intermediate_size,
            "swiglu_limit": c.swiglu_limit,
            "head_dim": c.head_dim,
            "num_attention_heads": c.num_heads,
            "num_key_value_heads": c.num_kv_heads,
            "sliding_window": c.sliding_window,
            "initial_context_length": c.initial_context_length,
            "rope_theta": c.rope_theta,
            "rope_scaling_factor": c.rope_scaling_factor,
            "rope_ntk_alpha": c.rope_ntk_alpha,
            "rope_ntk_beta": c.rope_ntk_beta,
        }
        (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n")
        save_file(self.tensors(), folder / "model.safetensors")
        (folder / "model.safetensors").chmod(0o644)  # safetensors writes files that only their owner can read

    @torch.no_grad()
    def take(self, folder: Path) -> None:
        """Take over exported weights, with their rounding, to continue training."""
        checkpoint = Checkpoint.open(folder)
        if checkpoint.config != self.config:
            raise ValueError(f"{folder} has a model of other sizes: {checkpoint.config}")
        for name, parameter, layer in self._places():
            if name.endswith("mlp1_weight") or name.endswith("mlp2_weight"):
                blocks, scales = (checkpoint.read(f"{name}.{part}") for part in ("blocks", "scales"))
                parameter[layer] = mxfp4.decode(blocks, scales, torch.float32).view_as(parameter[layer])
            else:
                target = parameter if layer is None else parameter[layer]
                target.copy_(checkpoint.read(name))

    def tensors(self) -> dict[str, Tensor]:
        """All weights by their names in the original layout."""
        found: dict[str, Tensor] = {}
        for name, parameter, layer in self._places():
            weight = (parameter if layer is None else parameter[layer]).detach()
            if name.endswith("mlp1_weight") or name.endswith("mlp2_weight"):
                blocks, scales = mxfp4.encode(weight)
                found[f"{name}.blocks"], found[f"{name}.scales"] = blocks.contiguous(), scales.contiguous()
            else:
                found[name] = weight.bfloat16().contiguous()
        return {name: weight.cpu() for name, weight in found.items()}

    def _places(self) -> Iterator[tuple[str, nn.Parameter, int | None]]:
        """Each weight's name in the original layout, and its place: a parameter, and the layer in it."""
        yield "embedding.weight", self.embedding, None
        yield "norm.scale", self.norm, None
        yield "unembedding.weight", self.unembedding, None
        layered = {
            "attn.norm.scale": self.attn_norm,
            "attn.qkv.weight": self.qkv,
            "attn.qkv.bias": self.qkv_bias,
            "attn.sinks": self.sinks,
            "attn.out.weight": self.out,
            "attn.out.bias": self.out_bias,
            "mlp.norm.scale": self.mlp_norm,
            "mlp.gate.weight": self.gate,
            "mlp.gate.bias": self.gate_bias,
            "mlp.mlp1_bias": self.mlp1_bias,
            "mlp.mlp2_bias": self.mlp2_bias,
            "mlp.mlp1_weight": self.mlp1,
            "mlp.mlp2_weight": self.mlp2,
        }
        for layer in range(self.config.num_layers):
            for name, parameter in layered.items():
                yield f"block.{layer}.{name}", parameter, layer


def _straight_through(weight: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.no_grad():
        difference = mxfp4.decode(*mxfp4.encode(weight), torch.float32) - weight
    return (weight + difference).to(dtype)


@dataclass(frozen=True, slots=True)
class Sight:
    """The positions of a batch's tokens, and the attention masks.

    cos, sin  [P + B * R, D / 2]
    prefix    [2, P, 1 + P]      added to the scores, for banded and full layers; column 0 belongs to the sink
    rows      [2, R, 1 + P + R]
    shape     (P, B, R)
    """

    cos: Tensor
    sin: Tensor
    prefix: Tensor
    rows: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(
        cls,
        P: int,
        shape: torch.Size,
        c: ModelConfig,
        frequencies: Tensor,
        concentration: float,
        dtype: torch.dtype,
    ) -> Sight:
        B, R = shape
        positions = torch.arange(P + R, device=frequencies.device)
        cos, sin = rotation(torch.cat((positions[:P], positions[P:].repeat(B))), frequencies, concentration)
        distance = positions[:, None] - positions
        seen = torch.stack([(distance >= 0) & (distance < (c.window(layer) or P + R)) for layer in (0, 1)])
        seen = torch.cat((torch.ones(2, P + R, 1, dtype=torch.bool, device=seen.device), seen), dim=-1)
        masks = torch.where(seen, 0.0, -math.inf).to(dtype)
        return cls(cos, sin, masks[:, :P, : 1 + P], masks[:, P:], (P, B, R))


def _attention(qkv: Tensor, sinks: Tensor, sight: Sight, kind: int, c: ModelConfig) -> Tensor:
    """Grouped-query attention with sinks: the prefix over itself, each row over the prefix and itself.

    qkv      [T, (H + 2 KV) * D]   T is P + B * R and the padding
    returns  [T, H * D]
    """
    P, B, R = sight.shape
    H, KV, D = c.num_heads, c.num_kv_heads, c.head_dim
    G, end = H // KV, P + B * R
    qk, v = torch.split(qkv[:end].view(end, -1, D), [H + KV, KV], dim=1)
    qk = fused.rotate(qk, sight.cos, sight.sin)
    q, k = (qk[:, :H] * D**-0.5), qk[:, H:]

    def keys(x: Tensor) -> Tensor:
        """[KV, B, 1 + P + R, D]: the sink's zeros, the prefix, the row's own."""
        own = x[P:].view(B, R, KV, D).permute(2, 0, 1, 3)
        shared = F.pad(x[:P].transpose(0, 1), (0, 0, 1, 0))[:, None].expand(KV, B, 1 + P, D)
        return torch.cat((shared, own), dim=2).flatten(0, 1)

    def first_keys(x: Tensor) -> Tensor:
        return F.pad(x[:P].transpose(0, 1), (0, 0, 1, 0))

    def grouped(q: Tensor, B: int) -> Tensor:
        """[KV * B, G * Q, D]: the heads of a group share one product."""
        return q.view(B, -1, KV, G, D).permute(2, 0, 3, 1, 4).reshape(KV * B, -1, D)

    def back(mixed: Tensor, B: int) -> Tensor:
        return mixed.view(KV, B, G, -1, D).permute(1, 3, 0, 2, 4).reshape(-1, H * D)

    per_group = sinks.view(KV, G)
    first = fused.attend(grouped(q[:P], 1), first_keys(k), first_keys(v), per_group, sight.prefix[kind])
    rest = fused.attend(grouped(q[P:], B), keys(k), keys(v), per_group, sight.rows[kind])
    return F.pad(torch.cat((back(first, 1), back(rest, B))), (0, 0, 0, len(qkv) - end))


def _experts(
    x: Tensor, used: Tensor, mlp1: Tensor, mlp1_bias: Tensor, mlp2: Tensor, mlp2_bias: Tensor, limit: float
) -> Tensor:
    """The weighted sum of the experts.

    x        [T, C]
    used     [T, E]  the weight of each expert, 0 for those not chosen
    returns  [T, C]
    """
    E, width, C = len(mlp1), mlp1.shape[1] // 2, mlp1.shape[2]
    # Separate gates and values: the rows are interleaved, [E, 2F, ...].
    wide = mlp1.view(E, width, 2, C).permute(2, 0, 1, 3).reshape(-1, C)
    bias = mlp1_bias.view(E, width, 2).permute(2, 0, 1).flatten()
    inner = fused.weighted_swiglu(F.linear(x, wide, bias.to(x.dtype)), used, limit)
    answers = F.linear(inner, mlp2.transpose(0, 1).flatten(1))
    return answers + used.to(x.dtype) @ mlp2_bias


def _imbalance(scores: Tensor, chosen: Tensor) -> Tensor:
    experts = scores.shape[-1]
    used = torch.zeros_like(scores).scatter(-1, chosen, 1.0).mean(0) / chosen.shape[-1]
    return experts * (used * scores.softmax(-1).mean(0)).sum()
