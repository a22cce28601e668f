"""Whatever a body contains, the answer is 200 or a 4xx in OpenAI's format: never 422 or 5xx.

Nothing is left running.
"""

import json
from functools import cache
from pathlib import Path

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.fakes import final, live

ROOT = Path(__file__).parents[3]

CHAT = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "A function.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "a": {"enum": ["x", "y"]},
                        "b": {"type": "array", "items": {"type": "integer"}},
                    },
                },
                "strict": True,
            },
        }
    ],
    "tool_choice": "auto",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"c": {"type": "string"}}}},
    },
    "temperature": 1,
    "n": 1,
    "stop": ["zz"],
    "logit_bias": {"5": 1},
    "logprobs": True,
    "top_logprobs": 1,
    "stream_options": {"include_usage": True},
    "reasoning_effort": "low",
    "max_tokens": 5,
    "seed": 1,
}
COMPLETION = {
    "model": "tiny",
    "prompt": ["a", "b"],
    "max_tokens": 3,
    "n": 1,
    "best_of": 1,
    "echo": True,
    "logprobs": 1,
    "logit_bias": {"5": 1},
    "stop": "z",
}  # fmt: skip
MESSAGES = {
    "model": "tiny",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "gs1.AAAA"},
                {"type": "tool_use", "id": "t_1", "name": "f", "input": {"a": [1, {"b": None}]}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t_1", "content": "1", "is_error": True},
                {"type": "document", "title": "t", "source": {"type": "text", "data": "d"}},
            ],
        },
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 5, "display": "omitted"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "stop_sequences": ["zz"],
    "temperature": 1,
    "top_k": 3,
}
ITEMS = [
    {"role": "developer", "content": "Be brief."},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
    {
        "type": "reasoning",
        "id": "rs_1",
        "content": [{"type": "reasoning_text", "text": "hm"}],
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "gs1.AAAA",
    },
    {"role": "assistant", "phase": "commentary", "content": [{"type": "output_text", "text": "Wait."}]},
    {"type": "function_call", "call_id": "c_1", "namespace": "s", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c_1", "output": [{"type": "input_text", "text": "1"}]},
    {"type": "custom_tool_call", "call_id": "c_2", "name": "patch", "input": "x"},
    {"type": "custom_tool_call_output", "call_id": "c_2", "output": "1"},
    {
        "type": "shell_call",
        "call_id": "c_3",
        "action": {"commands": ["ls"], "timeout_ms": 5, "max_output_length": 9},
    },
    {
        "type": "shell_call_output",
        "call_id": "c_3",
        "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
    },
    {"type": "local_shell_call", "call_id": "c_4", "action": {"type": "exec", "command": ["ls"], "env": {}}},
    {"type": "local_shell_call_output", "id": "c_4", "output": "a"},
    {"type": "apply_patch_call", "call_id": "c_5", "operation": {"type": "delete_file", "path": "a"}},
    {"type": "apply_patch_call_output", "call_id": "c_5", "status": "completed", "output": "done"},
]
RESPONSE = {
    "model": "tiny",
    "instructions": "Be kind.",
    "input": ITEMS,
    "tools": [
        {"type": "function", "name": "f", "strict": True, "parameters": {"type": "object", "properties": {}}},
        {"type": "namespace", "name": "s", "description": "d", "tools": [{"type": "function", "name": "f"}]},
        {
            "type": "custom",
            "name": "patch",
            "format": {"type": "grammar", "syntax": "regex", "definition": "a+"},
        },
        {"type": "shell"},
        {"type": "local_shell"},
        {"type": "apply_patch"},
        {"type": "web_search"},
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "f", "namespace": "s"}],
    },
    "text": {
        "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}},
        "verbosity": "low",
    },
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
    "metadata": {"a": "b"},
    "conversation": None,
    "previous_response_id": None,
    "max_output_tokens": 5,
    "max_tool_calls": 2,
    "structured_outputs": None,
    "cache_salt": "s",
    "bad_words": None,
    "prompt_logprobs": None,
    "return_token_ids": True,
    "top_logprobs": 1,
    "background": False,
    "store": True,
    "user": "u",
}
BODIES = {
    "/v1/responses": RESPONSE,
    "/v1/responses/input_tokens": RESPONSE,
    "/v1/conversations": {"items": ITEMS, "metadata": {"a": "b"}},
    "/v1/messages": MESSAGES,
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/tokenize": {"prompt": "hi"},
}

strange = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**30, 1e308, -0.0]),
    st.text(max_size=8),
    st.sampled_from(["", "<|start|>", "\x00", "functions.f", "call_1", "a" * 5000, "None"]),
    st.recursive(
        st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(
        [
            {"$ref": "#/$defs/nowhere"},
            {"$ref": "#"},
            {"type": "object", "properties": {"a": {"$ref": "#"}}},
            {"type": "string", "pattern": "(a{500}){500}"},
            {"type": ["integer", "null"], "minimum": 10**40},
            {"anyOf": []},
            {"enum": []},
        ]
    ),
)
"""Values that are invalid in most places."""

SLOWLY = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def places(value, path=()):
    """The paths of all parts of a JSON value; the whole value is first."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from places(item, (*path, i))


def replaced(value, path, by):
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@st.composite
def spoilt(draw):
    """A path, and a body for it in which one or two parts were replaced."""
    path = draw(st.sampled_from(sorted(BODIES)))
    body = BODIES[path]
    for _ in range(draw(st.integers(1, 2))):
        if isinstance(body, dict | list):
            body = replaced(body, draw(st.sampled_from(list(places(body)))), draw(strange))
    return path, body


@cache
def client():
    return httpx.Client(timeout=30)


def check(answer):
    assert answer.status_code in (200, 400, 404, 413), answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error.keys() in ({"message", "type", "param", "code"}, {"message", "type"})
        assert isinstance(error["message"], str)
        for leak in ("Traceback", str(ROOT), "site-packages", "pydantic", " at 0x"):
            assert leak not in error["message"]


@SLOWLY
@given(spoilt())
def test_a_body_with_something_strange_in_it(tiny_tokenizer, path_and_body):
    path, body = path_and_body
    with live(tiny_tokenizer, final("Hello")) as server:
        check(
            client().post(
                server.url + path, content=json.dumps(body), headers={"content-type": "application/json"}
            )
        )
        assert server.worker.wait_until_idle()


@SLOWLY
@given(st.sampled_from(sorted(BODIES)), st.binary(max_size=30), st.integers(0, 10**6))
def test_a_body_with_bytes_in_it_that_are_not_its_own(tiny_tokenizer, path, noise, where):
    whole = json.dumps(BODIES[path]).encode()
    at = where % len(whole)
    with live(tiny_tokenizer, final("Hello")) as server:
        body = whole[:at] + noise + whole[at + len(noise) :]
        check(client().post(server.url + path, content=body, headers={"content-type": "application/json"}))
        assert server.worker.wait_until_idle()
