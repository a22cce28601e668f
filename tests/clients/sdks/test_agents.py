"""Coding agents, started with `gptoss launch`, change a folder in loops of calls; the model follows a script.

Codex has its own file, test_codex.py.
"""

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import threading

import pytest

from language.tokenizer import Tokenizer
from tests.clients.conftest import ROOT, prompts_of, scripted
from tests.clients.packages import AGENTS, require_agent
from tests.vocabularies import REAL

pytestmark = pytest.mark.timeout(600)

NO_TOOLS = {"when": r"\A(?!.*namespace functions)", "final": "A title"}
"""What is said to a request for a title, which may come before, between or after those of a loop."""
DONE = {"final": "I changed the file.", "thought": "Done."}
BROKEN = {"parts": [{"text": "<|channel|>final<|message|>I"}, {"broken": True}, {"text": "x"}]}
ASKED = "Replace hello by goodbye in a.txt"


def edit(folder):
    """What Claude Code's tools are told."""
    file = str(folder.work / "a.txt")
    return [
        {"call": "Read", "arguments": {"file_path": file}, "thought": "I read it."},
        {
            "call": "Edit",
            "arguments": {"file_path": file, "old_string": "hello", "new_string": "goodbye"},
            "thought": "I change it.",
        },
    ]


BASH = {
    "call": "bash",
    "arguments": {"command": "sed -i s/hello/goodbye/ a.txt"},
    "thought": "I change it.",
}


