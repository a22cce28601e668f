"""The model of tests/server/scripted.py follows its script; everything else in the server is real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.fakes import call, final
from tests.server.scripted import Broken, Script, lines, scripted, when

ROOT = Path(__file__).parents[2]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}


def ask(url, text, **more):
    body = {"messages": [{"role": "user", "content": text}], **more}
    return httpx.post(url + "/v1/chat/completions", json=body, timeout=30)


def message(answer):
    return answer.raise_for_status().json()["choices"][0]["message"]


def test_each_request_gets_the_line_that_fits_it_or_the_next():
    script = Script(final("one", "hm"), when("weather", final("sunny")), final("two"))
    with scripted(script) as server:
        first = message(ask(server.url, "Hi", temperature=2))
        assert (first["content"], first["reasoning"]) == ("one", "hm")
        assert message(ask(server.url, "How is the weather?"))["content"] == "sunny"
        assert message(ask(server.url, "Hi"))["content"] == "two"
        assert script.left == 0
        missing = ask(server.url, "Hi")
        assert missing.status_code == 500
        assert "the script has no line" in missing.json()["error"]["message"]
    assert "<|start|>user<|message|>How is the weather?<|end|>" in script.prompts[1]


def test_a_grammar_holds_the_script_to_what_was_asked_for():
    """Masks are real: what they forbid is not sampled, even if the script has it."""
    script = Script(call("add", '{"a": 1}'), call("add", '{"b": 1}'))
    with scripted(script) as server:
        strict = {**TOOL, "function": {**TOOL["function"], "strict": True}}
        kept = message(ask(server.url, "Add", tools=[strict]))["tool_calls"][0]["function"]
        assert kept == {"name": "add", "arguments": '{"a": 1}'}
        held = ask(server.url, "Add", tools=[strict], max_tokens=60).json()
        assert '"b"' not in json.dumps(held)


def test_what_is_broken_ends_one_request_and_the_next_goes_on():
    with scripted(Script([final("a").removesuffix("<|return|>"), Broken()], final("fine"))) as server:
        assert ask(server.url, "Hi").json()["error"]["code"] == "non_finite_logits"
        assert message(ask(server.url, "Hi"))["content"] == "fine"


def test_a_cut_connection_ends_a_stream_without_its_end():
    with scripted(Script(final("a long answer"))) as server:
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
        server.cut()
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("POST", server.url + "/v1/chat/completions", json=body) as stream,
        ):
            stream.read()


def test_lines_of_a_file_are_those_of_python():
    found = lines(
        [
            {"final": "Hi", "thought": "hm"},
            {"call": "add", "arguments": {"a": 1}},
            {"parts": [{"text": "<|channel|>"}, {"broken": True}]},
        ]
    )
    assert found[:2] == [[final("Hi", "hm")], [call("add", '{"a": 1}')]]
    assert found[2][0] == "<|channel|>"
    assert isinstance(found[2][1], Broken)
    with pytest.raises(ValueError, match="a line has one of"):
        lines([{"fnal": "Hi"}])


@pytest.mark.exhaustive
def test_it_runs_as_a_process(tmp_path):
    file = tmp_path / "script.json"
    file.write_text('[{"final": "Hello"}, {"when": "name", "final": "Ada"}]')
    command = [sys.executable, "-m", "tests.server.scripted", str(file), "--port", "0", "--api-key", "k"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environ, text=True) as process:
        try:
            url = process.stdout.readline().removeprefix("listening on ").strip()
            answers = [
                httpx.post(
                    url + "/v1/chat/completions",
                    json={"messages": [{"role": "user", "content": text}]},
                    headers={"authorization": "Bearer k"},
                ).json()
                for text in ("Your name?", "Hi")
            ]
        finally:
            process.terminate()
    assert [each["choices"][0]["message"]["content"] for each in answers] == ["Ada", "Hello"]
