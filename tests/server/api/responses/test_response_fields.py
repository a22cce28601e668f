"""docs/responses.md lists every field, tool and item of the SDK's types, and what it says is true."""

import re
import typing
from pathlib import Path

import pytest
from openai.types.conversations import (
    conversation_create_params,
    conversation_update_params,
    item_create_params,
    item_list_params,
)
from openai.types.responses import (
    ApplyPatchToolParam,
    CustomToolParam,
    FunctionShellToolParam,
    FunctionToolParam,
    ResponseFormatTextJSONSchemaConfigParam,
    ToolChoiceAllowedParam,
    input_item_list_params,
    input_token_count_params,
    response_retrieve_params,
)
from openai.types.responses import response_create_params as sdk
from openai.types.responses.namespace_tool_param import NamespaceToolParam
from openai.types.responses.response_input_content_param import ResponseInputContentParam
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from openai.types.responses.response_output_message_param import Content
from openai.types.responses.response_text_config_param import ResponseTextConfigParam
from openai.types.responses.tool_param import ToolParam
from openai.types.shared_params import Reasoning

from server.api.responses.body import ResponseBody
from tests.server.fakes import final, live

PAGE = Path(__file__).parents[4] / "docs" / "responses.md"
FIELDS, TOOLS, ITEMS = "Fields of a request", "Tools", "Items of the input"
PARAMETERS = "Responses by id, and conversations"
INSIDE, CHOICES = "Inside of fields", "Values of tool_choice"
INCLUDE, PARTS, OF_ITEMS = "Values of include", "Content parts", "Fields of items"
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


def table(heading):
    """Name → what the page says about it."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| (honoured|ignored|refused) \|", section, re.MULTILINE))


def kinds(union):
    """All values of `type` in a union of the SDK's dictionaries."""
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
    tool = {"type": kind}
    if kind in ("function", "custom", "namespace"):
        tool["name"] = "f"
    if kind == "namespace":
        tool["tools"] = [FUNCTION]
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


INNER = {
    "shell": FunctionShellToolParam,
    "apply_patch": ApplyPatchToolParam,
    "json_schema": ResponseFormatTextJSONSchemaConfigParam,
    "allowed_tools": ToolChoiceAllowedParam,
    "reasoning": Reasoning,
    "text": ResponseTextConfigParam,
    "stream_options": sdk.StreamOptions,
    "function": FunctionToolParam,
    "custom": CustomToolParam,
    "namespace": NamespaceToolParam,
}


def words(hint):
    """All values of the literals in a type."""
    if typing.get_origin(hint) is typing.Literal:
        return set(typing.get_args(hint))
    return {word for arg in typing.get_args(hint) for word in words(arg)}


def create(name):
    return typing.get_type_hints(sdk.ResponseCreateParamsNonStreaming)[name]


def test_every_field_inside_of_one_is_told_of():
    found = {f"{name}.{key}" for name, type in INNER.items() for key in typing.get_type_hints(type)}
    assert set(table(INSIDE)) == {each for each in found if not each.endswith(".type")}


def test_every_tool_choice_value_of_include_and_part_of_a_content_is_told_of():
    assert set(table(CHOICES)) == kinds(create("tool_choice"))
    assert set(table(INCLUDE)) == words(create("include"))
    parts = kinds(ResponseInputContentParam) | kinds(Content)
    assert set(table(PARTS)) == parts


def test_every_value_of_the_sdks_is_taken(tiny_tokenizer):
    reasoning = typing.get_type_hints(Reasoning)
    bodies = [{"reasoning": {key: word}} for key, hint in reasoning.items() for word in words(hint)]
    bodies += [{"include": [word]} for word in words(create("include"))]
    verbosity = typing.get_type_hints(ResponseTextConfigParam)["verbosity"]
    bodies += [{"text": {"verbosity": word}} for word in words(verbosity)]
    bodies += [{name: word} for name in ("truncation", "service_tier") for word in words(create(name))]
    assert len(bodies) > 25
    with live(tiny_tokenizer, final("ok")) as server:
        for body in bodies:
            answer = server.http.post("/v1/responses", json={"input": "hi", **body})
            assert answer.status_code == 200, (body, answer.text)


@pytest.mark.parametrize("name", [name for name, what in table(INSIDE).items() if what == "ignored"])
def test_what_is_ignored_inside_of_a_field_changes_nothing(tiny_tokenizer, name):
    field, key = name.split(".")
    with live(tiny_tokenizer, final("ok")) as server:
        for value in ({}, {key: "low" if key == "verbosity" else {"strange": []}}):
            if field in ("function", "custom", "shell", "apply_patch"):
                tool = FUNCTION if field == "function" else {"type": field, "name": "f"}
                body = {"tools": [{**tool, **value}]}
            else:
                body = {field: value}
            answer = server.http.post("/v1/responses", json={"input": "hi", **body})
            assert answer.status_code == 200, answer.text
        without, with_it = server.worker.requests
        assert with_it.prompt == without.prompt