class Folder:
    def __init__(self, path):
        self.home, self.work = path / "home", path / "work"
        for folder in (self.home, self.work):
            folder.mkdir()
        (self.work / "a.txt").write_text("hello\n")

    @property
    def text(self):
        return (self.work / "a.txt").read_text()

    def launch(self, agent, server, *arguments, key=()):
        """Runs `gptoss launch` to its end, without a terminal."""
        return subprocess.run(
            self.command(agent, server, arguments, key),
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=500,
        )

    def in_terminal(self, agent, server, *arguments):
        """The same in a pseudo-terminal; exit code and the screen's bytes."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            self.command(agent, server, arguments, ()),
            cwd=self.work,
            env={**self.environment, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        seen = []

        def read():
            try:
                while data := os.read(ours, 4096):
                    seen.append(data)
            except OSError:
                return  # the terminal's other end was closed: the agent has ended

        reader = threading.Thread(target=read)
        reader.start()
        try:
            code = process.wait(500)
        finally:
            process.kill()
            reader.join(30)
            os.close(ours)
        return code, b"".join(seen).decode(errors="replace")

    def command(self, agent, server, arguments, key):
        python = os.environ.get("SERVER_PYTHON") or sys.executable
        python = shutil.which(python) or str(ROOT / python)
        return [python, "-m", "gptoss", "launch", agent, "--url", server.url, *key, "--", *arguments]

    @property
    def environment(self):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        return {
            **kept,
            "PATH": f"{AGENTS}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.home),
            "PWD": str(self.work),
            "XDG_DATA_HOME": str(self.home / "data"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def has_tools(prompt):
    return "namespace functions" in prompt


def sampled(line):
    """What a line of the script leaves in the next prompt."""
    return (
        f"<|channel|>analysis<|message|>{line['thought']}<|end|><|start|>assistant"
        f"<|channel|>commentary to=functions.{line['call']} <|constrain|>json<|message|>"
        f"{json.dumps(line['arguments'])}<|call|>"
    )


CLAUDE = ("--permission-mode", "acceptEdits", "--output-format", "json", "-p")


def test_claude_code_reads_edits_and_goes_on_where_it_was(folder, tmp_path):
    require_agent("claude")
    key = tmp_path / "key"
    steps = edit(folder)
    with scripted(tmp_path, [NO_TOOLS, *steps, DONE], "--seal-key-file", str(key)) as server:
        first = folder.launch("claude", server, *CLAUDE, ASKED)
        asked = prompts_of(tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert folder.text == "goodbye\n"
    told = json.loads(first.stdout)
    assert told["result"] == "I changed the file."
    loop = [prompt for prompt in asked if has_tools(prompt)]
    read, change = steps
    assert loop[1].startswith(loop[0] + sampled(read))  # what is new comes after all that was there
    # Claude Code writes an argument of its own into a call of Edit, which is then no longer what was sampled.
    assert loop[2].startswith(loop[1] + sampled(change).partition("{")[0])
    usage = told["usage"]
    assert usage["cache_read_input_tokens"] > 0.9 * usage["input_tokens"]
    # Another server with the same key: the conversation goes on, though nothing was kept of it there.
    with scripted(
        tmp_path, [NO_TOOLS, {"final": "Nothing more to do."}], "--seal-key-file", str(key)
    ) as server:
        second = folder.launch("claude", server, "--continue", *CLAUDE, "And now?")
        asked = prompts_of(tmp_path)
    assert json.loads(second.stdout)["result"] == "Nothing more to do."
    assert "to=functions.Edit" in asked[-1]


def test_claude_code_with_its_changing_header_reuses_what_was_computed(folder, tmp_path):
    """`gptoss launch` switches the header off; who starts Claude Code by hand does not."""
    require_agent("claude")
    with scripted(tmp_path, [NO_TOOLS, *edit(folder), DONE]) as server:
        told = subprocess.run(
            [*folder.command("claude", server, (), ())[:-1], "--print"],
            env=folder.environment, cwd=folder.work, capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
        assert "CLAUDE_CODE_ATTRIBUTION_HEADER=0" in told
        on = told.rstrip().replace("export CLAUDE_CODE_ATTRIBUTION_HEADER=0", "")
        said = f"{on} {shlex.join([*CLAUDE, ASKED])}"
        done = subprocess.run(
            ["bash", "-c", said], env=folder.environment, cwd=folder.work, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=500,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert folder.text == "goodbye\n"
    loop = [prompt for prompt in prompts_of(tmp_path) if has_tools(prompt)]
    assert loop[-1].startswith(loop[0])
    assert "billing" not in loop[0]
    usage = json.loads(done.stdout)["usage"]
    assert usage["cache_read_input_tokens"] > 0.9 * usage["input_tokens"]


def test_claude_code_asks_again_where_a_stream_fails(folder, tmp_path):
    require_agent("claude")
    with scripted(tmp_path, [NO_TOOLS, BROKEN, DONE]) as server:
        done = folder.launch("claude", server, *CLAUDE, ASKED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["result"] == "I changed the file."


def test_claude_code_is_told_of_a_full_context_in_words_that_it_knows(folder, tmp_path):
    require_agent("claude")
    with scripted(tmp_path, [{"when": ".", **DONE}], "--max-context", "8192") as server:
        done = folder.launch("claude", server, *CLAUDE, ASKED)
    told = json.loads(done.stdout)
    assert told["is_error"]
    assert "too long" in told["result"].lower(), told["result"]


def test_claude_code_shortens_a_conversation_that_has_become_too_long(folder, tmp_path):
    require_agent("claude")
    reads = []
    for name in ("b.txt", "c.txt", "d.txt"):
        (folder.work / name).write_text("".join(f"{i} words in {name}\n" for i in range(1500)))
        arguments = {"file_path": str(folder.work / name)}
        reads.append({"call": "Read", "arguments": arguments, "thought": "I read it."})
    summary = {"when": "detailed summary of", "final": "<summary>Three files are to be read.</summary>"}
    with scripted(tmp_path, [summary, NO_TOOLS, *reads, DONE], "--max-context", "49152") as server:
        done = folder.launch("claude", server, *CLAUDE, "Read b.txt, c.txt and d.txt.")
        asked = prompts_of(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["result"] == "I changed the file."
    assert any("detailed summary of" in prompt for prompt in asked)
    assert "Three files are to be read." in asked[-1]
    assert len(asked[-1]) < max(map(len, asked))


def test_codex_shortens_a_conversation_before_it_is_too_long(folder, tmp_path):
    require_agent("codex")
    look = {"call": "exec_command", "arguments": {"cmd": "cat b.txt"}, "thought": "I read it."}
    (folder.work / "b.txt").write_text("".join(f"{i} words\n" for i in range(900)))
    flags = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    with scripted(tmp_path, [NO_TOOLS, *[look] * 8, DONE], "--max-context", "32768") as server:
        done = folder.launch("codex", server, *flags, "Read b.txt eight times.")
        asked = prompts_of(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "I changed the file." in done.stdout
    shortened = [i for i, prompt in enumerate(asked) if not has_tools(prompt)]
    assert shortened
    assert len(asked[shortened[0] + 1]) < len(asked[shortened[0] - 1]) / 2


OTHERS = {"opencode": (["run"], "--continue"), "pi": (["-p"], "--continue")}


@pytest.mark.parametrize("agent", OTHERS)
def test_other_agents_change_a_folder_and_go_on_after_a_restart(agent, folder, tmp_path):
    require_agent(agent)
    arguments, again = OTHERS[agent]
    with scripted(tmp_path, [NO_TOOLS, BASH, DONE]) as server:
        done = folder.launch(agent, server, *arguments, ASKED)
        asked = prompts_of(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert folder.text == "goodbye\n"
    assert "I changed the file." in done.stdout
    before, after = filter(has_tools, asked)
    assert after.startswith(before + sampled(BASH))
    with scripted(tmp_path, [NO_TOOLS, {"final": "Nothing more to do."}]) as server:
        second = folder.launch(agent, server, *arguments, again, "And now?")
        asked = prompts_of(tmp_path)
    assert "Nothing more to do." in second.stdout, second.stdout + second.stderr
    assert "I changed the file.<|end|><|start|>user<|message|>" in asked[-1]
    assert "to=functions.bash" in asked[-1]


@pytest.mark.parametrize("agent", OTHERS)
def test_where_a_stream_fails_opencode_asks_again_and_pi_tells_why(agent, folder, tmp_path):
    require_agent(agent)
    arguments, _ = OTHERS[agent]
    with scripted(tmp_path, [NO_TOOLS, BROKEN, DONE]) as server:
        done = folder.launch(agent, server, *arguments, ASKED)
    if agent == "pi":
        assert (done.returncode, done.stdout) == (1, "")
        assert "the model produced numbers that are not finite" in done.stderr
    else:
        assert "I changed the file." in done.stdout, done.stdout + done.stderr


TERMINAL = {
    "claude": ("Claude Code", ["-p", "--permission-mode", "acceptEdits", ASKED]),
    "opencode": ("opencode", ["run", ASKED]),
    "pi": ("pi", ["-p", ASKED]),
    "codex": ("Codex", ["exec", "--skip-git-repo-check", ASKED]),
}
TABLE = ROOT / "docs" / "agents.md"
MOST = 2000
"""Tokens of Codex's first prompt, with the catalogue that it is given."""


@pytest.mark.parametrize("agent", TERMINAL)
def test_each_agent_answers_in_a_terminal_and_its_first_prompt_is_as_long_as_told(agent, folder, tmp_path):
    require_agent(agent)
    name, arguments = TERMINAL[agent]
    with scripted(tmp_path, [NO_TOOLS, {"when": ".", **DONE}]) as server:
        code, screen = folder.in_terminal(agent, server, *arguments)
    assert code == 0, screen
    assert "I changed the file." in screen
    first = next(filter(has_tools, prompts_of(tmp_path)))
    if not REAL.is_file():
        pytest.xfail(f"tokens cannot be counted: no tokenizer.json of gpt-oss at {REAL}")
    tokens = len(Tokenizer(REAL).encode_with_specials(first))
    (told,) = re.findall(rf"^\| {name} \| ([\d,]+)", TABLE.read_text(), re.MULTILINE)
    assert tokens == pytest.approx(int(told.replace(",", "")), rel=0.05)
    assert agent != "codex" or tokens <= MOST
