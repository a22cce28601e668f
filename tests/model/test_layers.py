"""Each layer function compared with its formula, in float64 with loops and numpy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.layers import clamped_swiglu, rms_norm, rotate, rotation, route, yarn_frequencies
from tests import tiny_checkpoint

T, H, D, C, F, E, A = 5, 3, 16, 96, 7, 9, 4
RELEASED = replace(  # gpt-oss-20b's and -120b's rotation
    tiny_checkpoint.CONFIG,
    head_dim=64,
    rope_theta=150000.0,
    rope_scaling_factor=32.0,
    rope_ntk_alpha=1.0,
    rope_ntk_beta=32.0,
    initial_context_length=4096,
)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_rms_norm():
    x, scale = random(T, C), random(C)
    expected = [
        [v / math.sqrt(sum(u * u for u in row) / C + 1e-5) * s for v, s in zip(row, scale, strict=True)]
        for row in x
    ]
    torch.testing.assert_close(rms_norm(x, scale), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_rms_norm_is_float32_inside_and_keeps_its_dtype():
    """In bfloat16, the sum of a thousand squares of 1 would stay at 256."""
    x = torch.full((1, 1000), 3.0, dtype=torch.bfloat16)
    normed = rms_norm(x, torch.ones(1000, dtype=torch.bfloat16))
    assert normed.dtype == torch.bfloat16
    assert normed.unique().tolist() == [1]


def yarn_by_hand(config: ModelConfig) -> list[float]:
    """YaRN, section 3.2, with gpt-oss's ramp over dimensions, computed one pair at a time."""

    def dimension(turns: float) -> float:
        return (
            config.head_dim
            / 2
            * math.log(config.initial_context_length / (turns * 2 * math.pi), config.rope_theta)
        )

    low, high = max(dimension(config.rope_ntk_beta), 0), dimension(config.rope_ntk_alpha)
    frequencies = []
    for pair in range(config.head_dim // 2):
        frequency = config.rope_theta ** (-2 * pair / config.head_dim)
        ramp = min(max((pair - low) / (high - low), 0), 1)
        frequencies.append((1 - ramp) * frequency + ramp * frequency / config.rope_scaling_factor)
    return frequencies


@pytest.mark.parametrize("config", [tiny_checkpoint.CONFIG, RELEASED], ids=["tiny", "released"])
def test_yarn_frequencies(config):
    frequencies, concentration = yarn_frequencies(config)
    np.testing.assert_allclose(frequencies.numpy(), yarn_by_hand(config), rtol=1e-5)
    assert concentration == 0.1 * math.log(config.rope_scaling_factor) + 1


def test_the_released_models_stretch_pairs_8_to_18_in_part():
    """Their ramp is from 8.09 to 17.4: faster pairs stay unchanged, slower ones are stretched by 32."""
    plain, _ = yarn_frequencies(replace(RELEASED, rope_scaling_factor=1.0))
    stretched = plain / yarn_frequencies(RELEASED)[0]
    assert stretched[:9].tolist() == pytest.approx([1] * 9)
    assert stretched[18:].tolist() == pytest.approx([32] * 14)
    assert ((stretched[9:18] > 1) & (stretched[9:18] < 32)).all()
    truncated = plain / yarn_frequencies(replace(RELEASED, rope_truncate=True))[0]
    assert (truncated[9:18] != stretched[9:18]).all()


def test_without_scaling_rotation_is_plain_rope():
    frequencies, concentration = yarn_frequencies(replace(RELEASED, rope_scaling_factor=1.0))
    np.testing.assert_allclose(frequencies, [150000 ** (-2 * i / 64) for i in range(32)], rtol=1e-6)
    assert concentration == 1


def test_rotate_turns_pairs_half_a_head_apart():
    x, positions, frequencies = random(T, H, D), torch.arange(T) * 3, random(D // 2).abs().float()
    cos, sin = rotation(positions, frequencies, 1.25)
    turned = rotate(x.float(), cos, sin)
    for t in range(T):
        for i in range(D // 2):
            pair = x[t, :, i] + 1j * x[t, :, i + D // 2]
            expected = pair * np.exp(1j * positions[t].item() * frequencies[i].item()) * 1.25
            np.testing.assert_allclose(turned[t, :, i], expected.real, atol=1e-5)
            np.testing.assert_allclose(turned[t, :, i + D // 2], expected.imag, atol=1e-5)


def test_only_the_distance_of_two_positions_counts():
    q, k = random(1, H, D).float(), random(1, H, D).float().flip(-1)
    frequencies, _ = yarn_frequencies(tiny_checkpoint.CONFIG)

    def score(query: int, key: int) -> torch.Tensor:
        turned = [
            rotate(x, *rotation(torch.tensor([p]), frequencies, 1.0)) for x, p in ((q, query), (k, key))
        ]
        return (turned[0] * turned[1]).sum(-1)

    torch.testing.assert_close(score(9, 4), score(55, 50), rtol=0, atol=1e-4)
    assert not torch.allclose(score(9, 4), score(9, 5), atol=1e-2)


def test_clamped_swiglu():
    x = random(T, 2 * F) * 10
    for row, result in zip(x, clamped_swiglu(x, limit=7.0), strict=True):
        for i in range(F):
            gate, value = min(row[2 * i].item(), 7.0), max(-7.0, min(row[2 * i + 1].item(), 7.0))
            expected = gate / (1 + math.exp(-1.702 * gate)) * (value + 1)
            assert result[i].item() == pytest.approx(expected)


def test_route_takes_the_best_and_shares_by_their_logits_alone():
    logits = random(T, E)
    chosen, weights = route(logits, A)
    for row, experts, shares in zip(logits.tolist(), chosen.tolist(), weights.tolist(), strict=True):
        best = sorted(range(E), key=lambda expert: -row[expert])[:A]
        assert experts == best
        total = sum(math.exp(row[expert]) for expert in best)
        assert shares == pytest.approx([math.exp(row[expert]) / total for expert in best])


def test_equal_logits_choose_the_lower_experts():
    chosen, weights = route(torch.zeros(1, 128), A)
    assert chosen.tolist() == [[0, 1, 2, 3]]
    assert weights.tolist() == [[0.25] * 4]


def test_everything_can_be_differentiated():
    """The demo model is trained with these functions; gradients are compared with finite differences."""
    double = {"dtype": torch.float64, "requires_grad": True}
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(2), **double)
    assert torch.autograd.gradcheck(lambda x: clamped_swiglu(x, 1.0), x)
    assert torch.autograd.gradcheck(lambda x: route(x, 3)[1], x)
    loss = (
        rms_norm(x.float(), torch.ones(8)).pow(3).sum()
        + rotate(x.float()[:, None], *rotation(torch.arange(3), torch.ones(4), 1.0)).pow(3).sum()
    )
    loss.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() > 0
