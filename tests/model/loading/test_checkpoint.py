"""Every layout gives the same tensors, and every invalid folder is refused with a reason on one line."""

import json
import logging
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.config import CheckpointError
from model.loading.checkpoint import Checkpoint
from model.loading.mxfp4 import decode
from model.loading.tensors import shapes
from tests import tiny_checkpoint
from tests.tiny_checkpoint import CONFIG, LAYOUTS, write


def refusal(folder: Path) -> str:
    """The error for a folder that cannot be opened."""
    with pytest.raises(CheckpointError) as refused:
        Checkpoint.open(folder)
    message = str(refused.value)
    assert "\n" not in message
    return message


def change(file: Path, **changes) -> None:
    """Replace the stored tensor `name`; None: remove it."""
    tensors = load_file(file) | changes
    save_file({name: tensor.clone() for name, tensor in tensors.items() if tensor is not None}, file)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_tensors_that_were_written(layout, tmp_path):
    write(tmp_path, layout, seed=3)
    checkpoint = Checkpoint.open(tmp_path)
    written = tiny_checkpoint.weights(CONFIG, seed=3)
    assert checkpoint.config == CONFIG
    assert set(checkpoint.names) == set(written) == set(shapes(CONFIG))
    for name, tensor in written.items():
        read = checkpoint.read(name)
        assert read.dtype == tensor.dtype
        if layout != "hf_bf16" or not name.endswith((".blocks", ".scales")):
            assert torch.equal(read, tensor), name


def test_a_published_folder_is_served_from_its_top_and_otherwise_from_original(tmp_path):
    write(tmp_path / "original", "original", seed=1)
    (tmp_path / "tokenizer.json").touch()
    assert Checkpoint.open(tmp_path).folder == tmp_path / "original"
    assert Checkpoint.open(tmp_path).tokenizer_path == tmp_path / "tokenizer.json"
    write(tmp_path, "hf", seed=2)
    assert Checkpoint.open(tmp_path).folder == tmp_path
    assert Checkpoint.open(tmp_path).tokenizer_path == tmp_path / "tokenizer.json"


def test_a_tokenizer_beside_the_weights_is_preferred_and_none_is_refused(tmp_path):
    write(tmp_path / "original")
    checkpoint = Checkpoint.open(tmp_path / "original")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json in .*original or one folder up"):
        _ = checkpoint.tokenizer_path
    (tmp_path / "tokenizer.json").touch()
    assert checkpoint.tokenizer_path == tmp_path / "tokenizer.json"
    (tmp_path / "original" / "tokenizer.json").touch()
    assert checkpoint.tokenizer_path == tmp_path / "original" / "tokenizer.json"


def test_shards_need_no_index(tmp_path):
    write(tmp_path, "hf")
    (tmp_path / "model.safetensors.index.json").unlink()
    assert set(Checkpoint.open(tmp_path).names) == set(shapes(CONFIG))


def test_an_index_says_which_files_count(tmp_path):
    """Another file beside the shards, such as a consolidated copy, is not read."""
    write(tmp_path, "hf")
    (tmp_path / "consolidated.safetensors").write_bytes(b"anything")
    assert set(Checkpoint.open(tmp_path).names) == set(shapes(CONFIG))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_floats_are_rounded_to_bfloat16(dtype, tmp_path, caplog):
    write(tmp_path)
    stored = torch.linspace(-3, 3, CONFIG.hidden_size, dtype=dtype)
    change(tmp_path / "model.safetensors", **{"norm.scale": stored})
    with caplog.at_level(logging.INFO):
        read = Checkpoint.open(tmp_path).read("norm.scale")
    assert torch.equal(read, stored.bfloat16())
    assert ("1 tensors" in caplog.text) == (dtype == torch.float32)


def test_dense_tensors_are_mapped_not_copied(tmp_path):
    write(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    first, second = (checkpoint.read("embedding.weight") for _ in range(2))
    assert first.data_ptr() == second.data_ptr()


def resident_kilobytes(file: Path) -> int:
    """How much of a mapped file is in this process's memory, in KiB."""
    maps = Path("/proc/self/smaps").read_text().split("VmFlags")
    return sum(int(line.split()[1]) for each in maps if str(file) in each for line in each.splitlines()
               if line.startswith("Rss:"))  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="this system does not say what is resident")
