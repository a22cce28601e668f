"""Whatever way our own items come back, the model sees the very tokens that it said."""

import json
import time

import pytest

from server.settings import Settings
from tests.server.api.responses.response_events import ADD, parsed, shape
from tests.server.fakes import call, final
from tests.server.scripted import Script, scripted

SPELLED = '{ "a" :1 }'
"""Arguments as nobody else would write them: a rendering of the same object has other tokens."""

LOOP = [call("add", SPELLED, "I add."), final("It is 2.", "So."), final("Bye.")]
SEAL = ["reasoning.encrypted_content"]
ASK = {"role": "user", "content": "1 and 1?"}
THANKS = {"role": "user", "content": "Thanks"}


class Client:
    def __init__(self, server):
        import httpx

        self.server = server
        self.http = httpx.Client(base_url=server.url, timeout=60)

    def ask(self, expect=200, headers=None, **body):
        body = {"tools": [ADD], **body}
        answer = self.http.post("/v1/responses", json=body, headers=headers)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def get(self, path, expect=200, **options):
        answer = self.http.get(path, **options)
        assert answer.status_code == expect, answer.text
        return answer.json()


@pytest.fixture
def client():
    script = Script()
    with scripted(script) as server:
        yield Client(server)


def prompts(client):
    return [prompt.split("<|end|>", 2)[2] for prompt in client.server.script.prompts]


def result(response, text="2"):
    return {"type": "function_call_output", "call_id": response["output"][-1]["call_id"], "output": text}


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


def references(items):
    return [{"type": "item_reference", "id": item["id"]} for item in items]


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


def test_what_is_not_kept_is_nowhere(client):
    client.server.script.add(*LOOP)
    first = client.ask(input=[ASK], store=False)
    client.get(f"/v1/responses/{first['id']}", 404)
    error = client.ask(404, input=[result(first)], previous_response_id=first["id"])["error"]
    assert (error["param"], error["code"]) == ("previous_response_id", "response_not_found")
    client.ask(404, input=references(first["output"]))
    assert "gptoss_store_objects 0.0" in client.http.get("/metrics").text


def test_one_keys_items_are_not_found_by_another():
    settings = Settings(date="2025-06-28", api_key=("alice", "bob"))
    with scripted(Script(*LOOP), settings) as server:
        client = Client(server)
        alice, bob = ({"authorization": f"Bearer {name}"} for name in ("alice", "bob"))
        first = client.ask(input=[ASK], headers=alice, include=SEAL)
        client.get(f"/v1/responses/{first['id']}", headers=alice)
        client.get(f"/v1/responses/{first['id']}", 404, headers=bob)
        client.ask(404, headers=bob, input=references(first["output"]))
        client.ask(404, headers=bob, input="x", previous_response_id=first["id"])
        assert client.http.delete(f"/v1/responses/{first['id']}", headers=bob).status_code == 404
        bare = {**first["output"][0], "content": [], "summary": []}
        client.ask(headers=bob, input=[ASK, bare])
        assert "I add." not in prompts(client)[-1]


def test_a_response_is_listed_and_deleted(client):
    client.server.script.add(*LOOP)
    first = client.ask(
        input=[ASK, {"role": "user", "content": [{"type": "input_text", "text": "b"}], "id": "msg_1"}]
    )
    assert client.get(f"/v1/responses/{first['id']}") == first
    items = client.get(f"/v1/responses/{first['id']}/input_items")["data"]
    assert items[0]["id"] == "msg_1"
    assert items[1]["content"] == [{"type": "input_text", "text": "1 and 1?"}]
    client.get(f"/v1/responses/{first['id']}/input_items?limit=0", 400)
    deleted = client.http.delete(f"/v1/responses/{first['id']}")
    assert deleted.json() == {"id": first["id"], "object": "response", "deleted": True}
    client.get(f"/v1/responses/{first['id']}", 404)
    assert client.http.delete(f"/v1/responses/{first['id']}").status_code == 404


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


class TestBackground:
    def test_a_job_is_polled_until_it_is_done(self, client):
        client.server.script.add(final("Done.", "Hm."))
        queued = client.ask(input=[ASK], background=True)
        assert (queued["status"], queued["background"]) == ("queued", True)
        done = self.until(client, queued["id"], "completed")
        assert shape(done["output"]) == [("reasoning", "Hm."), ("final_answer", "Done.")]

    def test_its_events_can_be_read_again_from_any_one_on(self, client):
        client.server.script.add(final("Done and dusted.", "Hm."))
        with client.http.stream(
            "POST", "/v1/responses", json={"input": "x", "background": True, "stream": True}
        ) as answer:
            events = parsed(answer.iter_lines())
        assert [event["type"] for event in events[:3]] == [
            "response.created",
            "response.queued",
            "response.in_progress",
        ]
        id = events[0]["response"]["id"]
        for after in (0, 5, len(events) - 1):
            path = f"/v1/responses/{id}?stream=true&starting_after={after}"
            lines = client.http.get(path).text.splitlines()
            again = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
            assert again == events[after + 1 :]

    def test_a_job_is_cancelled_and_nothing_is_left(self, client):
        client.server.script.pace = 0.01
        client.server.script.add("<|channel|>final<|message|>" + "word " * 3000)
        running = client.ask(input=[ASK], background=True)
        self.until(client, running["id"], "in_progress")
        error = client.ask(409, input="x", previous_response_id=running["id"])["error"]
        assert error["code"] == "response_in_progress"
        cancelled = client.http.post(f"/v1/responses/{running['id']}/cancel").json()
        assert cancelled["status"] == "cancelled"
        assert client.get(f"/v1/responses/{running['id']}")["status"] == "cancelled"
        worker, end = client.server.worker, time.monotonic() + 20
        while (worker.stats().running, worker.stats().waiting) != (0, 0):  # as of the step that is under way
            assert time.monotonic() < end
            time.sleep(0.01)
        client.server.script.pace = 0.0
        client.server.script.add(final("ok"))
        plain = client.ask(input=[ASK])
        assert client.http.post(f"/v1/responses/{plain['id']}/cancel").status_code == 400

    def test_a_job_that_fails_says_so(self, client):
        from tests.server.scripted import Broken

        client.server.script.add(["<|channel|>final<|message|>Half", Broken()])
        queued = client.ask(input=[ASK], background=True)
        failed = self.until(client, queued["id"], "failed")
        assert failed["error"]["code"] == "server_error"

    def until(self, client, id, status):
        import time

        for _ in range(2000):
            response = client.get(f"/v1/responses/{id}")
            if response["status"] == status:
                return response
            assert response["status"] in ("queued", "in_progress"), response
            time.sleep(0.01)
        raise AssertionError(response["status"])
