"""`gptoss chat` on a terminal and with pipes, as a user or a script runs it.

The text of the demo model's answers is not checked, because it changes with each training.
"""

import json
import os
import subprocess
import sys

import pytest

from gptoss.assembly import DEMO
from tests.gptoss.terminal.driven import ROOT, SECONDS, terminal
from tests.gptoss.test_command_line import serving
from tests.server.fakes import Pause, final, live, prompt_text

has_demo = pytest.mark.skipif(
    not (DEMO / "config.json").exists(), reason="the demo's weights are not trained yet: demo/weights"
)


@pytest.fixture
def state(tmp_path):
    return {"XDG_STATE_HOME": str(tmp_path)}


def on_a_pipe(lines, *words, **environ):
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("GPTOSS_", "OPENAI_"))}
    return subprocess.run(
        [sys.executable, "-m", "gptoss", "chat", *map(str, words)],
        cwd=ROOT, input=lines, capture_output=True, timeout=SECONDS,
        env=ours | {"OMP_NUM_THREADS": "1"} | environ,
    )  # fmt: skip


@has_demo
def test_a_conversation_on_a_terminal_with_a_real_server(state, tmp_path):
    saved = tmp_path / "talk.json"
    with serving(DEMO) as (_, url, _), terminal("chat", "--url", url, "--max-tokens", 40, **state) as screen:
        screen.expect("/help lists")
        screen.expect("> ")
        screen.type("Hello\n")
        assert len(screen.expect("> ")) > len("Hello\n> ")
        screen.type("/effort low\n")
        screen.expect("(reasoning effort: low)")
        screen.expect("> ")
        screen.type("What is \\\n")
        screen.expect(". ")
        screen.type("2 + 2?\n")
        screen.expect("> ")
        screen.type("/status\n")
        screen.expect("questions    ")
        screen.type(f"/save {saved}\n")
        screen.expect("(saved in ")
        screen.expect("> ")  # a Ctrl-D before readline reads is the terminal's own and lost
        screen.type("\x04")
        assert screen.ends() == 0
    body = json.loads(saved.read_text())
    assert body["reasoning_effort"] == "low"
    assert [each["role"] for each in body["messages"]][::2] == ["user"] * (len(body["messages"]) // 2)


def test_ctrl_c_stops_the_answer_and_not_the_program(tiny_tokenizer, state):
    """The server waits in the middle of its answer until the client disconnects, however long that takes."""
    answers = [
        [
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Once",
            Pause(600),
        ],
        [final("Good bye!")],
    ]
    with (
        live(tiny_tokenizer, lambda request: answers.pop(0)) as server,
        terminal("chat", "--url", server.url, **state) as screen,
    ):
        screen.expect("> ")
        screen.type("A story\n")
        screen.expect("\x1b[2mH\x1b[0m")  # dimmed; each token of this tokenizer is a byte
        screen.expect("Once")
        screen.interrupt("(stopped)")
        screen.expect("> ")
        assert server.worker.wait_until_idle()  # the server was told
        screen.interrupt("Ctrl-D or /exit ends the program")  # where there is nothing to stop
        screen.expect("> ")
        screen.type("Bye\n")
        screen.expect("Good bye!")
        screen.expect("> ")
        asked = tiny_tokenizer.decode(server.worker.requests[1].prompt)
        assert "Once" in asked  # what was said stays in the conversation
        screen.type("/exit\n")
        assert screen.ends() == 0


def test_a_question_that_fails_is_told_and_the_next_one_asked(tiny_tokenizer, state):
    answers = [[RuntimeError("broken")], [final("Good bye!")]]
    with (
        live(tiny_tokenizer, lambda request: answers.pop(0)) as server,
        terminal("chat", "--url", server.url, **state) as screen,
    ):
        screen.expect("> ")
        screen.type("Hi\n")
        screen.expect(")")
        screen.expect("> ")
        screen.type("/nonsense\n")
        screen.expect("there is no /nonsense")
        screen.expect("> ")
        screen.type("Bye\n")
        screen.expect("Good bye!")
        assert "Traceback" not in screen.seen


def test_several_pasted_lines_are_one_message(tiny_tokenizer, state):
    with live(tiny_tokenizer, final("Hello!")) as server:
        with terminal("chat", "--url", server.url, **state) as screen:
            screen.expect("> ")
            screen.type("\x1b[200~def f():\n    return 1\n\n# what is this?\x1b[201~")
            screen.expect("what is this?")
            screen.type(" And why?\n")
            screen.expect("Hello!")
            screen.expect("> ")
        assert len(server.worker.requests) == 1
        said = "def f():\n    return 1\n\n# what is this? And why?"
        assert f"<|start|>user<|message|>{said}<|end|>" in prompt_text(server)


def test_what_was_typed_is_remembered_until_the_next_day(tiny_tokenizer, state, tmp_path):
    with live(tiny_tokenizer, final("Hello!")) as server:
        with terminal("chat", "--url", server.url, **state) as screen:
            screen.expect("> ")
            screen.type("a question to remember\n")
            screen.expect("Hello!")
            screen.expect("> ")
            screen.type("/exit\n")
            assert screen.ends() == 0
        history = tmp_path / "gptoss" / "chat_history"
        assert "a question to remember" in history.read_text()
        assert history.stat().st_mode & 0o077 == 0  # nobody else's business
        with terminal("chat", "--url", server.url, **state) as screen:
            screen.expect("> ")
            screen.type("\x1b[A\x1b[A")  # up, up
            screen.expect("a question to remember")
            screen.type("\n")
            screen.expect("Hello!")


@has_demo
def test_on_a_pipe_each_line_is_a_question_and_each_answer_text(tmp_path):
    lines = b"Hello\n\n/effort none\nWhat is the capital of France?\n"
    result = on_a_pipe(lines, "--temperature", 0, "--max-tokens", 60, "--system", "Be kind.")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    assert result.stdout.endswith(b"\n")
    assert b"\x1b" not in result.stdout + result.stderr
    assert b"(reasoning effort: none)" in result.stderr


def test_a_pipe_is_asked_in_order_and_a_failure_ends_it(tiny_tokenizer):
    answers = [[final("one", "hm")], [final("two\n")], [RuntimeError("broken")]]
    with live(tiny_tokenizer, lambda request: answers.pop(0)) as server:
        result = on_a_pipe(b"a\nb\xff\n/exit\n", "--url", server.url)
        assert (result.returncode, result.stdout) == (0, b"one\ntwo\n"), result.stderr
        assert len(server.worker.requests) == 2
        failed = on_a_pipe(b"c\nd\n", "--url", server.url)
        assert failed.returncode == 2
        assert failed.stderr.startswith(b"gptoss: ")
        assert len(failed.stderr.splitlines()) == 1
        assert len(server.worker.requests) == 3  # the line after it was not asked


def test_a_server_that_is_not_there_is_one_line():
    result = on_a_pipe(b"Hi\n", "--url", "127.0.0.1:9")
    assert result.returncode == 2
    assert result.stderr.startswith(b"gptoss: cannot reach http://127.0.0.1:9/v1")
    assert len(result.stderr.splitlines()) == 1


def test_settings_of_a_model_in_this_process_are_refused_for_one_elsewhere():
    result = on_a_pipe(b"Hi\n", "--url", "127.0.0.1:9", "--device", "cpu")
    assert result.returncode == 2
    assert b"--device has no effect with --url" in result.stderr
