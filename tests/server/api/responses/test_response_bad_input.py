"""What POST /v1/responses refuses, and by which field's name."""

import pytest

from server.settings import Settings
from tests.server.api.responses.response_events import ADD, ask
from tests.server.api.responses.test_responses import PATCH, SPACE, SPAWN
from tests.server.fakes import final, live

USER = {"role": "user", "content": "hi"}
OUTPUT = {"type": "function_call_output", "call_id": "none", "output": "x"}
OOPS = {"type": "grammar", "syntax": "lark", "definition": "oops"}
BAD = [
    ({"input": [USER, OUTPUT]}, 400, "input[1].call_id"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, 400,
     "input[0].content[0].type"),
    ({"input": [{"role": "boss", "content": "x"}]}, 400, "input[0].role"),
    ({"input": [{"type": "invention"}]}, 400, "input[0].type"),
    ({"input": [{"type": "item_reference", "id": "msg_none"}]}, 404, "input[0].id"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, 400, "input[0].call_id"),
    ({"input": None}, 400, "input"),
    ({"input": {"role": "user"}}, 400, "input"),
    ({"input": [USER, "hi"]}, 400, "input[1]"),
    ({"conversation": 5}, 400, "conversation"),
    ({"tool_choice": {"type": 5}}, 400, "tool_choice.type"),
    ({"tool_choice": {"type": "allowed_tools", "tools": [{"name": "add"}]}}, 400,
     "tool_choice.tools[0].type"),
    ({"previous_response_id": "resp_none"}, 404, "previous_response_id"),
    ({"conversation": "conv_none"}, 404, "conversation"),
    ({"tools": [ADD, {"type": "mcp", "server_label": "x"}]}, 400, "tools[1].type"),
    ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, 400, "tools[0].type"),
    ({"tools": [{"type": "web_search_" + "a" * 100_000}]}, 400, "tools[0].type"),
    ({"tools": [ADD, ADD]}, 400, "tools[1].name"),
    ({"previous_response_id": "r", "conversation": "c"}, 400, "previous_response_id"),
    ({"tools": [{"type": "function"}]}, 400, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "a b"}]}, 400, "tools[0].name"),
    ({"tools": [SPACE, {**PATCH, "format": OOPS}]}, 400, "tools[1].format"),
    ({"tools": [{**SPACE, "tools": [{**SPAWN, "strict": True, "parameters": {"type": "array"}}]}]}, 400,
     "tools[0].tools[0].parameters"),
    ({"tool_choice": "required"}, 400, "tool_choice"),
    ({"tools": [ADD], "tool_choice": {"type": "function", "name": "sub"}}, 400, "tool_choice.name"),
    ({"tool_choice": {"type": "web_search"}}, 400, "tool_choice.type"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "strict": True,
                          "schema": {"$ref": "http://x"}}}}, 400, "text.format.schema"),
    ({"temperature": "hot"}, 400, "temperature"),
    ({"background": True, "store": False}, 400, "background"),
    ({"prompt": {"id": "p"}}, 400, "prompt"),
    ({"n": 2}, 400, "n"),
    ({"model": "other"}, 404, "model"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "param"), BAD, ids=lambda each: str(each)[:60])
def test_bad_input_is_refused_by_its_field(tiny_tokenizer, body, status, param):
    with live(tiny_tokenizer, final("ok")) as server:
        for stream in (False, True):
            error = ask(server, status, stream=stream, **body)["error"]
            assert error["param"] == param, error
            assert error["message"]
        assert not server.worker.requests


def test_unknown_fields_and_null_are_no_errors(tiny_tokenizer):
    body = dict.fromkeys(("tools", "text", "include", "reasoning", "metadata", "store", "user"), None)
    more = {"invented": {"x": 1}, "client_metadata": {}, "stream_options": {"include_obfuscation": False}}
    with live(tiny_tokenizer, final("ok")) as server:
        ask(server, **body, **more, include_more=True)
        ask(server, include=["file_search_call.results", "reasoning.encrypted_content"], truncation="auto")


def test_a_short_body_cannot_refer_to_more_than_a_body_may_have(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok"), settings=Settings(max_body_bytes=20_000)) as server:
        long = {"role": "user", "content": "x" * 9000, "id": "msg_long"}
        assert server.http.post("/v1/conversations", json={"items": [long]}).status_code == 200
        reference = {"type": "item_reference", "id": "msg_long"}
        ask(server, input=[reference], store=False)
        error = ask(server, 400, input=[reference] * 3)["error"]
        assert error["param"] == "input"
        assert "20000 bytes" in error["message"]


def test_what_the_response_repeats_is_bounded(tiny_tokenizer):
    """A running response holds its tools and instructions in memory, for minutes perhaps."""
    many = {**ADD, "parameters": {"type": "object", "properties": {}, "x": list(range(20_001))}}
    messages = [{"role": "developer", "content": "a"}] * 7000
    with live(tiny_tokenizer, final("ok")) as server:
        assert ask(server, 400, tools=[many])["error"]["param"] == "tools"
        assert ask(server, 400, instructions=messages)["error"]["param"] == "instructions"
        assert not server.worker.requests


def test_the_items_of_a_request_are_counted_with_those_that_it_continues(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr("server.api.responses.history.MAX_ITEMS", 5)
    with live(tiny_tokenizer, final("ok")) as server:
        first = ask(server, input=[USER] * 3)["id"]  # which has four items then
        ask(server, input=[USER], previous_response_id=first)
        assert ask(server, 400, input=[USER] * 2, previous_response_id=first)["error"]["param"] == "input"
        assert ask(server, 400, input=[USER] * 6)["error"]["param"] == "input"
