"""The random checkpoints on disk have, in both layouts, the same tensors as those in memory."""

import pytest
import torch

from bench.synthetic import LAYOUTS, write
from model.loading.checkpoint import Checkpoint
from model.loading.synthetic import Synthetic
from tests.tiny_checkpoint import CONFIG


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shard_bytes", [1 << 30, 100_000])
def test_both_layouts_hold_the_model_in_memory(tmp_path, monkeypatch, layout, shard_bytes):
    monkeypatch.setattr("bench.synthetic.SHARD_BYTES", shard_bytes)
    made = Synthetic(CONFIG, seed=3)
    write(tmp_path, made, layout)
    opened = Checkpoint.open(tmp_path)
    assert opened.config == CONFIG
    assert sorted(opened.names) == sorted(made.names)
    for name in made.names:
        assert torch.equal(opened.read(name), made.read(name)), name


def test_tensors_depend_on_seed_and_name():
    name, other = "block.0.attn.qkv.weight", "block.1.attn.qkv.weight"
    made = Synthetic(CONFIG, seed=1)
    assert torch.equal(made.read(name), Synthetic(CONFIG, seed=1).read(name))
    assert not torch.equal(made.read(name), Synthetic(CONFIG, seed=2).read(name))
    assert not torch.equal(made.read(name), made.read(other))
