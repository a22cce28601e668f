"""A loop of calls as Claude Code sends it, with the real engine: the prefix cache is used, and a full context
is reported.
"""

import re

import httpx
import pytest

from server.settings import Settings
from tests.server.fakes import call, final
from tests.server.scripted import Script, scripted

RULES = "You are a coding agent. " * 60
READ = {
    "name": "Read",
    "description": "Reads a file.",
    "input_schema": {
        "type": "object",
        "properties": {"file_path": {"type": "string"}},
        "required": ["file_path"],
    },
}


def asked(history, turn):
    """A request as Claude Code sends it: the first block of `system` has a number that changes each time."""
    billing = f"x-anthropic-billing-header: cc_version=2.1.197.{turn}a; cc_entrypoint=sdk-cli; cch={turn}f3;"
    return {
        "max_tokens": 32000,
        "system": [
            {"type": "text", "text": billing},
            {"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}},
        ],
        "messages": history,
        "tools": [READ],
        "thinking": {"type": "adaptive", "display": "omitted"},
        "output_config": {"effort": "high"},
    }


def test_a_header_that_changes_with_each_request_costs_no_reuse():
    question = {"role": "user", "content": [{"type": "text", "text": "Read a.txt"}]}
    history, shares = [question], []
    script = Script(
        call("Read", '{"file_path": "a.txt"}', "I read it."),
        call("Read", '{ "file_path" : "b.txt"}', "I read the other."),
        final("Both are empty.", "Done."),
    )
    with scripted(script) as server:
        for turn in range(3):
            url = server.url + "/v1/messages?beta=true"
            message = httpx.post(url, json=asked(history, turn), timeout=60).raise_for_status().json()
            usage = message["usage"]
            read, computed = usage["cache_read_input_tokens"], usage["input_tokens"]
            shares.append(read / (read + computed))
            history = [*history, {"role": "assistant", "content": message["content"]}]
            if (last := message["content"][-1])["type"] == "tool_use":
                result = {"type": "tool_result", "tool_use_id": last["id"], "content": "nothing"}
                history.append({"role": "user", "content": [result]})
    assert message["content"][-1]["text"] == "Both are empty."
    assert shares[0] == 0
    assert min(shares[1:]) > 0.9, shares
    first, second, third = script.prompts
    assert second.startswith(first)
    assert third.startswith(second)
    assert "billing" not in third


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_told_in_the_very_words_that_shorten_a_conversation(stream):
    body = {"max_tokens": 100, "messages": [{"role": "user", "content": "word " * 2000}]}
    with scripted(Script(), Settings(max_context=1024, date="2025-06-28")) as server:
        refused = httpx.post(server.url + "/v1/messages", json={**body, "stream": stream}, timeout=60)
        counted = httpx.post(server.url + "/v1/messages/count_tokens", json=body, timeout=60).json()
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["type"] == "invalid_request_error"
    told = re.fullmatch(r"prompt is too long: (\d+) tokens > (\d+) maximum", error["message"])
    tokens, most = map(int, told.groups())
    assert tokens == counted["input_tokens"]
    assert most <= 1024 < tokens
