"""docs/responses.md tells of every field, tool and item of the SDK's types, and what it tells is so."""

import re
import typing
from pathlib import Path

import pytest
from openai.types.responses import response_create_params as sdk
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from openai.types.responses.tool_param import ToolParam

from server.api.responses.body import ResponseBody
from tests.server.fakes import final, live

PAGE = Path(__file__).parents[3] / "docs" / "responses.md"
FIELDS, TOOLS, ITEMS = "Fields of a request", "Tools", "Items of the input"


def table(heading):
    """Name → what the page says that we do with it."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| (honoured|ignored|refused) \|", section, re.MULTILINE))


def kinds(union):
    """Every value of `type` in a union of the SDK's dictionaries."""
    found = set()
    for each in typing.get_args(union):
        hint = (
            typing.get_type_hints(each, include_extras=True).get("type") if isinstance(each, type) else None
        )
        while hint is not None and typing.get_origin(hint) is not typing.Literal:
            inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
            hint = inner[0] if inner else None
        found |= set(typing.get_args(hint)) if hint is not None else set()
    return found


def fields():
    found = set()
    for params in (sdk.ResponseCreateParamsNonStreaming, sdk.ResponseCreateParamsStreaming):
        found |= set(typing.get_type_hints(params))
    return found


def test_every_field_is_told_of():
    assert set(table(FIELDS)) == fields()


def test_every_type_of_tool_is_told_of():
    assert kinds(ToolParam) >= {"function", "custom", "mcp"}
    assert set(table(TOOLS)) == kinds(ToolParam)


def test_every_type_of_item_is_told_of():
    assert kinds(ResponseInputItemParam) >= {"message", "reasoning", "item_reference"}
    assert set(table(ITEMS)) == kinds(ResponseInputItemParam)


def test_what_is_honoured_is_read():
    honoured = {name for name, what in table(FIELDS).items() if what != "ignored"}
    assert honoured <= set(ResponseBody.model_fields)


@pytest.mark.parametrize("name", [name for name, what in table(FIELDS).items() if what == "ignored"])
def test_an_ignored_field_changes_nothing(tiny_tokenizer, name):
    values = {"truncation": "auto", "user": "u", "service_tier": "flex", "prompt_cache_key": "k"}
    with live(tiny_tokenizer, final("ok")) as server:
        value = values.get(name, "x" if name == "safety_identifier" else {})
        answer = server.http.post("/v1/responses", json={"input": "hi", name: value})
        assert answer.status_code == 200, answer.text
        plain = server.http.post("/v1/responses", json={"input": "hi"})
        assert plain.status_code == 200
        with_it, without = server.worker.requests
        assert with_it.prompt == without.prompt
        assert with_it.sampling == without.sampling


@pytest.mark.parametrize("name", [name for name, what in table(FIELDS).items() if what == "refused"])
def test_a_refused_field_is_refused_by_name(tiny_tokenizer, name):
    with live(tiny_tokenizer, final("ok")) as server:
        answer = server.http.post("/v1/responses", json={"input": "hi", name: {"id": "x"}})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize(("kind", "what"), sorted(table(TOOLS).items()))
def test_each_type_of_tool_is_what_the_page_says(tiny_tokenizer, kind, what):
    function = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
    tool = {"type": kind}
    if kind in ("function", "custom", "namespace"):
        tool["name"] = "f"
    if kind == "namespace":
        tool["tools"] = [function]
    with live(tiny_tokenizer, final("ok")) as server:
        answer = server.http.post("/v1/responses", json={"input": "hi", "tools": [tool]})
        if what == "refused":
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools[0].type")
            return
        assert answer.status_code == 200
        told = "# Tools" in server.tokenizer.decode(server.worker.requests[0].prompt)
        assert told == (what == "honoured")
        assert ("warning" in answer.headers) == (what == "ignored")


@pytest.mark.parametrize(("kind", "what"), sorted(table(ITEMS).items()))
def test_each_type_of_item_is_what_the_page_says(tiny_tokenizer, kind, what):
    with live(tiny_tokenizer, final("ok")) as server:
        answer = server.http.post("/v1/responses", json={"input": ["x"], "store": False})
        assert answer.status_code == 400
        answer = server.http.post("/v1/responses", json={"input": [{"type": kind}], "store": False})
        if what == "refused":
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[0].type")
        elif what == "ignored":
            assert answer.status_code == 200
            assert "assistant<" not in server.tokenizer.decode(server.worker.requests[0].prompt)
        elif kind != "reasoning":
            assert answer.status_code == 400  # it lacks what such an item needs
            assert answer.json()["error"]["param"].startswith("input[0].")
