"""`gptoss launch`: the agent's process and the server's; the agent is a script that prints its arguments."""

import json
import os
import signal
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gptoss.launch import described
from gptoss.launch.agents import AGENTS, CODEX_PROMPT, Model
from gptoss.launch.run import find
from gptoss.start import StartError
from server.settings import Settings
from tests.server.fakes import final, live

ROOT = Path(__file__).parents[3]
MODEL = Model("gpt-oss-20b", 131_072)
NAMES = list(AGENTS)

TELLS = """#!{python}
import json, os, signal, sys, time
out = open(os.environ["TOLD"], "w")
json.dump({{"words": sys.argv[1:], "environment": dict(os.environ)}}, out)
out.close()
if "wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
    print("waiting", flush=True)
    time.sleep(60)
sys.exit(7)
"""


@pytest.fixture
def gptoss(tmp_path):
    """Starts `gptoss launch WORDS`, with a script in place of each agent, and an empty HOME."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in NAMES:
        path = programs / name
        path.write_text(TELLS.format(python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GPTOSS_")},
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path / "home"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "TOLD": str(tmp_path / "told.json"),
    }

    def start(*words):
        command = [sys.executable, "-m", "gptoss", "launch", *map(str, words)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )

    start.told = lambda: json.loads((tmp_path / "told.json").read_text())
    start.data = tmp_path / "data"
    start.home = tmp_path / "home"
    return start


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_is_told_of_the_server_and_its_exit_code_is_ours(name, gptoss, tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi!"), max_context=20_000) as server:
        process = gptoss(name, "--url", server.url, "--", "exec", "--flag", "a b")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 7, errors
    told = gptoss.told()
    assert told["words"][-3:] == ["exec", "--flag", "a b"]
    files = "".join(path.read_text() for path in gptoss.data.rglob("*") if path.is_file())
    assert server.url in files + json.dumps(told["environment"])
    assert "tiny" in files + json.dumps(told["environment"])
    assert "too short" not in errors
    assert not gptoss.home.exists(), "a configuration of the user's was touched"


def test_a_server_that_has_a_key_and_one_that_is_not_there(gptoss, tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi!"), settings=Settings(api_key=("secret",))) as server:
        wrong = gptoss("codex", "--url", server.url)
        assert "returned status 401; give the API key with --key" in wrong.communicate(timeout=60)[1]
        right = gptoss("codex", "--url", f"{server.url}/v1/", "--key", "secret")
        errors = right.communicate(timeout=60)[1]
    assert (wrong.returncode, right.returncode) == (2, 7)
    assert "context of 4096 tokens, which is too short" in errors
    assert gptoss.told()["environment"]["LOCAL_SERVER_KEY"] == "secret"
    gone = gptoss("codex", "--url", server.url)
    assert f"there is no server at {server.url}" in gone.communicate(timeout=60)[1]


def test_a_server_is_started_for_it_and_ended_after(gptoss):
    process = gptoss("claude", "--backend", "reference", "--max-context", "2048")
    _, errors = process.communicate(timeout=110)
    assert process.returncode == 7, errors
    environment = gptoss.told()["environment"]
    assert environment["ANTHROPIC_MODEL"] == "gptoss-demo"
    url = environment["ANTHROPIC_BASE_URL"]
    again = gptoss("claude", "--url", url)
    assert f"there is no server at {url}" in again.communicate(timeout=60)[1]


@pytest.mark.exhaustive
def test_a_server_that_does_not_start_says_why(gptoss, tmp_path):
    process = gptoss("codex", "--model", tmp_path)
    assert "the server did not start: " in process.communicate(timeout=60)[1]
    assert process.returncode == 2


def test_a_signal_is_handed_on(gptoss, tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi!")) as server:
        process = gptoss("pi", "--url", server.url, "--", "wait")
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 9


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_is_what_a_shell_would_run(name, gptoss, tmp_path):
    printed, _ = gptoss(name, "--print", "--model", "some/model", "--", "say 'hi'").communicate(timeout=60)
    assert not gptoss.data.exists(), "--print wrote something"
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "TOLD": str(tmp_path / "told.json"),
    }
    shell = subprocess.run(
        ["bash", "-c", printed], env=environment, capture_output=True, text=True, timeout=60
    )
    assert shell.returncode == 7, shell.stderr
    assert gptoss.told()["words"][-1] == "say 'hi'"


def test_codex_is_told_in_its_own_files(tmp_path):
    plan = AGENTS["codex"].plan("http://127.0.0.1:8000", None, MODEL, tmp_path)
    config = tomllib.loads(plan.files[tmp_path / "config.toml"])
    (about,) = json.loads(plan.files[tmp_path / "models.json"])["models"]
    assert config["model_providers"]["gptoss"]["base_url"] == "http://127.0.0.1:8000/v1"
    assert config["model_auto_compact_token_limit"] < config["model_context_window"] == 131_072
    assert config["agents"] == {"enabled": False}
    assert config["features"] == {"goals": False}
    assert (about["slug"], about["base_instructions"]) == ("gpt-oss-20b", CODEX_PROMPT)
    assert about["apply_patch_tool_type"] == "freeform"


def test_what_an_agent_writes_is_its_users_alone(gptoss, tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi!")) as server:
        gptoss("pi", "--url", server.url, "--key", "secret").communicate(timeout=60)
    (models,) = gptoss.data.rglob("models.json")
    assert stat.S_IMODE(models.stat().st_mode) == 0o600
    assert stat.S_IMODE(models.parent.stat().st_mode) & 0o077 == 0


def test_a_missing_program_is_named_with_its_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for agent in AGENTS.values():
        with pytest.raises(
            StartError,
            match=f"{agent.name} is not installed; install it with `npm install -g {agent.package}`",
        ):
            find(agent)


def test_names_with_quotes_do_not_break_out_of_what_is_printed(tmp_path):
    plan = AGENTS["claude"].plan("http://127.0.0.1:8000", "a'b $(c)", MODEL, tmp_path)
    assert """export ANTHROPIC_AUTH_TOKEN='a'"'"'b $(c)'""" in described(plan, [])