def test_what_was_read_leaves_memory_and_comes_back_unchanged(tmp_path):
    """While a loader packs matrices, the file must not stay in memory as well."""
    config = replace(CONFIG, vocab_size=40_000)
    write(tmp_path, config=config)
    checkpoint = Checkpoint.open(tmp_path)
    file = tmp_path / "model.safetensors"
    embedding = checkpoint.read("embedding.weight")
    before = embedding.clone()
    touched = resident_kilobytes(file)
    assert touched >= embedding.nbytes / 1024
    checkpoint.read("norm.scale")
    assert resident_kilobytes(file) < touched / 2
    assert torch.equal(embedding, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_progress_counts_every_byte_once(layout, tmp_path):
    write(tmp_path, layout)
    told = []
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.on_read = told.append
    sizes = [checkpoint.read(name).nbytes for name in reversed(checkpoint.names)]
    checkpoint.read("norm.scale")  # again, as for rescoring: it is no further progress
    assert told == sizes
    assert sum(told) == checkpoint.nbytes


# bf16 experts


def test_experts_on_the_grid_are_encoded_exactly_and_that_is_told_once(tmp_path, caplog):
    write(tmp_path, "hf_bf16")
    checkpoint = Checkpoint.open(tmp_path)
    written = tiny_checkpoint.weights(CONFIG)
    for layer in range(CONFIG.num_layers):
        for name in (f"block.{layer}.mlp.mlp1_weight", f"block.{layer}.mlp.mlp2_weight"):
            read = [checkpoint.read(f"{name}.{part}") for part in ("blocks", "scales")]
            assert [tensor.shape for tensor in read] == [
                written[f"{name}.{part}"].shape for part in ("blocks", "scales")
            ]
            assert torch.equal(decode(*read), decode(written[f"{name}.blocks"], written[f"{name}.scales"]))
    (told,) = caplog.records
    assert told.getMessage() == f"experts in {tmp_path} encoded as MXFP4: relative RMS error 0"


def test_the_error_of_encoding_is_told(tmp_path, caplog):
    """The error of normally distributed weights in MXFP4 is about 11% (root mean square)."""
    write(tmp_path, "hf_bf16")
    for file in tmp_path.glob("*.safetensors"):
        experts = [name for name in load_file(file) if name.endswith(("gate_up_proj", "down_proj"))]
        change(file, **{name: torch.randn(load_file(file)[name].shape).bfloat16() for name in experts})
    checkpoint = Checkpoint.open(tmp_path)
    for name in checkpoint.names:
        checkpoint.read(name)
    (told,) = caplog.records
    assert 0.08 < float(told.getMessage().rsplit(" ", 1)[1]) < 0.13


def test_experts_that_are_not_finite_are_refused(tmp_path):
    write(tmp_path, "hf_bf16")
    name = "model.layers.1.mlp.experts.down_proj"
    (file,) = (file for file in tmp_path.glob("*.safetensors") if name in load_file(file))
    broken = load_file(file)[name].clone()
    broken[2, 3, 5] = torch.nan
    change(file, **{name: broken})
    with pytest.raises(CheckpointError, match=f"{name} in .* cannot be encoded: NaN and infinity"):
        Checkpoint.open(tmp_path).read("block.1.mlp.mlp2_weight.scales")


# Folders that are wrong


def test_a_folder_that_is_not_there(tmp_path):
    assert "nowhere does not exist; the model should be a folder" in refusal(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder(tmp_path):
    write(tmp_path)
    assert "model.safetensors is a file; the model should be a folder" in refusal(
        tmp_path / "model.safetensors"
    )


def test_an_empty_folder(tmp_path):
    assert "is empty; it should hold a gpt-oss" in refusal(tmp_path)


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    assert "holds no *.safetensors files; it should hold a gpt-oss" in refusal(tmp_path)


def test_pickles_are_never_opened(tmp_path):
    """With a pickle that would create a file if it were loaded."""

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    assert "pickled weights, which can run code and are never loaded (pytorch_model.bin)" in refusal(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "config.json").write_text(json.dumps(tiny_checkpoint.original_config(CONFIG)))
    assert "is not a safetensors file, or is damaged" in refusal(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_gguf_is_named(tmp_path):
    (tmp_path / "gpt-oss-20b.gguf").touch()
    assert "GGUF weights, a format this server does not read (gpt-oss-20b.gguf)" in refusal(tmp_path)


def test_weights_without_config(tmp_path):
    write(tmp_path)
    (tmp_path / "config.json").unlink()
    assert "there is no config.json" in refusal(tmp_path)


def test_a_pointer_of_git_lfs(tmp_path):
    write(tmp_path)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 4792272488\n"
    (tmp_path / "model.safetensors").write_bytes(pointer)
    assert (
        "model.safetensors is a Git LFS pointer, not the weights; fetch them with 'git lfs pull'"
        in refusal(tmp_path)
    )


def test_an_empty_file(tmp_path):
    write(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "model.safetensors is empty" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.999, 0.5])
def test_a_truncated_file_says_how_much_is_there(share, tmp_path):
    write(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    assert f"is truncated: it has {int(share * len(whole))} of {len(whole)} bytes; copy it again" in refusal(
        tmp_path
    )


@pytest.mark.parametrize("keep", [1, 7, 8, 100])
def test_a_file_cut_inside_its_header(keep, tmp_path):
    write(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "model.safetensors is not a safetensors file, or is damaged" in refusal(tmp_path)


def test_any_damage_to_a_header_is_refused_or_harmless(tmp_path):
    """With random bytes changed in the header, there is one clear error, or tensors of the right shape."""
    write(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    random = torch.Generator().manual_seed(0)
    said = []
    for _ in range(200):
        place = int(torch.randint(0, 8 + header, (1,), generator=random))
        byte = int(torch.randint(0, 256, (1,), generator=random))
        file.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
        try:
            Checkpoint.open(tmp_path)
        except CheckpointError as error:
            said.append(str(error))
    assert len(said) > 100
    assert not any("\n" in message for message in said)


def test_a_shard_that_is_missing(tmp_path):
    write(tmp_path, "hf")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "lacks model-00002-of-00002.safetensors, which model.safetensors.index.json names" in refusal(
        tmp_path
    )


@pytest.mark.parametrize("index", ["", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[]"])
def test_an_index_that_is_none(index, tmp_path):
    write(tmp_path, "hf")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json is not an index of safetensors" in refusal(tmp_path)


def test_a_tensor_stored_twice(tmp_path):
    write(tmp_path)
    save_file({"norm.scale": torch.zeros(CONFIG.hidden_size)}, tmp_path / "more.safetensors")
    assert "norm.scale is stored twice" in refusal(tmp_path)


def test_tensors_of_another_architecture(tmp_path):
    write(tmp_path)
    save_file({"transformer.h.0.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    assert "is not a gpt-oss: tensors are called transformer.h.0.weight" in refusal(tmp_path)


def test_every_fault_is_named(tmp_path):
    write(tmp_path)
    change(
        tmp_path / "model.safetensors",
        **{
            "norm.scale": None,
            "block.0.foo": torch.zeros(1),
            "block.1.attn.sinks": torch.zeros(CONFIG.num_heads + 1),
            "block.2.mlp.mlp1_weight.scales": torch.zeros(5, 128, 3),
            "embedding.weight": torch.zeros(211, 96, dtype=torch.uint8),
        },
    )
    message = refusal(tmp_path)
    assert "missing: norm.scale" in message
    assert "unexpected: block.0.foo" in message
    assert "block.1.attn.sinks is [7], not [6]" in message
    assert "block.2.mlp.mlp1_weight.scales has type F32, not U8" in message
    assert "embedding.weight has type U8, not BF16" in message


def test_faults_in_great_number_are_counted(tmp_path):
    """With the config.json of a deeper model, 15 tensors of each further block are missing."""
    write(tmp_path)
    deeper = tiny_checkpoint.original_config(CONFIG) | {"num_hidden_layers": 5}
    (tmp_path / "config.json").write_text(json.dumps(deeper))
    message = refusal(tmp_path)
    assert "block.3.attn.norm.scale" in message
    assert "and 24 more" in message
    assert len(message) < 400 + len(str(tmp_path))


def test_the_config_of_another_size_is_refused(tmp_path):
    write(tmp_path, "hf")
    wider = tiny_checkpoint.hugging_face_config(CONFIG) | {"intermediate_size": 96}
    (tmp_path / "config.json").write_text(json.dumps(wider))
    assert (
        "misshapen: model.layers.0.mlp.experts.down_proj_blocks is [5, 96, 2, 16], not [5, 96, 3, 16]"
        in refusal(tmp_path)
    )
