"""aider changes a folder with a scripted model, and recognises a full context.

One test starts the program as a process.  The others run it inside this process, because its imports take
seconds.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.clients.conftest import prompts_of, scripted
from tests.clients.packages import require

require("aider")
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it looks for a newer one on the network

from aider.exceptions import LiteLLMExceptions  # noqa: E402
from aider.main import main  # noqa: E402
from aider.models import Model  # noqa: E402

WHOLE = "I replace it.\n\na.txt\n```\n{}\n```\n"
DIFF = "I replace it.\n\na.txt\n```\n<<<<<<< SEARCH\nhello\n=======\n{}\n>>>>>>> REPLACE\n```\n"
THOUGHT = "I must replace it."
ASKED = "Replace hello by goodbye in a.txt"
TESTED, BROKEN = "Mend a.txt", "Replace it"
SCRIPT = [
    {"when": "commit message", "final": "feat: say goodbye", "thought": "It was hello."},
    {"when": f"{ASKED}.*SEARCH/REPLACE", "final": DIFF.format("goodbye"), "thought": THOUGHT},
    {"when": ASKED, "final": WHOLE.format("goodbye"), "thought": THOUGHT},
    {"when": f"{TESTED}.*The tests failed", "final": WHOLE.format("goodbye")},
    {"when": TESTED, "final": WHOLE.format("good night")},
    {"parts": [{"text": "<|channel|>final<|message|>I"}, {"broken": True}, {"text": "x"}]},  # for BROKEN, as
    {"final": WHOLE.format("goodbye")},  # its next try
]
CONTEXT = 16_384
LIMIT = "has hit a token limit"


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    return tmp_path_factory.mktemp("script")


@pytest.fixture(scope="module")
def server(script):
    with scripted(script, SCRIPT, "--max-context", str(CONTEXT)) as server:
        yield server


@pytest.fixture
def prompts(server, script):
    """What the model was asked in this test so far."""
    before = len(prompts_of(script)) if (script / "prompts.jsonl").exists() else 0
    return lambda: prompts_of(script)[before:]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """In the folder to be changed, which is the current one."""
    for name in [name for name in os.environ if name.startswith("AIDER")]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(tmp_path / "home"),
        "OPENAI_API_BASE": "",  # aider sets these two; so they are as before after the test
        "OPENAI_API_KEY": "",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    for folder in (tmp_path / "home", tmp_path / "work"):
        folder.mkdir()
    monkeypatch.chdir(tmp_path / "work")
    file = tmp_path / "work" / "a.txt"
    file.write_text("hello\n")
    return file


@pytest.fixture
def arguments(server, file, tmp_path):
    """What aider's documentation tells those to give whose model it does not know; and quiet, and offline."""
    sizes = {f"max_{kind}tokens": 131_072 for kind in ("", "input_", "output_")}
    costs = {"input_cost_per_token": 0, "output_cost_per_token": 0}
    known = {"litellm_provider": "openai", "mode": "chat", **sizes, **costs}
    metadata = tmp_path / "metadata.json"
    metadata.write_text(json.dumps({f"openai/{server.model}": known}))
    return [
        *("--model", f"openai/{server.model}", "--model-metadata-file", str(metadata)),
        *("--openai-api-base", server.base_url, "--openai-api-key", "x"),
        *("--analytics-disable", "--no-check-update", "--no-show-release-notes", "--no-pretty"),
        *("--yes-always", "a.txt", "--message"),
    ]


@pytest.fixture
def aider(arguments, capfd):
    """Runs it to its end; returns what it printed."""

    def aider(message, *more):
        git = [] if "--git" in more else ["--no-git"]
        assert not main([*arguments, message, *git, *more])
        return "".join(capfd.readouterr())

    return aider


def test_the_program_changes_a_file(arguments, file):
    ended = subprocess.run(
        [sys.executable, "-m", "aider", *arguments, ASKED, "--no-git"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert file.read_text() == "goodbye\n", ended.stdout


@pytest.mark.parametrize("format", ["whole", "diff"])
@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_a_file_is_changed_as_the_model_says(format, stream, aider, file, prompts):
    said = aider(ASKED, "--edit-format", format, stream)
    assert file.read_text() == "goodbye\n", said
    assert THOUGHT in said
    (prompt,) = prompts()
    assert "a.txt\n```\nhello\n```" in prompt


def test_it_goes_on_until_the_tests_pass(aider, file, prompts):
    said = aider(TESTED, "--auto-test", "--test-cmd", "grep goodbye a.txt || (echo The tests failed; false)")
    assert file.read_text() == "goodbye\n", said
    first, second = prompts()
    assert "good night" not in first
    assert "good night" in second


def test_it_commits_with_a_message_of_the_model(aider, file):
    def git(*command):
        return subprocess.run(["git", *command], check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")
    git("config", "user.name", "A")
    git("config", "user.email", "a@b.example")
    git("add", "a.txt")
    git("commit", "--quiet", "-m", "first")
    said = aider(ASKED, "--git")
    assert git("log", "--format=%s", "--", "a.txt").splitlines() == ["feat: say goodbye", "first"], said


def test_it_tries_again_after_a_stream_that_breaks(aider, file, prompts):
    said = aider(BROKEN)
    assert file.read_text() == "goodbye\n", said
    assert "Retrying" in said
    assert len(prompts()) == 2


def test_it_tells_of_a_full_context_and_does_not_try_again(aider, file, prompts):
    file.with_name("long.txt").write_text("word " * 2 * CONTEXT)
    said = aider(ASKED, "--read", "long.txt")
    assert LIMIT in said
    assert "Retrying" not in said
    assert prompts() == []  # none came as far as the model
    assert LIMIT not in aider(ASKED)
    assert file.read_text() == "goodbye\n"


@pytest.mark.parametrize("stream", [False, True])
def test_its_table_of_errors_names_a_full_context(server, stream, monkeypatch):
    monkeypatch.setenv("OPENAI_API_BASE", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    model, table = Model(f"openai/{server.model}"), LiteLLMExceptions()
    names = []
    for words, temperature in ((2 * CONTEXT, 0), (1, 7)):
        with pytest.raises(table.exceptions_tuple()) as raised:
            model.send_completion([{"role": "user", "content": "word " * words}], None, stream, temperature)
        found = table.get_ex_info(raised.value)
        assert not found.retry
        names.append(found.name)
    assert names == ["ContextWindowExceededError", "BadRequestError"]
