"""Whatever a body contains, and whatever the model samples, Anthropic's clients can read the answer.

An error is a 4xx in Anthropic's format.  A stream follows the rules of its events, and adds up to the whole
answer.  Nothing is left running.
"""

import json

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.api.messages.anthropic_form import HI, joined
from tests.server.api.test_fuzzed_bodies import SLOWLY, client, places, replaced, strange
from tests.server.fakes import final, live

BODY = {
    "model": "tiny",
    "max_tokens": 5,
    "stream": False,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cch=1f3;"},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "system", "content": "Mind the gap."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "gs1.AAAA"},
                {"type": "redacted_thinking", "data": "gs1.AAAA"},
                {"type": "text", "text": "Wait."},
                {"type": "tool_use", "id": "t_1", "name": "f", "input": {"a": [1, {"b": None}]}},
                {"type": "tool_use", "id": "t_2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t_1", "content": "1", "is_error": True},
                {
                    "type": "tool_result",
                    "tool_use_id": "t_2",
                    "content": [
                        {"type": "text", "text": "1"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "AA"},
                        },
                        {"type": "tool_reference", "tool_name": "f"},
                    ],
                },
                {"type": "document", "title": "t", "source": {"type": "text", "data": "d"}},
                {
                    "type": "search_result",
                    "title": "t",
                    "source": "s",
                    "content": [{"type": "text", "text": "r"}],
                },
            ],
        },
    ],
    "tools": [
        {"name": "f", "input_schema": {"type": "object"}, "strict": True},
        {"type": "custom", "name": "g", "description": "d", "input_schema": {}, "defer_loading": True},
    ],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 5, "display": "omitted"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["zz"],
    "temperature": 1,
    "top_p": 0.5,
    "top_k": 3,
    "thread": None,
    "compaction": None,
    "mcp_servers": [],
    "container": None,
}
PATHS = ["/v1/messages", "/v1/messages?beta=true", "/v1/messages/count_tokens"]
KINDS = ("invalid_request_error", "not_found_error", "request_too_large")


@st.composite
def spoilt(draw):
    """The body with one to three parts replaced."""
    body = BODY
    for _ in range(draw(st.integers(1, 3))):
        if isinstance(body, dict | list):
            body = replaced(body, draw(st.sampled_from(list(places(body)))), draw(strange))
    return body


@pytest.mark.parametrize("path", PATHS)
def test_the_body_that_is_spoilt_below_is_a_good_one(path, tiny_tokenizer):
    with live(tiny_tokenizer, final("{}")) as server:
        answer = client().post(server.url + path, json=BODY)
    assert answer.status_code == 200, answer.text


@SLOWLY
@given(st.sampled_from(PATHS), spoilt())
def test_a_strange_body_is_answered_or_refused_in_anthropics_shape(tiny_tokenizer, path, body):
    with live(tiny_tokenizer, final("{}")) as server:
        headers = {"content-type": "application/json"}
        answer = client().post(server.url + path, content=json.dumps(body), headers=headers)
        assert answer.status_code in (200, 400, 404, 413), answer.text
        if answer.status_code != 200:
            error = answer.json()
            assert error.keys() == {"type", "error", "request_id"}
            assert error["type"] == "error"
            assert error["error"]["type"] in KINDS
            assert isinstance(error["error"]["message"], str)
            assert error["request_id"] == answer.headers["request-id"]
        assert server.worker.wait_until_idle()


PIECES = st.sampled_from(
    ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>", "assistant", "analysis",
     "final", "commentary", " to=functions.get_weather", " to=functions.nobody", "json",
     '{"city": "Zü', '"}', "🦜", "\x00"]
)  # fmt: skip


@SLOWLY
@given(st.lists(PIECES, max_size=14).map("".join), st.sampled_from(["<|return|>", "<|call|>", ""]))
def test_any_tokens_make_a_stream_that_anthropics_own_types_take(tiny_tokenizer, said, end):
    types = pytest.importorskip("anthropic.types")
    event_type = pydantic.TypeAdapter(types.RawMessageStreamEvent)
    body = {"model": "tiny", "max_tokens": 500, "messages": HI}  # with tools, a mask forbids most of it
    together = tiny_tokenizer.encode_with_specials(said + end) or tiny_tokenizer.encode_with_specials("a")
    with live(tiny_tokenizer, [together]) as server:
        whole = client().post(server.url + "/v1/messages", json=body)
        stream = client().post(server.url + "/v1/messages", json={**body, "stream": True})
        assert server.worker.wait_until_idle()
    assert whole.status_code == stream.status_code == 200, whole.text + stream.text
    types.Message.model_validate_json(whole.text, strict=True)
    events = [json.loads(line[6:]) for line in stream.text.split("\n") if line.startswith("data: ")]
    for event in events:
        event_type.validate_python(event)
    if whole.json()["stop_reason"] != "max_tokens":  # there the arguments of a call may be cut too
        assert nameless(joined(events)) == nameless(whole.json())


def nameless(message):
    """A message without the parts that differ each time."""
    changing = ("signature", "id")
    blocks = [
        {key: value for key, value in each.items() if key not in changing} for each in message["content"]
    ]
    return [blocks, message["stop_reason"], message["stop_sequence"], message["usage"]["output_tokens"]]
