"""The parts of a layer as the trainer computes them: each in one pass over memory, with a hand-written
gradient.

They compute the same as model/layers.py, and tests compare both.  Elementwise parts compute in float32, and
their results have the dtype of the first argument.  All experts are computed for every token, and those that
a token does not use get the weight 0: with these sizes, two large products take less time than gathering rows
for sixteen small ones.  Their shapes also repeat, which matters because oneDNN compiles a kernel for every
shape.

`compile_bodies` uses torch.compile to make one loop of each elementwise body; without it, they run as
written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

ALPHA = 1.702


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """model.layers.rms_norm:  x [T, C], scale [C] float32."""
    return cast(Tensor, _Norm.apply(x, scale, eps))  # type: ignore[no-untyped-call]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """model.layers.rotate:  x [T, heads, D], cos and sin [T, D / 2]."""
    return cast(Tensor, _Rotate.apply(x, cos, sin))  # type: ignore[no-untyped-call]


def weighted_swiglu(h: Tensor, weights: Tensor, limit: float) -> Tensor:
    """model.layers.clamped_swiglu of every expert, times the token's weight for it.

    h        [T, 2 * E * F]   all gates, expert by expert, then all values
    weights  [T, E] float32
    returns  [T, E * F]
    """
    return cast(Tensor, _Swiglu.apply(h, weights, limit))  # type: ignore[no-untyped-call]


def attend(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, mask: Tensor) -> Tensor:
    """Attention with sinks: the sink is key 0, whose score is the head's own logit and whose value is 0.

    q        [KV * B, G * Q, D]   G query heads share a key head
    k, v     [KV * B, K, D]       row 0 all zeros
    sinks    [KV, G]
    mask     [Q, K]               added to the scores
    returns  [KV * B, G * Q, D]
    """
    return cast(Tensor, _Attend.apply(q, k, v, sinks, mask))  # type: ignore[no-untyped-call]


def _norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * scale).to(x.dtype)


def _norm_back(x: Tensor, scale: Tensor, gradient: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    wide, gradient = x.float(), gradient.float()
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    normed, scaled = wide * inverse, gradient * scale
    back = inverse * (scaled - normed * (scaled * normed).mean(-1, keepdim=True))
    return back.to(x.dtype), (gradient * normed).sum(0)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sign * sin[:, None]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def _swiglu(h: Tensor, weights: Tensor, limit: float) -> Tensor:
    E = weights.shape[1]
    both = h.view(len(h), 2, E, -1)
    gate, value = both[:, 0].float().clamp(max=limit), both[:, 1].float().clamp(-limit, limit)
    return (
        (gate * torch.sigmoid(ALPHA * gate) * (value + 1) * weights[:, :, None]).to(h.dtype).view(len(h), -1)
    )


def _swiglu_back(h: Tensor, weights: Tensor, gradient: Tensor, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the gates, of the values, and of the weights."""
    E = weights.shape[1]
    both, gradient = h.view(len(h), 2, E, -1), gradient.view(len(h), E, -1).float()
    wide_gate, wide_value = both[:, 0].float(), both[:, 1].float()
    gate, value = wide_gate.clamp(max=limit), wide_value.clamp(-limit, limit) + 1
    opened = torch.sigmoid(ALPHA * gate)
    gated = gate * opened
    by_weights = (gradient * gated * value).sum(-1)
    inner = gradient * weights[:, :, None]
    by_gate = inner * value * (opened + ALPHA * gated * (1 - opened)) * (wide_gate <= limit)
    by_value = inner * gated * ((wide_value <= limit) & (wide_value >= -limit))
    return by_gate.to(h.dtype).view(len(h), -1), by_value.to(h.dtype).view(len(h), -1), by_weights


_BODIES: dict[str, Callable[..., Any]] = {
    "norm": _norm,
    "norm_back": _norm_back,
    "turn": _turn,
    "swiglu": _swiglu,
    "swiglu_back": _swiglu_back,
}


def compile_bodies() -> None:
    """Use compiled bodies from now on, in this process.  The first batches wait about a minute for the
    compiler.
    """
    for name, body in _BODIES.items():
        _BODIES[name] = _compiled(body)


def _compiled(body: Callable[..., Any]) -> Callable[..., Any]:
    """One kernel for any number of rows, from the first call on, so that a resumed run rounds as before."""
    fast = torch.compile(body)

    def call(*arguments: Any) -> Any:
        for argument in arguments:
            if isinstance(argument, Tensor) and argument.dim() > 1:
                torch._dynamo.mark_dynamic(argument, 0)
        return fast(*arguments)

    return call


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.eps = eps
        return cast(Tensor, _BODIES["norm"](x, scale, eps))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scale = ctx.saved_tensors
        by_x, by_scale = _BODIES["norm_back"](x, scale, gradient, ctx.eps)
        return by_x, by_scale, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return cast(Tensor, _BODIES["turn"](x, cos, sin, 1.0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _BODIES["turn"](gradient, cos, sin, -1.0), None, None


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weights: Tensor, limit: float) -> Tensor:
        ctx.save_for_backward(h, weights)
        ctx.limit = limit
        return cast(Tensor, _BODIES["swiglu"](h, weights, limit))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        h, weights = ctx.saved_tensors
        by_gate, by_value, by_weights = _BODIES["swiglu_back"](h, weights, gradient, ctx.limit)
        return torch.cat((by_gate, by_value), dim=-1), by_weights, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, mask: Tensor) -> Tensor:
        (KV, G), (Q, K) = sinks.shape, mask.shape
        scores = torch.bmm(q, k.transpose(1, 2))
        apart = scores.view(KV, -1, G, Q, K)
        apart += mask
        apart[..., 0] = sinks[:, None, :, None]
        weights = scores.softmax(-1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.shape = (KV, -1, G, Q, K)
        return torch.bmm(weights, v)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        q, k, v, weights = ctx.saved_tensors
        by_v = torch.bmm(weights.transpose(1, 2), gradient)
        by_weights = torch.bmm(gradient, v.transpose(1, 2))
        by_scores = torch._softmax_backward_data(by_weights, weights, -1, weights.dtype)
        by_sinks = by_scores.view(ctx.shape)[..., 0].sum((1, 3), dtype=torch.float32)
        by_q, by_k = torch.bmm(by_scores, k), torch.bmm(by_scores.transpose(1, 2), q)
        return by_q, by_k, by_v, by_sinks, None