@pytest.mark.parametrize(("kind", "what"), sorted(table(CHOICES).items()))
def test_each_tool_choice_is_what_the_page_says(tiny_tokenizer, kind, what):
    tools = [FUNCTION, {"type": "custom", "name": "c"}, {"type": "shell"}, {"type": "apply_patch"}]
    choice = {"type": kind, "name": {"function": "f", "custom": "c"}.get(kind, kind)}
    if kind == "allowed_tools":
        choice |= {"mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    with live(tiny_tokenizer, final("ok")) as server:
        answer = server.http.post(
            "/v1/responses", json={"input": "hi", "tools": tools, "tool_choice": choice}
        )
        if what == "refused":
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tool_choice.type")
        else:
            assert answer.status_code == 200, answer.text
            assert answer.json()["tool_choice"]["type"] == kind


@pytest.mark.parametrize(("kind", "what"), sorted(table(PARTS).items()))
def test_each_part_of_a_content_is_what_the_page_says(tiny_tokenizer, kind, what):
    part = {"type": kind, "refusal" if kind == "refusal" else "text": "Words."}
    with live(tiny_tokenizer, final("ok")) as server:
        answer = server.http.post("/v1/responses", json={"input": [{"role": "user", "content": [part]}]})
        if what == "refused":
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (400, "input[0].content[0].type")
            assert kind in error["message"]
        else:
            assert "Words." in server.tokenizer.decode(server.worker.requests[0].prompt)


def of_items():
    """Field → the types of honoured items that have it."""
    honoured = {kind for kind, what in table(ITEMS).items() if what == "honoured"}
    found = {}
    for params in typing.get_args(ResponseInputItemParam):
        if (kind := kinds(typing.Union[params, int]) & honoured) and kind != {"item_reference"}:  # noqa: UP007
            for name in typing.get_type_hints(params):
                found.setdefault(name, set()).update(kind)
    return found


def test_every_field_of_an_item_is_told_of():
    found = of_items()
    assert found["phase"] == {"message"}
    assert set(table(OF_ITEMS)) == set(found) - {"type"}


ITEM = {
    "message": {"role": "user", "content": "x"},
    "reasoning": {"id": "rs_x", "summary": []},
    "function_call": {"call_id": "a", "name": "f", "arguments": "{}"},
    "custom_tool_call": {"call_id": "b", "name": "c", "input": "x"},
    "local_shell_call": {"call_id": "c", "action": {"command": ["ls"]}},
    "shell_call": {"call_id": "d", "action": {"commands": ["ls"]}},
    "apply_patch_call": {"call_id": "e", "operation": {"type": "delete_file", "path": "a"}},
    "function_call_output": {"call_id": "a", "output": "x"},
    "custom_tool_call_output": {"call_id": "b", "output": "x"},
    "local_shell_call_output": {"id": "c", "output": "x"},
    "shell_call_output": {"call_id": "d", "output": [{"stdout": "x", "outcome": {"type": "timeout"}}]},
    "apply_patch_call_output": {"call_id": "e", "status": "completed"},
}


@pytest.mark.parametrize("name", [name for name, what in table(OF_ITEMS).items() if what == "ignored"])
def test_an_ignored_field_of_an_item_changes_nothing(tiny_tokenizer, name):
    assert {*ITEM, "item_reference"} == {kind for kind, what in table(ITEMS).items() if what == "honoured"}
    items = [{"type": kind, **item} for kind, item in ITEM.items()]
    strange = [{**item, **({name: {"x": 1}} if item["type"] in of_items()[name] else {})} for item in items]
    assert strange != items
    with live(tiny_tokenizer, final("ok")) as server:
        for sent in (items, strange):
            answer = server.http.post("/v1/responses", json={"input": sent, "store": False})
            assert answer.status_code == 200, answer.text
        without, with_it = server.worker.requests
        assert with_it.prompt == without.prompt


@pytest.mark.parametrize(
    "environment", [{"type": "container_auto"}, {"type": "container_reference"}, "local"]
)
def test_a_shell_in_a_container_is_refused_and_told_what_to_do(tiny_tokenizer, environment):
    """OpenAI would run it.  Accepted here, its calls would come to a client that cannot run them."""
    with live(tiny_tokenizer, final("ok")) as server:
        tools = [{"type": "shell", "environment": environment}]
        answer = server.http.post("/v1/responses", json={"input": "hi", "tools": tools})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "tools[0].environment")
        assert "yourself" in error["message"]
        hosted = [{"type": "computer_use_preview", "environment": "browser"}]
        answer = server.http.post("/v1/responses", json={"input": "hi", "tools": hosted})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools[0].type")


def test_the_model_is_told_of_the_skills_of_a_local_shell(tiny_tokenizer):
    skill = {"name": "charts", "description": "Draws charts.", "path": "/skills/charts"}
    tool = {"type": "shell", "environment": {"type": "local", "skills": [skill]}}
    with live(tiny_tokenizer, final("ok")) as server:
        answer = server.http.post("/v1/responses", json={"input": "hi", "tools": [tool]})
        assert answer.status_code == 200, answer.text
        assert answer.json()["tools"] == [tool]
        prompt = server.tokenizer.decode(server.worker.requests[0].prompt)
    assert "charts (/skills/charts): Draws charts." in prompt


def test_every_parameter_of_the_other_endpoints_is_told_of():
    found = set()
    for params in (
        response_retrieve_params.ResponseRetrieveParamsStreaming,
        input_item_list_params.InputItemListParams,
        input_token_count_params.InputTokenCountParams,
        conversation_create_params.ConversationCreateParams,
        conversation_update_params.ConversationUpdateParams,
        item_create_params.ItemCreateParams,
        item_list_params.ItemListParams,
    ):
        found |= set(typing.get_type_hints(params))
    assert set(table(PARAMETERS)) == found - fields()


def test_their_ignored_parameters_change_nothing(tiny_tokenizer):
    ignored = "include=reasoning.encrypted_content&include=x&include_obfuscation=true"
    with live(tiny_tokenizer, final("ok")) as server:
        id = server.http.post("/v1/responses", json={"input": "hi"}).json()["id"]
        for path in (f"/v1/responses/{id}", f"/v1/responses/{id}/input_items"):
            assert server.http.get(f"{path}?{ignored}").json() == server.http.get(path).json()
        counts = [
            server.http.post("/v1/responses/input_tokens", json={"input": "hi", **more}).json()
            for more in ({}, {"personality": "friendly"})
        ]
        assert counts[0] == counts[1]
