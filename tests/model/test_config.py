"""config.json of both kinds, and the errors for configurations that cannot be served."""

import json
from dataclasses import replace

import pytest

from model.config import CheckpointError, ModelConfig
from tests.tiny_checkpoint import CONFIG, hugging_face_config, original_config

ORIGINAL_20B = """{
    "num_hidden_layers": 24, "num_experts": 32, "experts_per_token": 4, "vocab_size": 201088,
    "hidden_size": 2880, "intermediate_size": 2880, "swiglu_limit": 7.0, "head_dim": 64,
    "num_attention_heads": 64, "num_key_value_heads": 8, "sliding_window": 128,
    "initial_context_length": 4096, "rope_theta": 150000, "rope_scaling_factor": 32.0,
    "rope_ntk_alpha": 1, "rope_ntk_beta": 32
}"""

MODEL_20B = ModelConfig(
    vocab_size=201088,
    hidden_size=2880,
    num_layers=24,
    num_heads=64,
    num_kv_heads=8,
    head_dim=64,
    num_experts=32,
    experts_per_token=4,
    intermediate_size=2880,
    sliding_window=128,
    swiglu_limit=7.0,
    rope_theta=150000.0,
    rope_scaling_factor=32.0,
    rope_ntk_alpha=1.0,
    rope_ntk_beta=32.0,
    initial_context_length=4096,
)


def read(folder, found) -> ModelConfig:
    (folder / "config.json").write_text(found if isinstance(found, str) else json.dumps(found))
    return ModelConfig.read(folder)


def test_the_original_20b(tmp_path):
    config = read(tmp_path, ORIGINAL_20B)
    assert config == MODEL_20B
    assert config.max_context == 131072
    assert [config.window(layer) for layer in range(4)] == [128, None, 128, None]


@pytest.mark.parametrize(
    "config", [CONFIG, MODEL_20B, replace(CONFIG, rope_truncate=True, rms_norm_eps=1e-6)]
)
def test_transformers_4(config, tmp_path):
    assert read(tmp_path, hugging_face_config(config)) == config


def test_transformers_5_moved_the_rotation_and_dropped_what_is_null(tmp_path):
    found = hugging_face_config(CONFIG)
    found["rope_parameters"] = {**found.pop("rope_scaling"), "rope_theta": found.pop("rope_theta")}
    found["layer_types"] = None
    del found["attention_bias"]
    assert read(tmp_path, found) == CONFIG


@pytest.mark.parametrize("rope", [None, {"rope_type": "default"}])
def test_without_scaling_the_context_is_all_positions(rope, tmp_path):
    config = read(
        tmp_path, hugging_face_config(CONFIG) | {"rope_scaling": rope, "max_position_embeddings": 2048}
    )
    assert config.rope_scaling_factor == 1
    assert config.max_context == 2048


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "llama"}, "model of type 'llama'; this server serves 'gpt_oss'"),
        ({"hidden_size": None}, "does not say hidden_size"),
        ({"hidden_size": "96"}, "hidden_size should be a positive whole number, not '96'"),
        ({"num_local_experts": True}, "num_local_experts should be a positive whole number, not True"),
        ({"vocab_size": -1}, "vocab_size should be a positive whole number, not -1"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps should be a positive number, not nan"),
        ({"num_key_value_heads": 4}, "multiple"),
        ({"head_dim": 15}, "even"),
        ({"intermediate_size": 100}, "multiples of 32"),
        ({"num_experts_per_tok": 6}, "more experts than there are"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True; this gpt-oss computes only False"),
        ({"swiglu_alpha": 1.0}, "swiglu_alpha is 1.0; this gpt-oss computes only 1.702"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types is"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quant_method is 'bitsandbytes'"),
        ({"rope_scaling": "yarn"}, "should be an object, not 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_type is 'llama3'"),
        ({"rope_scaling": {"type": "linear", "factor": 8.0}}, "rope_type is 'linear'"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "does not say factor"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_computed_is_refused_by_name(change, said, tmp_path):
    with pytest.raises(CheckpointError) as refusal:
        read(tmp_path, hugging_face_config(CONFIG) | change)
    message = str(refusal.value)
    assert said in message
    assert "config.json" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", original_config(CONFIG))
def test_every_size_of_the_original_kind_is_asked_for(name, tmp_path):
    found = original_config(CONFIG)
    del found[name]
    if name == "swiglu_limit":
        assert read(tmp_path, found) == CONFIG
        return
    with pytest.raises(CheckpointError, match=f"does not say {name}"):
        read(tmp_path, found)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x80", '"gpt"'])
def test_what_is_no_json_object_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(
        CheckpointError, match=r"config\.json (is not readable JSON|should hold one JSON object)"
    ):
        ModelConfig.read(tmp_path)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no config\.json in"):
        ModelConfig.read(tmp_path)


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"num_hidden_layers": 10**8}, "num_hidden_layers is 100000000; it should be at most 1024"),
        ({"sliding_window": 2**32 + 1}, "sliding_window is 4294967297; it should be at most"),
        ({"head_dim": 10**1000}, "head_dim is a number of more than"),
        ({"vocab_size": 2**31}, "vocab_size is 2147483648; it should be at most"),
        ({"initial_context_length": 2**30, "rope_scaling_factor": 32.0}, "at most 1073741824 positions"),
        ({"rope_theta": 10**400}, "rope_theta should be a positive number"),
    ],
)
def test_sizes_beyond_all_measure_are_refused_at_once(changed, hint, tmp_path):
    """With a hundred million layers the start hung, and a window of 2^32 + 1 silently became 1."""
    with pytest.raises(CheckpointError, match=hint):
        read(tmp_path, {**original_config(CONFIG), **changed})


def test_a_config_nested_without_end_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is not readable JSON"):
        read(tmp_path, '{"a":' * 100_000)
