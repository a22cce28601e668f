"""ModelConfig: the sizes and constants of a checkpoint, read from its config.json.

There are two kinds of config.json: that of the `original/` layout and that of transformers.  Both are read
here.  Every size is checked, and a setting that this network cannot compute is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

SWIGLU_ALPHA = 1.702
"""The slope of the experts' activation, see `model.layers.clamped_swiglu`."""


class CheckpointError(Exception):
    """A checkpoint that cannot be served: one line that says what is wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and constants of one gpt-oss.

    sliding_window          keys a query of a banded layer may see, itself included
    swiglu_limit            where the experts' activations are clamped
    rope_theta              base of the rotation's frequencies
    rope_scaling_factor     factor by which YaRN extends the initial context (its s); 1: no YaRN
    rope_ntk_alpha          pairs of dimensions that turn less often in the initial context are slowed fully
    rope_ntk_beta           pairs that turn more often than this are not slowed
    rope_truncate           whether the ramp between the two starts and ends at whole dimensions
    initial_context_length  positions seen before YaRN extended them
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_experts: int
    experts_per_token: int
    intermediate_size: int
    sliding_window: int
    swiglu_limit: float
    rope_theta: float
    rope_scaling_factor: float
    rope_ntk_alpha: float
    rope_ntk_beta: float
    initial_context_length: int
    rms_norm_eps: float = 1e-5
    rope_truncate: bool = False

    @property
    def max_context(self) -> int:
        """The most positions a sequence can have, answer included."""
        return int(self.initial_context_length * self.rope_scaling_factor)

    def window(self, layer: int) -> int | None:
        """Keys a query of this layer may see, itself included; None for all.  Even layers are banded."""
        return self.sliding_window if layer % 2 == 0 else None

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """The config.json in `folder`, of either kind.  Raises CheckpointError."""
        path = folder / "config.json"
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(LARGEST_FILE))
        except FileNotFoundError:
            raise CheckpointError(f"there is no config.json in {folder}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is not readable JSON: {error}") from None
        if not isinstance(found, dict):
            raise CheckpointError(f"{path} should hold one JSON object")
        facts = _Facts(path, found)
        transformers = "model_type" in found or "architectures" in found
        config = cls(**(_transformers(facts) if transformers else _original(facts)))
        _check(path, config)
        return config


LARGEST_FILE = 2**20
"""Maximum bytes of a config.json."""

LARGEST_SIZE = 2**20
"""Maximum of any size in a config.json.  Larger sizes would overflow or take for ever much later."""

LARGEST = {
    "num_hidden_layers": 1024,
    "num_experts": 4096,
    "num_local_experts": 4096,
    "vocab_size": 2**24,
    "sliding_window": 2**30,
    "initial_context_length": 2**30,
    "original_max_position_embeddings": 2**30,
    "max_position_embeddings": 2**30,
}


class _Facts(NamedTuple):
    """A JSON object and the file to name when something in it is wrong."""

    path: Path
    found: Mapping[str, Any]

    def size(self, *names: str) -> int:
        """The positive whole number under the first of `names` that is there."""
        value, largest = self._first(names), LARGEST.get(names[0], LARGEST_SIZE)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CheckpointError(f"{self.path}: {names[0]} should be a positive whole number, not {value!r}")
        if value > largest:
            raise CheckpointError(
                f"{self.path}: {names[0]} is {_short(value)}; it should be at most {largest}"
            )
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """The positive number under the first of `names` that is there."""
        value = self._first(names, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise CheckpointError(f"{self.path}: {names[0]} should be a positive number, not {value!r}")
        return float(value)

    def must_be(self, name: str, *allowed: object) -> None:
        """Raise CheckpointError unless the value is absent, null or one of `allowed`."""
        value = self.found.get(name)
        if value is not None and value not in allowed:
            wanted = " or ".join(repr(choice) for choice in allowed)
            raise CheckpointError(f"{self.path}: {name} is {value!r}; this gpt-oss computes only {wanted}")

    def _first(self, names: tuple[str, ...], default: float | None = None) -> Any:
        for name in names:
            if self.found.get(name) is not None:
                return self.found[name]
        if default is None:
            wanted = " or ".join(names)
            raise CheckpointError(f"{self.path} does not say {wanted}; is this a gpt-oss checkpoint?")
        return default


def _short(number: int) -> str:
    """The number itself, or if it is very long, its number of digits."""
    return str(number) if number < 10**20 else f"a number of more than {number.bit_length() * 3 // 10} digits"


def _original(facts: _Facts) -> dict[str, Any]:
    """Fields of ModelConfig from the config.json of the original/ layout."""
    return {
        "vocab_size": facts.size("vocab_size"),
        "hidden_size": facts.size("hidden_size"),
        "num_layers": facts.size("num_hidden_layers"),
        "num_heads": facts.size("num_attention_heads"),
        "num_kv_heads": facts.size("num_key_value_heads"),
        "head_dim": facts.size("head_dim"),
        "num_experts": facts.size("num_experts"),
        "experts_per_token": facts.size("experts_per_token"),
        "intermediate_size": facts.size("intermediate_size"),
        "sliding_window": facts.size("sliding_window"),
        "swiglu_limit": facts.number("swiglu_limit", default=7.0),
        "rope_theta": facts.number("rope_theta"),
        "rope_scaling_factor": facts.number("rope_scaling_factor"),
        "rope_ntk_alpha": facts.number("rope_ntk_alpha"),
        "rope_ntk_beta": facts.number("rope_ntk_beta"),
        "initial_context_length": facts.size("initial_context_length"),
        "rms_norm_eps": facts.number("rms_norm_eps", default=1e-5),
    }


def _transformers(facts: _Facts) -> dict[str, Any]:
    """Fields of ModelConfig from the config.json of the Hugging Face layout."""
    if (kind := facts.found.get("model_type")) != "gpt_oss":
        raise CheckpointError(f"{facts.path} is of a model of type {kind!r}; this server serves 'gpt_oss'")
    facts.must_be("attention_bias", True)
    facts.must_be("tie_word_embeddings", False)
    facts.must_be("hidden_act", "silu")
    facts.must_be("swiglu_alpha", SWIGLU_ALPHA)
    layers = facts.size("num_hidden_layers")
    facts.must_be(
        "layer_types", [("sliding_attention", "full_attention")[layer % 2] for layer in range(layers)]
    )
    if isinstance(quantization := facts.found.get("quantization_config"), dict):
        _Facts(facts.path, quantization).must_be("quant_method", "mxfp4")
    return {
        "vocab_size": facts.size("vocab_size"),
        "hidden_size": facts.size("hidden_size"),
        "num_layers": layers,
        "num_heads": facts.size("num_attention_heads"),
        "num_kv_heads": facts.size("num_key_value_heads"),
        "head_dim": facts.size("head_dim"),
        "num_experts": facts.size("num_local_experts", "num_experts"),
        "experts_per_token": facts.size("num_experts_per_tok", "experts_per_token"),
        "intermediate_size": facts.size("intermediate_size"),
        "sliding_window": facts.size("sliding_window"),
        "swiglu_limit": facts.number("swiglu_limit", default=7.0),
        "rms_norm_eps": facts.number("rms_norm_eps", default=1e-5),
        **_transformers_rope(facts),
    }


def _transformers_rope(facts: _Facts) -> dict[str, Any]:
    """The rotation's fields, as transformers 4 (rope_scaling) or 5 (rope_parameters) wrote them.

    Without scaling, the context is what max_position_embeddings says.
    """
    found = facts.found.get("rope_parameters") or facts.found.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{facts.path}: rope_parameters should be an object, not {found!r}")
    rope = _Facts(facts.path, {"rope_theta": facts.found.get("rope_theta"), **found})
    kind = found.get("rope_type", found.get("type", "default"))  # "type" is what it was called before 2025
    if kind not in ("yarn", "default"):
        raise CheckpointError(
            f"{facts.path}: rope_type is {kind!r}; this gpt-oss computes only 'yarn' or 'default'"
        )
    for absent in ("attention_factor", "mscale", "mscale_all_dim"):
        rope.must_be(absent)
    truncate = found.get("truncate", False)
    if not isinstance(truncate, bool):
        raise CheckpointError(f"{facts.path}: truncate should be true or false, not {truncate!r}")
    scaled = kind == "yarn"
    return {
        "rope_theta": rope.number("rope_theta"),
        "rope_scaling_factor": rope.number("factor") if scaled else 1.0,
        "rope_ntk_alpha": rope.number("beta_slow", default=1.0),
        "rope_ntk_beta": rope.number("beta_fast", default=32.0),
        "initial_context_length": rope.size("original_max_position_embeddings")
        if scaled
        else facts.size("max_position_embeddings"),
        "rope_truncate": truncate,
    }


def _check(path: Path, config: ModelConfig) -> None:
    """Raises if sizes contradict each other."""
    c = config
    for wrong, reason in (
        (
            c.num_heads % c.num_kv_heads,
            "the number of heads should be a multiple of that of key and value heads",
        ),
        (c.head_dim % 2, "head_dim should be even: rotation pairs its dimensions"),
        (
            c.hidden_size % 32 or c.intermediate_size % 32,
            "hidden and intermediate size should be multiples of 32",
        ),
        (c.experts_per_token > c.num_experts, "a token cannot use more experts than there are"),
        (c.rope_scaling_factor < 1, "the rope scaling factor should be at least 1"),
        (
            c.initial_context_length * c.rope_scaling_factor > LARGEST["max_position_embeddings"],
            f"the context should have at most {LARGEST['max_position_embeddings']} positions",
        ),
        (c.rope_ntk_alpha >= c.rope_ntk_beta, "YaRN's alpha (beta_slow) should be below beta (beta_fast)"),
    ):
        if wrong:
            raise CheckpointError(f"{path}: {reason}")
