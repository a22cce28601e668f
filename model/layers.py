"""The arithmetic of gpt-oss, one small pure function per idea: normalisation, rotation, activation, routing.

The functions are pure and work on any device.  All can be differentiated, so the demo model is trained with
the same functions that serve it.  Letters for sizes: T tokens, H query heads, D their width, C hidden width,
F width inside an expert, E experts, A experts that a token uses.

Sources: gpt-oss model card (arXiv:2508.10925), section 2; RoFormer (arXiv:2104.09864); YaRN
(arXiv:2309.00071).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.config import SWIGLU_ALPHA, ModelConfig


def rms_norm(x: Tensor, scale: Tensor, eps: float = 1e-5) -> Tensor:
    """Each row divided by its root mean square, times a learned scale; in float32 inside.

    x        [..., C]
    scale    [C]
    returns  [..., C] in x's dtype

    Zhang & Sennrich, arXiv:1910.07467.
    """
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (normed * scale.float()).to(x.dtype)


def yarn_frequencies(config: ModelConfig, device: torch.device | str = "cpu") -> tuple[Tensor, float]:
    """How fast each pair of dimensions turns, stretched for long contexts by YaRN.

    Pairs that turn more than `beta` times within the initial context keep their speed, so near positions stay
    apart; pairs that turn less than `alpha` times are slowed by the whole factor, so no angle is new to the
    model; between the two runs a linear ramp ("NTK-by-parts", section 3.2):

        speed kept  1 |────╮
                      |     ╲               low:  the pair with beta turns
                    0 |      ╰─────────     high: the pair with alpha turns
                      0   low high   D/2

    returns  frequencies  [D / 2] float32, radians per position
             concentration, the factor of cos and sin that sharpens attention in long contexts (equation 22);
             1 without scaling
    """
    half, theta, factor = config.head_dim // 2, config.rope_theta, config.rope_scaling_factor
    pairs = torch.arange(half, dtype=torch.float32, device=device)
    frequencies = theta ** -(pairs / half)
    if factor == 1:
        return frequencies, 1.0

    def pair_with(turns: float) -> float:
        """The index, usually not a whole number, of the pair with this many turns in the initial context."""
        return half * math.log(config.initial_context_length / (turns * 2 * math.pi)) / math.log(theta)

    low, high = pair_with(config.rope_ntk_beta), pair_with(config.rope_ntk_alpha)
    if config.rope_truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_dim - 1)  # D - 1 and not D / 2 - 1: transformers' bound
    kept = 1 - ((pairs - low) / max(high - low, 1e-3)).clamp(0, 1)
    return frequencies * kept + frequencies / factor * (1 - kept), 0.1 * math.log(factor) + 1


def rotation(positions: Tensor, frequencies: Tensor, concentration: float) -> tuple[Tensor, Tensor]:
    """Cos and sin of the angle of every pair of dimensions at every position; the same for all layers.

    positions    [...]
    frequencies  [D / 2]
    returns      cos, sin  [..., D / 2] float32, times the concentration
    """
    angles = positions[..., None].float() * frequencies
    return angles.cos() * concentration, angles.sin() * concentration


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair of dimensions (i, i + D / 2) by its angle (RoFormer, section 3.2.2); in float32 inside.

    x         [..., heads, D]
    cos, sin  [..., D / 2]     the same for every head
    returns   [..., heads, D] in x's dtype
    """
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = cos[..., None, :], sin[..., None, :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def clamped_swiglu(x: Tensor, limit: float, alpha: float = SWIGLU_ALPHA) -> Tensor:
    """gpt-oss's variant of SwiGLU: gate and value interleaved, both clamped, and 1 added to the value.

    x        [..., 2F]  even columns gate, odd columns value
    returns  [..., F]

    gpt-oss model card, section 2.1; SwiGLU: arXiv:2002.05202.
    """
    gate, value = x[..., ::2], x[..., 1::2]
    gate = gate.clamp(max=limit)
    value = value.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (value + 1)


def route(logits: Tensor, experts_per_token: int) -> tuple[Tensor, Tensor]:
    """The experts that a token uses, and their weights: the top A, and a softmax over their logits alone.

    logits   [..., E]
    returns  chosen   [..., A] int64, best first; if logits are equal, the lower expert number comes first
             weights  [..., A] in the logits' dtype, adding up to 1
    """
    ordered, experts = logits.sort(dim=-1, descending=True, stable=True)
    return experts[..., :experts_per_token], ordered[..., :experts_per_token].softmax(-1)
