"""Codex changes a folder in loops of calls; the model follows a script."""

import json
import os
import subprocess
from contextlib import contextmanager

import pytest

from tests.clients.conftest import prompts_of, scripted
from tests.clients.packages import NODE, require_node

require_node("@openai/codex")
pytestmark = pytest.mark.timeout(600)

CATALOG = {
    "slug": "gpt-oss-20b",
    "display_name": "gpt-oss-20b",
    "context_window": 131072,
    "shell_type": "default",
    "visibility": "list",
    "supported_in_api": True,
    "priority": 0,
    "truncation_policy": {"mode": "bytes", "limit": 10000},
    "input_modalities": ["text"],
    "base_instructions": "You are a coding agent. Be brief.",
    "support_verbosity": False,
    "default_verbosity": None,
    "supports_parallel_tool_calls": False,
    "supports_reasoning_summaries": True,
    "default_reasoning_level": "medium",
    "supported_reasoning_levels": [
        {"effort": effort, "description": effort} for effort in ("low", "medium", "high")
    ],
    "apply_patch_tool_type": "freeform",
    "experimental_supported_tools": [],
}

SOURCE = "def add(a, b):\n    return a - b\n"
MENDED = "def add(a, b):\n    return a + b\n"
TEST = "import unittest\nfrom sums import add\n\n\nclass T(unittest.TestCase):\n"
TEST += "    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n"
PATCH = "*** Begin Patch\n*** Update File: sums.py\n@@\n-    return a - b\n+    return a + b\n*** End Patch"


def run(command, thought):
    return {"call": "exec_command", "arguments": {"cmd": command}, "thought": thought}


def raw(thought, header, body):
    text = f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant<|channel|>{header}"
    return {"text": f"{text}<|message|>{body}<|call|>"}


READ = run("cat sums.py", "I read it.")
TRY = run("python3 -m unittest -q test_sums 2>&1; echo ended $?", "I run the tests.")
DONE = {"final": "The sum is mended.", "thought": "All is well."}


class Folder:
    def __init__(self, path):
        self.home, self.work = path / "home", path / "work"
        for folder in (self.home, self.work):
            folder.mkdir()
        (self.work / "sums.py").write_text(SOURCE)
        (self.work / "test_sums.py").write_text(TEST)

    @property
    def source(self):
        return (self.work / "sums.py").read_text()

    def codex(self, server, *arguments, catalog=True):
        """Runs `codex exec`; its events, and its exit code."""
        lines = ['model = "gpt-oss-20b"', 'model_provider = "ours"']
        if catalog:
            (self.home / "catalog.json").write_text(json.dumps({"models": [CATALOG]}))
            lines.append(f'model_catalog_json = "{self.home}/catalog.json"')
        lines += ["[model_providers.ours]", 'name = "ours"', f'base_url = "{server.base_url}"']
        lines += ['wire_api = "responses"', "request_max_retries = 0", "stream_max_retries = 0"]
        (self.home / "config.toml").write_text("\n".join(lines))
        flags = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--json"]
        environment = {**os.environ, "CODEX_HOME": str(self.home), "HOME": str(self.home)}
        environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        done = subprocess.run(
            [NODE / "node_modules/.bin/codex", "exec", *flags, *arguments],
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=500,
        )
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return events, done.returncode


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@contextmanager
def playing(tmp_path, *lines, flags=()):
    with scripted(tmp_path, list(lines), *flags) as server:
        yield server


def items(events, kind):
    return [e["item"] for e in events if e["type"] == "item.completed" and e["item"]["type"] == kind]


def said(line):
    """What a line of the script leaves in the next prompt."""
    arguments = line["arguments"]
    return (
        f"<|channel|>analysis<|message|>{line['thought']}<|end|><|start|>assistant"
        f"<|channel|>commentary to=functions.{line['call']} <|constrain|>json<|message|>"
        f"{json.dumps(arguments)}<|call|>"
    )


