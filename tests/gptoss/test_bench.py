"""`gptoss bench` with very small models: a table, and JSON on its last line."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss.__main__ import parser
from gptoss.bench import bench
from gptoss.start import StartError
from server.settings import Settings
from tests import tiny_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    config = dataclasses.replace(tiny_checkpoint.CONFIG, vocab_size=300)
    tiny_checkpoint.write(tmp_path, config=config)
    return tmp_path


def run(capsys, monkeypatch, folder, *words):
    monkeypatch.setattr("model.device.METER_BYTES", 1 << 20)
    asked = parser().parse_args(["bench", "--seconds", "0", *words])
    assert bench(Settings(model=folder, backend="reference"), asked) == 0
    *table, last = capsys.readouterr().out.splitlines()
    return table, json.loads(last)


def test_every_figure_is_in_the_table_and_in_the_last_line(folder, capsys, monkeypatch):
    """The tiny model has a context of 64 tokens, so all cases are shorter."""
    table, facts = run(capsys, monkeypatch, folder)
    assert list(facts["results"]) == ["prefill_63", "decode_63", "streams_4", "streams_16"]
    for key, result in facts["results"].items():
        assert result["rounds"] == 1
        assert result["tokens_per_second"] > 0
        assert (result["share"] is None) == (key != "decode_63")
        assert (result["memory"] is None) == key.startswith("prefill")
    assert facts["backend"] == "reference"
    assert facts["weight_bytes"] > 0
    assert facts["engine_milliseconds"] > 0
    for words in ("prefill, 63 tokens", "decode, after 63", "16 streams", "engine", "of the memory's speed"):
        assert any(words in line for line in table), words


def test_loading_is_measured_against_reading_the_same_files(folder, capsys, monkeypatch):
    table, facts = run(capsys, monkeypatch, folder, "--load")
    loading = facts["load"]
    assert loading["file_bytes"] == (folder / "model.safetensors").stat().st_size
    assert loading["times_reading"] == loading["seconds"] / loading["cached_seconds"]
    assert loading["peak_bytes"] > 2**20
    assert any("times reading" in line for line in table)
    assert "results" not in facts


def test_what_has_no_room_is_said_and_left_out(folder, capsys, monkeypatch):
    monkeypatch.setattr("engine.memory.free_host_bytes", lambda: 300_000)
    table, facts = run(capsys, monkeypatch, folder)
    assert facts["results"]["streams_16"] is None
    assert facts["results"]["decode_63"] is not None
    assert any("16 streams  too little memory: its KV cache needs" in line for line in table)


def test_random_weights_have_no_files_to_load():
    asked = parser().parse_args(["bench", "--synthetic", "demo", "--load"])
    with pytest.raises(StartError, match="--synthetic has none"):
        bench(Settings(backend="reference"), asked)


def test_random_weights_of_the_demos_shapes(capsys, monkeypatch):
    for name, value in (("PROMPT", 8), ("CONTEXTS", (5, 9)), ("STREAMS", (2,))):
        monkeypatch.setattr(f"gptoss.bench.{name}", value)
    _, facts = run(capsys, monkeypatch, None, "--synthetic", "demo")
    assert facts["model"] == "random demo"
    assert list(facts["results"]) == ["prefill_8", "decode_5", "decode_9", "streams_2"]


def test_a_command_of_its_own(folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GPTOSS_")}
    words = ["bench", "--load", "--model", folder, "--backend", "reference"]
    done = subprocess.run(
        [sys.executable, "-m", "gptoss", *words],
        cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["load"]["seconds"] > 0
