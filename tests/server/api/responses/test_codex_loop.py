"""A loop of calls as Codex sends it: the server stores nothing, but no turn computes again what was computed
before.

The requests are those that Codex was seen to send: no instructions but two developer messages, the whole
history in order, `store: false`, encrypted reasoning, a namespace, a declared search, a custom tool with a
Lark grammar.
"""

import pytest

from tests.server.api.responses.loop import prompts
from tests.server.api.responses.response_events import parsed, shape
from tests.server.fakes import call, final
from tests.server.scripted import ScriptedModel

PATCH_GRAMMAR = r"""
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?
hunk: "*** Add File: " /(.+)/ LF add_line+
add_line: "+" /(.*)/ LF
%import common.LF
"""
PATCH = "*** Begin Patch\n*** Add File: a.txt\n+hello\n*** End Patch"


def function(name, **properties):
    parameters = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"type": "function", "name": name, "description": f"{name}.", "strict": False,
            "parameters": parameters}  # fmt: skip


TEXT = {"type": "string"}
TOOLS = [
    function("exec_command", cmd=TEXT, workdir=TEXT, yield_time_ms={"type": "number"}),
    function("view_image", path=TEXT),
    {
        "type": "custom",
        "name": "apply_patch",
        "description": "Edits files.",
        "format": {"type": "grammar", "syntax": "lark", "definition": PATCH_GRAMMAR},
    },
    {
        "type": "namespace",
        "name": "multi_agent_v1",
        "description": "Other agents.",
        "tools": [function("spawn_agent", message=TEXT)],
    },
    {"type": "web_search", "external_web_access": False},
]
BODY = {
    "model": "scripted",
    "tools": TOOLS,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "client_metadata": {"x": "y"},
}
START = [
    {
        "type": "message",
        "role": "developer",
        "content": [{"type": "input_text", "text": "Be an agent. " * 60}],
    },
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "In a sandbox."}]},
    {
        "type": "message",
        "id": "msg_of_codex",
        "role": "user",
        "content": [{"type": "input_text", "text": "Write a.txt."}],
    },
]
THOUGHT = "<|channel|>analysis<|message|>{}<|end|><|start|>assistant"
SCRIPT = [
    THOUGHT.format("I look first.") + "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
    + call("exec_command", '{ "cmd": "ls" }'),
    THOUGHT.format("Now the patch.")
    + f"<|channel|>commentary to=functions.apply_patch<|message|>{PATCH}<|call|>",
    THOUGHT.format("A helper may check.")
    + "<|channel|>commentary to=multi_agent_v1.spawn_agent <|constrain|>json<|message|>"
    '{"message":"check"}<|call|>',
    final("It is written.", "All is done."),
]  # fmt: skip
CALLS = [
    (None, "exec_command", '{ "cmd": "ls" }'),
    ("apply_patch", PATCH),
    ("multi_agent_v1", "spawn_agent", '{"message":"check"}'),
]
SAMPLED = [line.replace("<|return|>", "<|end|>") for line in SCRIPT]


@pytest.fixture
def codex(client):
    """Send one turn with new items.  Returns the streamed events."""
    history = []

    def turn(*news):
        history.extend(news)
        with client.http.stream("POST", "/v1/responses", json={**BODY, "input": history}) as answer:
            assert answer.status_code == 200, answer.read()
            assert "web_search" in answer.headers["warning"]
            events = parsed(answer.iter_lines())
        assert events[-1]["type"] == "response.completed"
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        history.extend({key: value for key, value in item.items() if key != "status"} for item in done)
        return events[-1]["response"]

    turn.history = history
    return turn


def output_of(item, text):
    return {
        "type": f"{item['type']}_output",
        "id": "fco_of_codex",
        "call_id": item["call_id"],
        "output": text,
    }


def test_each_turn_begins_where_the_one_before_ended(client, codex):
    client.server.script.add(*SCRIPT)
    response = codex(*START)
    for i, result in enumerate(("b.txt", "Done!", "Good.")):
        assert shape(response["output"])[-1] == CALLS[i]
        computed = response["usage"]["input_tokens"] + response["usage"]["output_tokens"]
        response = codex(output_of(response["output"][-1], result))
        cached = response["usage"]["input_tokens_details"]["cached_tokens"]
        # Whole pages; and of what was sampled last nothing is known to the cache: it was never read.
        assert cached > computed - 1 - ScriptedModel.page_size
    prompt = prompts(client)[-1]
    assert prompt.endswith(
        f"<|start|>assistant{SAMPLED[0]}"
        "<|start|>functions.exec_command to=assistant<|channel|>commentary<|message|>b.txt<|end|>"
        f"<|start|>assistant{SAMPLED[1]}"
        "<|start|>functions.apply_patch to=assistant<|channel|>commentary<|message|>Done!<|end|>"
        f"<|start|>assistant{SAMPLED[2]}"
        "<|start|>multi_agent_v1.spawn_agent to=assistant<|channel|>commentary<|message|>Good.<|end|>"
        "<|start|>assistant"
    )


def test_after_an_answer_all_before_its_first_thought_is_still_cached(client, codex):
    client.server.script.add(*SCRIPT, final("Bye."))
    first = response = codex(*START)
    for result in ("b.txt", "Done!", "Good."):
        response = codex(output_of(response["output"][-1], result))
    response = codex({"role": "user", "content": [{"type": "input_text", "text": "Thanks"}]})
    cached = response["usage"]["input_tokens_details"]["cached_tokens"]
    assert cached > first["usage"]["input_tokens"] - ScriptedModel.page_size
    assert "I look first." not in prompts(client)[-1]  # as in training


def test_a_compaction_has_no_tools_and_the_same_history(client, codex):
    client.server.script.add(SCRIPT[0], final("A summary."))
    first = codex(*START)
    history = [*codex.history, output_of(first["output"][-1], "b.txt")]
    body = {**BODY, "tools": [], "input": [*history, {"role": "user", "content": "Sum it up."}]}
    with client.http.stream("POST", "/v1/responses", json=body) as answer:
        assert shape(parsed(answer.iter_lines())[-1]["response"]["output"]) == [
            ("final_answer", "A summary.")
        ]
    assert '{ "cmd": "ls" }' in prompts(client)[-1]
