"""`gptoss doctor` finds each problem that would prevent the server from serving, gives advice, and finds no
others.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.memory import GIB
from gptoss import doctor as doctors
from gptoss.__main__ import parser
from gptoss.doctor import checkpoint as model
from gptoss.doctor import machine
from model.backends.cpu import library
from model.backends.triton import BACKEND
from model.check import Check
from model.loading.synthetic import SIZES
from server.settings import Settings
from tests import tiny_checkpoint
from tests.server.fakes import byte_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "gpt-oss-tiny"
    config = dataclasses.replace(tiny_checkpoint.CONFIG, vocab_size=300, initial_context_length=1024)
    tiny_checkpoint.write(folder, config=config)
    byte_tokenizer(folder)
    return folder


@pytest.fixture
def examined(folder):
    """The findings with these settings on the reference backend: all, and only the problems."""

    def examine(full=False, **asked):
        settings = Settings(**{"model": folder, "backend": "reference", "port": 0, **asked})
        findings = list(doctors.examine(settings, full))
        return findings, {finding.about: finding for finding in findings if finding.problem}

    return examine


def about(findings, subject):
    return [finding for finding in findings if finding.about == subject]


def test_a_machine_that_would_serve_has_no_problem(examined):
    findings, problems = examined()
    assert problems == {}
    machine = {"program", "device", "kernels", "disk", "port", "access"}
    assert {finding.about for finding in findings} == machine | {
        "model",
        "tokenizer",
        "memory",
        "first token",
    }
    (memory,) = about(findings, "memory")
    assert "4096 tokens of context, 64 streams of 4096" in memory.told
    (token,) = about(findings, "first token")
    assert token.told.endswith("computed")


def test_a_large_model_is_loaded_only_if_asked(examined, monkeypatch):
    monkeypatch.setattr(model, "WORTH_SHOWING", 0)
    (token,) = about(examined()[0], "first token")
    assert "use --full to try it" in token.told
    (token,) = about(examined(full=True)[0], "first token")
    assert token.told.endswith("computed")


@pytest.mark.parametrize(
    ("asked", "subject", "hint"),
    [
        ({"device": "cuda:99"}, "device", "cuda:99"),
        ({"backend": "magic"}, "kernels", "magic"),
        ({"threads": 2}, "kernels", "--threads"),
        ({"model": Path("nowhere at all")}, "model", "nowhere at all"),
        ({"model": Path("openai/gpt-oss-99b")}, "model", "openai/gpt-oss-99b"),
        ({"kv_cache_memory": 2**60}, "memory", "available"),
        ({"api_key_file": Path("/nowhere/keys")}, "access", "/nowhere/keys"),
    ],
)
def test_every_problem_is_told_with_what_to_do(examined, asked, subject, hint):
    _, problems = examined(**asked)
    assert hint in problems[subject].told
    assert problems[subject].remedy


def test_a_taken_port(examined):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        _, problems = examined(port=taken.getsockname()[1])
    assert "in use" in problems["port"].told
    assert "--port" in problems["port"].remedy


def test_a_model_without_its_tokenizer(examined, folder):
    (folder / "tokenizer.json").unlink()
    _, problems = examined()
    assert set(problems) == {"tokenizer"}


def test_a_tokenizer_with_more_tokens_than_the_model(examined, folder):
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["model"]["vocab"] |= {f"a{i}": 256 + i for i in range(100)}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    _, problems = examined()
    assert "knows only 300 ids" in problems["tokenizer"].told


def test_too_little_memory_is_told_in_advance(examined, monkeypatch):
    monkeypatch.setattr("engine.memory.free_host_bytes", lambda: GIB)
    _, problems = examined()
    assert "are available" in problems["memory"].told


def test_the_published_tokenizer_is_known_by_its_checksum(examined, monkeypatch, folder):
    (tokenizer,) = about(examined()[0], "tokenizer")
    assert "this model's own" in tokenizer.told
    monkeypatch.setattr(
        model, "PUBLISHED_VOCABULARY", 300
    )  # as if this were a gpt-oss with another tokenizer
    (tokenizer,) = about(examined()[0], "tokenizer")
    assert tokenizer.state == "note"
    assert "not the published one of gpt-oss" in tokenizer.told


def test_the_real_tokenizer_has_the_checksum_we_know():
    path = Path(os.environ.get("GPTOSS_TOKENIZER") or ROOT.parent / "shared/gpt-oss-tokenizer/tokenizer.json")
    if not path.is_file():
        pytest.skip("the tokenizer of the real gpt-oss is not here; GPTOSS_TOKENIZER may name it")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == model.PUBLISHED


def test_a_wrong_kernel_is_named_by_its_worst_check(examined, monkeypatch):
    checks = [
        Check("attention", 1, 1e-5, 1e-3),
        Check("attention", 70, float("nan"), 1e-3),
        Check("attention", 3, 1e-6, 1e-3),
        Check("RMSNorm", 1, 1e-7, 1e-5),
    ]
    monkeypatch.setattr(machine, "kernel_checks", lambda *_: iter(checks))
    findings, problems = examined()
    assert "attention: differs from the reference by nan in a step of 70 tokens" in problems["kernels"].told
    assert "--backend reference" in problems["kernels"].remedy
    assert [each.state for each in about(findings, "kernels")[:2]] == ["problem", "ok"]


def test_a_kernel_that_raises_is_a_finding(examined, monkeypatch):
    def explode(*_):
        raise RuntimeError("an illegal\ninstruction")

    monkeypatch.setattr(machine, "kernel_checks", explode)
    _, problems = examined()
    assert problems["kernels"].told == "reference: an illegal instruction"


def test_the_cpu_backend_is_examined_kernel_by_kernel(examined):
    try:
        library.load()
    except ImportError as missing:
        pytest.skip(str(missing))
    findings, problems = examined(backend="cpu")
    assert problems == {}
    told = " ".join(finding.told for finding in about(findings, "kernels"))
    for name in ("MXFP4 product", "attention, windowed", "routing", "unembedding", "whole model, prompts"):
        assert name in told


def test_an_open_door_is_advised_against(examined):
    (access,) = about(examined(host="0.0.0.0")[0], "access")
    assert access.state == "note"
    assert "--api-key-file" in access.remedy
    (access,) = about(examined(host="0.0.0.0", api_key=("secret",))[0], "access")
    assert access.state == "ok"
    assert "secret" not in access.told


def test_a_full_disk_is_told(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    assert "HF_HOME" in machine.disk().remedy


def run(capsys, *words, **asked):
    """Run it.  Returns its exit code and its output."""
    code = doctors.doctor(Settings(**asked), parser().parse_args(["doctor", *words]))
    return code, capsys.readouterr().out


def test_the_exit_code_and_the_last_line_say_whether_it_would_serve(folder, capsys):
    code, printed = run(capsys, model=folder, backend="reference", port=0)
    assert (code, printed.splitlines()[-1]) == (0, "It would serve.")
    code, printed = run(capsys, model=folder / "nowhere", backend="reference", port=0)
    assert (code, printed.splitlines()[-1]) == (1, "It would not serve: model.")
    assert any(line.lstrip().startswith("-> ") for line in printed.splitlines())


def test_json_has_every_finding(folder, capsys):
    code, printed = run(capsys, "--json", model=folder, backend="magic", port=0)
    told = json.loads(printed)
    assert (code, told["serves"]) == (1, False)
    states = {each["about"]: each["state"] for each in told["findings"]}
    assert states["kernels"] == "problem"
    assert states["model"] == "ok"


@pytest.mark.exhaustive
def test_a_command_of_its_own(folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GPTOSS_")}
    words = ["doctor", "--json", "--model", folder, "--backend", "reference", "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "gptoss", *words],
        cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["serves"] is True


def test_the_published_20b_fits_a_card_of_16_gib_with_its_whole_context_in_eight_bits(monkeypatch):
    """Calculated before loading, for 15.5 GiB of free memory."""
    monkeypatch.setattr(model, "free_bytes", lambda device: 31 * GIB // 2)
    card = doctors.devices.Device("cuda", 0)
    found = model._plan(Settings(dense="int8", kv_cache_dtype="fp8"), SIZES["20b"], card, BACKEND)
    assert found.told == (
        "about 12.6 GB weights, 2.7 GB keys and values, of 16.6 GB free on cuda:0:"
        " 131072 tokens of context, 46 streams of 4096"
    )
    assert "109696 tokens of context" in model._plan(Settings(dense="int8"), SIZES["20b"], card, BACKEND).told
    assert "66560 tokens of context" in model._plan(Settings(), SIZES["20b"], card, BACKEND).told