def test_a_catalogue_lets_it_read_patch_and_test(folder, tmp_path):
    patch = raw("I mend it.", "commentary to=functions.apply_patch", PATCH)
    with playing(tmp_path, READ, patch, TRY, DONE) as server:
        events, code = folder.codex(server, "Mend the sum.")
    assert code == 0, events
    assert folder.source == MENDED
    assert [change["kind"] for item in items(events, "file_change") for change in item["changes"]] == [
        "update"
    ]
    assert "ended 0" in items(events, "command_execution")[-1]["aggregated_output"]
    assert [item["text"] for item in items(events, "reasoning")] == [
        "I read it.", "I mend it.", "I run the tests.", "All is well.",
    ]  # fmt: skip
    assert items(events, "agent_message")[-1]["text"] == "The sum is mended."
    asked = prompts_of(tmp_path)
    for before, sampled, after in zip(asked, [said(READ), patch["text"], said(TRY)], asked[1:], strict=False):
        assert after.startswith(before + sampled)  # the history is what the model saw and said
    usage = events[-1]["usage"]
    reused = usage["cached_input_tokens"] / (usage["input_tokens"] * 3 / 4)
    assert reused > 0.9


def test_without_a_catalogue_it_changes_files_by_commands(folder, tmp_path):
    mend = run("sed -i 's/a - b/a + b/' sums.py", "I mend it.")
    with playing(tmp_path, READ, mend, TRY, DONE) as server:
        events, code = folder.codex(server, "Mend the sum.", catalog=False)
    assert code == 0, events
    assert folder.source == MENDED
    assert "ended 0" in items(events, "command_execution")[-1]["aggregated_output"]


def test_a_call_into_a_namespace_is_understood(folder, tmp_path):
    header = "commentary to=multi_agent_v1.close_agent <|constrain|>json"
    with playing(tmp_path, raw("Close it.", header, '{"target": "nobody"}'), DONE) as server:
        _, code = folder.codex(server, "Close the agent.")
    assert code == 0
    answer = prompts_of(tmp_path)[1].split("<|start|>multi_agent_v1.close_agent to=assistant")[1]
    assert "unsupported call" not in answer
    assert "nobody" in answer or "agent" in answer


def test_an_output_schema_holds_beside_tools(folder, tmp_path):
    schema = {
        "type": "object",
        "properties": {"mended": {"type": "boolean"}},
        "required": ["mended"],
        "additionalProperties": False,
    }
    (folder.home / "schema.json").write_text(json.dumps(schema))
    answer = {"final": '{"mended":true}', "thought": "All is well."}
    options = ["--output-schema", str(folder.home / "schema.json"), "-o", str(folder.home / "last.txt")]
    with playing(tmp_path, READ, answer) as server:
        _, code = folder.codex(server, *options, "Look.")
    assert code == 0
    assert json.loads((folder.home / "last.txt").read_text()) == {"mended": True}


def test_too_small_a_context_says_so_and_ends(folder, tmp_path):
    with playing(tmp_path, READ, DONE, flags=["--max-context", "1024"]) as server:
        events, code = folder.codex(server, "Mend the sum.")
    assert code != 0
    failed = json.dumps([event for event in events if event["type"] in ("turn.failed", "error")])
    assert "context window" in failed or "ran out of room" in failed, failed


def test_an_answer_cut_by_the_limit_ends_the_turn(folder, tmp_path):
    long = {"final": "word " * 20_000}
    with playing(tmp_path, long, long, flags=["--max-context", "16384"]) as server:
        events, code = folder.codex(server, "Talk.")
    assert code != 0
    assert "max_output_tokens" in json.dumps(events) or "ncomplete" in json.dumps(events)


def test_a_restart_between_turns_loses_nothing(folder, tmp_path):
    key = ["--seal-key-file", str(tmp_path / "key")]
    with playing(tmp_path, READ, DONE, flags=key) as server:
        _, code = folder.codex(server, "Look.")
        assert code == 0
    before = prompts_of(tmp_path)[-1]
    with playing(tmp_path, TRY, DONE, flags=key) as server:
        events, code = folder.codex(server, "resume", "--last", "Now run the tests.")
    assert code == 0, events
    after = prompts_of(tmp_path)[2]
    assert "The sum is mended.<|end|><|start|>user<|message|>Now run the tests." in after
    call = said(READ).split("<|start|>assistant")[1]
    assert f"<|start|>assistant{call}" in before
    assert f"<|start|>assistant{call}" in after
