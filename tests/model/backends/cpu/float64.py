"""gpt-oss in float64, from the checkpoint's own values: the kernels are compared with it.

It is written in numpy from the model card (arXiv:2508.10925), YaRN (arXiv:2309.00071) and the MX
specification.  It shares no arithmetic with model/, and rounds only where it is asked to.
"""

from collections.abc import Callable

import numpy as np
import torch

from model.config import ModelConfig
from model.loading.checkpoint import Checkpoint

Rounding = Callable[[np.ndarray], np.ndarray]

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def exact(x: np.ndarray) -> np.ndarray:
    return x


def logits(
    checkpoint: Checkpoint, tokens: list[int], *, dense: Rounding = exact, cached: Rounding = exact
) -> np.ndarray:
    """The logits [T, V] of one sequence.

    dense   what becomes of the matrices [outputs, inputs] of attention and of the unembedding
    cached  what becomes of keys, once rotated, and of values
    """
    return Network(checkpoint, dense, cached).logits(tokens)


class Network:
    def __init__(self, checkpoint: Checkpoint, dense: Rounding, cached: Rounding):
        self.config: ModelConfig = checkpoint.config
        self.checkpoint = checkpoint
        self.dense, self.cached = dense, cached

    def logits(self, tokens: list[int]) -> np.ndarray:
        x = self.read("embedding.weight")[tokens]
        cos, sin = rotation(self.config, len(tokens))
        for n in range(self.config.num_layers):
            x = x + self.attention(f"block.{n}.attn", x, cos, sin, self.config.window(n))
            x = x + self.experts(f"block.{n}.mlp", x)
        return self.norm("norm.scale", x) @ self.dense(self.read("unembedding.weight")).T

    def attention(
        self, name: str, x: np.ndarray, cos: np.ndarray, sin: np.ndarray, window: int | None
    ) -> np.ndarray:
        c = self.config
        qkv = self.norm(f"{name}.norm.scale", x) @ self.dense(self.read(f"{name}.qkv.weight")).T
        qkv = (qkv + self.read(f"{name}.qkv.bias")).reshape(len(x), -1, c.head_dim)
        q, k, v = np.split(qkv, [c.num_heads, c.num_heads + c.num_kv_heads], axis=1)
        q, k, v = turned(q, cos, sin), self.cached(turned(k, cos, sin)), self.cached(v)
        sinks = self.read(f"{name}.sinks")
        behind = np.arange(len(x))[:, None] - np.arange(len(x))  # [query, key]
        hidden = (behind < 0) | (behind >= (window or len(x)))
        out = np.empty_like(q)
        for head in range(c.num_heads):
            shared = head // (c.num_heads // c.num_kv_heads)
            scores = q[:, head] @ k[:, shared].T / np.sqrt(c.head_dim)
            scores[hidden] = -np.inf
            shares = softmax(np.column_stack([scores, np.full(len(x), sinks[head])]))
            out[:, head] = shares[:, :-1] @ v[:, shared]
        weights = self.dense(self.read(f"{name}.out.weight"))
        return out.reshape(len(x), -1) @ weights.T + self.read(f"{name}.out.bias")

    def experts(self, name: str, x: np.ndarray) -> np.ndarray:
        c = self.config
        x = self.norm(f"{name}.norm.scale", x)
        scores = x @ self.read(f"{name}.gate.weight").T + self.read(f"{name}.gate.bias")
        chosen = np.argsort(-scores, axis=1, kind="stable")[:, : c.experts_per_token]
        shares = softmax(np.take_along_axis(scores, chosen, axis=1))
        out = np.zeros_like(x)
        for expert in np.unique(chosen):
            rows, ranks = np.nonzero(chosen == expert)
            inner = x[rows] @ self.mxfp4(f"{name}.mlp1_weight", expert).T
            inner += self.read(f"{name}.mlp1_bias")[expert]
            gate = np.minimum(inner[:, ::2], c.swiglu_limit)
            value = np.clip(inner[:, 1::2], -c.swiglu_limit, c.swiglu_limit)
            inner = gate / (1 + np.exp(-1.702 * gate)) * (value + 1)
            outer = inner @ self.mxfp4(f"{name}.mlp2_weight", expert).T
            outer += self.read(f"{name}.mlp2_bias")[expert]
            out[rows] += shares[rows, ranks][:, None] * outer
        return out

    def read(self, name: str) -> np.ndarray:
        return self.checkpoint.read(name).to(torch.float64).numpy()

    def mxfp4(self, name: str, expert: int) -> np.ndarray:
        """One expert's matrix [outputs, inputs]."""
        blocks = self.checkpoint.read(f"{name}.blocks")[expert].numpy()
        exponents = self.checkpoint.read(f"{name}.scales")[expert].numpy().astype(int) - 127
        codes = np.stack([blocks & 15, blocks >> 4], axis=-1)  # [outputs, groups, 16, 2]
        values = np.where(codes & 8, -1, 1) * E2M1[codes & 7]
        return np.ldexp(values, exponents[:, :, None, None]).reshape(len(blocks), -1)

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        size = np.sqrt((x**2).mean(axis=1, keepdims=True) + self.config.rms_norm_eps)
        return x / size * self.read(name)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def rotation(config: ModelConfig, length: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin [length, 1, D / 2], scaled as YaRN scales them (its section 3.2 and equation 22)."""
    half, base = config.head_dim // 2, config.rope_theta
    speeds = base ** (-np.arange(half) / half)
    factor = config.rope_scaling_factor
    if factor > 1:
        turns = config.initial_context_length * speeds / (2 * np.pi)  # of each pair, within the context

        def place(turns: float) -> float:
            """The index, usually between two pairs, with this number of turns."""
            return half * np.log(config.initial_context_length / (turns * 2 * np.pi)) / np.log(base)

        assert np.allclose(place(turns[half // 2]), half // 2)
        ends = place(config.rope_ntk_beta), place(config.rope_ntk_alpha)
        if config.rope_truncate:
            ends = np.floor(ends[0]), np.ceil(ends[1])
        low, high = max(ends[0], 0), min(ends[1], config.head_dim - 1)
        slowed = np.clip((np.arange(half) - low) / (high - low), 0, 1)
        speeds = speeds * (1 - slowed) + speeds / factor * slowed
    angles = np.arange(length)[:, None, None] * speeds
    sharpness = 0.1 * np.log(factor) + 1
    return np.cos(angles) * sharpness, np.sin(angles) * sharpness


def turned(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
