"""`gptoss verify` with fake models: a correct model passes, and each injected fault fails some row."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from gptoss import LLM
from gptoss.assembly import DEMO
from gptoss.verify import check
from gptoss.verify.files import check_files, sha256
from gptoss.verify.published import MODELS, VOCABULARY, Published, published
from gptoss.verify.rows import Row, table
from gptoss.verify.text import TOGETHER, chunk_losses
from gptoss.verify.turns import valid_call
from model.loading.checkpoint import Checkpoint
from model.loading.synthetic import SIZES

TEXT = Path(DEMO.parent / "README.md").read_text()[:2600]
"""Of fewer chunks than `gptoss verify --quick` takes.  A perplexity is judged only if the published one is
of equally many.
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(folder=DEMO):
    return LLM(folder, device="cpu", threads=1, date="2025-06-28")


@pytest.fixture(scope="module")
def known():
    """The results of a correct model, as published values."""
    with load() as llm:
        ids = llm.tokenizer.encode(TEXT)
        chunks = len(ids) // 512
        losses = chunk_losses(llm, [ids[n * 512 : (n + 1) * 512] for n in range(chunks)])
        perplexity = float(torch.tensor(losses).mean().exp())
        prompts = [*TOGETHER, "<|start|>user<|message|>What is 3 + 4?<|end|><|start|>assistant"]
        said = llm.generate(prompts, max_tokens=12, temperature=0, ignore_eos=True)
        return Published(
            name="the demo",
            layers=llm.config.num_layers,
            experts=llm.config.num_experts,
            continuations=tuple((prompt, each.text) for prompt, each in zip(prompts, said, strict=True)),
            perplexity=perplexity,
            perplexity_error=perplexity * 1e-3,
            perplexity_chunks=chunks,
            repaired=0.2,
        )


def with_verdict(verdict: str, rows: list[Row]) -> set[str]:
    return {row.about.split(" of ")[0] for row in rows if row.verdict == verdict}


def wrong(llm: LLM, known: Published) -> set[str]:
    """The failed rows, except that for the tokenizer, which is not the published one here."""
    rows = list(check(llm, DEMO, known, TEXT, quick=True))
    return with_verdict("wrong", rows) - {"tokenizer.json"}


def test_a_healthy_model_is_right(known):
    with load() as llm:
        rows = list(check(llm, DEMO, known, TEXT, quick=True))
    assert with_verdict("wrong", rows) == {"tokenizer.json"}
    assert {"continuation", "perplexity"} <= with_verdict("right", rows)


def plant(monkeypatch, change):
    read = Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: change(name, read(self, name)))


def larger_scale(name, tensor):
    return tensor + 1 if name == "block.1.mlp.mlp2_weight.scales" else tensor


def no_sinks(name, tensor):
    return torch.full_like(tensor, -1e4) if name.endswith("attn.sinks") else tensor


def swapped_experts(name, tensor):
    swapped = name.startswith("block.0.mlp.mlp1")
    return tensor[[1, 0, *range(2, len(tensor))]] if swapped else tensor


@pytest.mark.parametrize(
    "fault", [pytest.param(larger_scale, marks=pytest.mark.exhaustive), no_sinks, swapped_experts]
)
def test_a_spoiled_tensor_is_caught(fault, known, monkeypatch):
    monkeypatch.setattr("gptoss.verify.turns.LONGEST", 60)  # such a model does not end its answers
    plant(monkeypatch, fault)
    with load() as llm:
        assert {"continuation", "perplexity"} & wrong(llm, known)


@pytest.mark.exhaustive
def test_a_wrong_rope_is_caught(known, tmp_path, monkeypatch):
    monkeypatch.setattr("gptoss.verify.turns.LONGEST", 60)
    folder = shutil.copytree(DEMO, tmp_path / "demo")
    config = json.loads((folder / "config.json").read_text())
    config["rope_theta"] = 10_000  # what other models have
    (folder / "config.json").write_text(json.dumps(config))
    with load(folder) as llm:
        assert {"continuation", "perplexity"} & wrong(llm, known)


def test_a_wrong_stop_set_is_caught(known, monkeypatch):
    monkeypatch.setattr("gptoss.verify.turns.LONGEST", 60)
    with load() as llm:
        llm.renderer.stop_tokens = frozenset()
        assert "answers end by themselves" in wrong(llm, known)


def test_a_file_that_is_not_what_the_hub_published_is_caught(known, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    good = DEMO / "model.safetensors"
    (blobs / sha256(good)).write_bytes(good.read_bytes())
    (tmp_path / "model.safetensors").symlink_to(blobs / sha256(good))
    with load() as llm:
        rows = list(check_files(tmp_path, llm.tokenizer, known, quick=False))
        assert rows[-1].verdict == "right"
        (blobs / sha256(good)).write_bytes(good.read_bytes()[:-1] + b"x")
        rows = list(check_files(tmp_path, llm.tokenizer, known, quick=False))
    assert rows[-1] == Row("checksums of weights", "those of the hub", "differ: model.safetensors", "wrong")


def test_published_models_are_known_by_their_sizes():
    for model, config in zip(MODELS, (SIZES["20b"], SIZES["120b"]), strict=True):
        assert config.vocab_size == VOCABULARY
        assert published(config) == model
    with load() as llm:
        assert published(llm.config) is None


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ('{"location": "Paris"}', True),
        ('{"location": "Paris", "unit": "celsius"}', True),
        ('{"location": "Paris", "unit": "kelvin"}', False),
        ('{"unit": "celsius"}', False),
        ('{"location": 3}', False),
        ('{"location": "Paris", "more": 1}', False),
        ("[]", False),
        ("{", False),
    ],
)
def test_arguments_are_held_against_their_schema(arguments, valid):
    assert valid_call(arguments) == valid


def test_the_table_says_all_of_a_row():
    text = table([Row("a thing", "four", "five", "wrong"), Row("another", "", "six", "info")])
    assert text.splitlines()[1].split() == ["wrong", "a", "thing", "four", "five"]
    assert text.splitlines()[2].split() == ["info", "another", "-", "six"]
