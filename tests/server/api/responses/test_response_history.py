"""However a client sends our own items back, the prompt has the sampled tokens."""

import json

import pytest

from server.settings import Settings
from tests.server.api.responses.loop import (
    ASK,
    LOOP,
    SEAL,
    SPELLED,
    THANKS,
    Client,
    prompts,
    references,
    result,
)
from tests.server.api.responses.response_events import ADD, shape
from tests.server.fakes import call, final
from tests.server.scripted import Script, scripted

WANTED = [
    "<|start|>user<|message|>1 and 1?<|end|><|start|>assistant",
    "<|start|>user<|message|>1 and 1?<|end|><|start|>assistant"
    f"{call('add', SPELLED, 'I add.')}"
    "<|start|>functions.add to=assistant<|channel|>commentary<|message|>2<|end|><|start|>assistant",
    "<|start|>user<|message|>1 and 1?<|end|><|start|>assistant"
    f"{call('add', SPELLED)}"
    "<|start|>functions.add to=assistant<|channel|>commentary<|message|>2<|end|><|start|>assistant"
    "<|channel|>final<|message|>It is 2.<|end|>"
    "<|start|>user<|message|>Thanks<|end|><|start|>assistant",
]


ROUTES = {
    "whole": lambda items: items,
    "references": references,
    "references without a type": lambda items: [{"id": item["id"]} for item in items],
    "without thoughts": lambda items: [item for item in items if item["type"] != "reasoning"],
    "only the id of a thought": lambda items: [
        {"type": "reasoning", "id": item["id"], "summary": []} if item["type"] == "reasoning" else item
        for item in items
    ],
    "without ids": lambda items: [
        {key: value for key, value in item.items() if key not in ("id", "status")} for item in items
    ],
    "without phases": lambda items: [
        {key: value for key, value in item.items() if key != "phase"} for item in items
    ],
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("more", [{}, {"include": SEAL, "store": False}], ids=["kept", "sealed"])
def test_a_loop_sees_what_was_sampled_whatever_way_it_comes_back(client, route, more):
    if more and "only the id" in route:
        pytest.skip("what is not kept has no id to be found by")
    if more and "references" in route:
        pytest.skip("what is not kept cannot be referred to")
    if more and route == "without thoughts":
        pytest.skip("what is not kept is not known by its call's id")
    client.server.script.add(*LOOP)
    back = ROUTES[route]
    first = client.ask(input=[ASK], **more)
    history = [ASK, *back(first["output"]), result(first)]
    second = client.ask(input=history, **more)
    history += back(second["output"])
    client.ask(input=[*history, THANKS], **more)
    assert prompts(client) == WANTED
    assert second["usage"]["input_tokens_details"]["cached_tokens"] > first["usage"]["input_tokens"] - 32


def test_previous_responses_and_conversations_give_the_same_prompts(client):
    client.server.script.add(*LOOP, *LOOP)
    first = client.ask(input="1 and 1?", instructions=None)
    second = client.ask(input=[result(first)], previous_response_id=first["id"])
    client.ask(input=[THANKS], previous_response_id=second["id"])
    assert prompts(client) == WANTED
    conversation = client.http.post("/v1/conversations", json={"metadata": {"a": "b"}}).json()["id"]
    first = client.ask(input=[ASK], conversation=conversation)
    assert first["conversation"] == {"id": conversation}
    client.ask(input=[result(first)], conversation={"id": conversation})
    client.ask(input=[THANKS], conversation=conversation)
    assert prompts(client)[3:] == WANTED
    page = client.get(f"/v1/conversations/{conversation}/items?limit=3&order=asc")
    assert [item["type"] for item in page["data"]] == ["message", "reasoning", "function_call"]
    assert page["has_more"]
    rest = client.get(f"/v1/conversations/{conversation}/items?order=asc&after={page['last_id']}")
    assert [item["type"] for item in rest["data"]][:2] == ["function_call_output", "reasoning"]
    assert not rest["has_more"]


def test_a_chat_and_a_response_of_one_conversation_render_the_same_prompt(client):
    client.server.script.add(*LOOP, *LOOP)
    first = client.ask(input=[ASK])
    client.ask(input=[ASK, *first["output"], result(first)])
    chat_tool = {
        "type": "function",
        "function": {key: ADD[key] for key in ("name", "description", "parameters")},
    }
    call_item = first["output"][-1]
    messages = [
        ASK,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call_item["call_id"],
                    "type": "function",
                    "function": {"name": "add", "arguments": SPELLED},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call_item["call_id"], "content": "2"},
    ]
    for cut in (1, 3):
        answer = client.http.post(
            "/v1/chat/completions", json={"messages": messages[:cut], "tools": [chat_tool]}
        )
        assert answer.status_code == 200
    asked = client.server.script.prompts
    assert asked[0] == asked[2]
    assert asked[1] == asked[3]


def test_seals_and_a_store_outlive_a_restart(tmp_path):
    settings = Settings(date="2025-06-28", store=tmp_path / "store.db", seal_key_file=tmp_path / "key")
    with scripted(Script(*LOOP), settings) as server:
        first = Client(server).ask(input=[ASK], include=SEAL)
    sealed = {**first["output"][0], "content": [], "id": "rs_elsewhere"}
    with scripted(Script(*LOOP[1:], *LOOP[1:]), settings) as server:
        client = Client(server)
        client.ask(input=[result(first)], previous_response_id=first["id"])
        client.ask(input=[ASK, sealed, first["output"][1], result(first)], store=False)
        assert prompts(client) == [WANTED[1], WANTED[1]]
        assert client.get(f"/v1/responses/{first['id']}") == first
    (tmp_path / "key").unlink()
    with scripted(Script(final("ok")), Settings(date="2025-06-28", seal_key_file=tmp_path / "key")) as server:
        client = Client(server)
        client.ask(input=[ASK, sealed, first["output"][1], result(first)], store=False)
        assert "I add." not in prompts(client)[0]
        assert 'gptoss_seals_total{outcome="refused"} 1.0' in client.http.get("/metrics").text


def test_input_tokens_counts_what_an_answer_would_read(client):
    client.server.script.add(*LOOP)
    counted = client.http.post("/v1/responses/input_tokens", json={"input": [ASK], "tools": [ADD]}).json()
    assert counted == {
        "object": "response.input_tokens",
        "input_tokens": client.ask(input=[ASK])["usage"]["input_tokens"],
    }


def test_too_long_a_prompt_says_so_in_the_word_that_clients_know():
    script = Script(final("x"), final("x"))
    with scripted(script, Settings(date="2025-06-28", max_context=512)) as server:
        for stream in (False, True):
            error = Client(server).ask(400, input="word " * 2000, stream=stream)["error"]
            assert (error["code"], error["param"]) == ("context_length_exceeded", "input")


def test_a_schema_and_tools_hold_together(client):
    schema = {
        "type": "object",
        "properties": {"a": {"const": 7}},
        "required": ["a"],
        "additionalProperties": False,
    }
    text = {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": schema}}
    client.server.script.add(call("add", '{"a": 1}', "Hm."), final('{"a":7}', "Hm."))
    first = client.ask(input=[ASK], text=text)
    second = client.ask(input=[ASK, *first["output"], result(first)], text=text)
    assert shape(first["output"])[-1] == (None, "add", '{"a": 1}')
    assert json.loads(shape(second["output"])[-1][1]) == {"a": 7}
    assert (
        "# Response Formats" in prompts(client)[0] or "# Response Formats" in client.server.script.prompts[0]
    )
