"""What is stored of responses and conversations, for whom, and how long."""

import json
from threading import Event
from time import sleep

from openai.types.conversations import ConversationItem
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from server.api.responses.writer import PREFIXES
from server.dialogue.sqlite_store import SqliteStore
from server.settings import Settings
from tests.server.api.responses.loop import (
    ASK,
    LOOP,
    SEAL,
    THANKS,
    Client,
    prompts,
    references,
    result,
    until,
)
from tests.server.fakes import final
from tests.server.scripted import Broken, Script, scripted


def test_what_is_not_kept_is_nowhere(client):
    client.server.script.add(*LOOP)
    first = client.ask(input=[ASK], store=False)
    client.get(f"/v1/responses/{first['id']}", 404)
    error = client.ask(404, input=[result(first)], previous_response_id=first["id"])["error"]
    assert (error["param"], error["code"]) == ("previous_response_id", "response_not_found")
    client.ask(404, input=references(first["output"]))
    assert "gptoss_store_objects 0.0" in client.http.get("/metrics").text
    client.ask(input=[ASK, first["output"][-1], result(first)], store=False)
    assert "I add." not in prompts(client)[-1]  # nor by the id of the call


def test_a_response_that_is_being_made_is_no_previous_one_yet(client):
    client.server.script.pace = 0.01
    client.server.script.add("<|channel|>final<|message|>" + "word " * 3000, final("ok"))
    with client.http.stream("POST", "/v1/responses", json={"input": "x", "stream": True}) as answer:
        lines = answer.iter_lines()
        created = json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))
        id = created["response"]["id"]
        error = client.ask(409, input="x", previous_response_id=id)["error"]
        assert (error["param"], error["code"]) == ("previous_response_id", "response_in_progress")
        assert client.get(f"/v1/responses/{id}")["status"] == "in_progress"
        assert client.http.post(f"/v1/responses/{id}/cancel").status_code == 400
        assert client.http.delete(f"/v1/responses/{id}").status_code == 200
        client.get(f"/v1/responses/{id}", 404)
    client.server.script.pace = 0.0
    client.ask(404, input="x", previous_response_id=id)
    client.ask(input="x")


def test_a_response_that_is_deleted_while_it_is_stored_is_gone(client, monkeypatch):
    monkeypatch.setattr("server.api.responses.answer.SMALL_ANSWER", 0)
    put, begun = SqliteStore.put, Event()

    def slow(*given):
        begun.set()
        sleep(0.3)
        return put(*given)

    monkeypatch.setattr(SqliteStore, "put", slow)
    client.server.script.add(final("ok"))
    with client.http.stream("POST", "/v1/responses", json={"input": "x", "stream": True}) as answer:
        lines = answer.iter_lines()
        first = next(line for line in lines if line.startswith("data: "))
        id = json.loads(first.removeprefix("data: "))["response"]["id"]
        assert begun.wait(20)
        assert client.http.delete(f"/v1/responses/{id}").status_code == 200
        client.get(f"/v1/responses/{id}", 404)
        assert "response.completed" in "".join(lines)
    client.get(f"/v1/responses/{id}", 404)


def test_a_response_can_be_gone_on_from_once_its_last_event_is_here(client):
    client.server.script.add(*LOOP)
    with client.http.stream("POST", "/v1/responses", json={"input": "x", "stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and '"response.completed"' in line:
                id = json.loads(line.removeprefix("data: "))["response"]["id"]
                client.ask(input=[THANKS], previous_response_id=id)


def test_a_client_that_leaves_leaves_no_response_behind(client):
    client.server.script.pace = 0.01
    client.server.script.add("<|channel|>final<|message|>" + "word " * 3000)
    with client.http.stream("POST", "/v1/responses", json={"input": "x", "stream": True}) as answer:
        lines = answer.iter_lines()  # held: the stream ends with it
        first = next(line for line in lines if line.startswith("data: "))
        id = json.loads(first.removeprefix("data: "))["response"]["id"]
        client.get(f"/v1/responses/{id}")
    until(lambda: client.http.get(f"/v1/responses/{id}").status_code == 404)


def test_items_of_a_conversation_are_refused_if_no_response_could_read_them(client):
    bad = [
        ({"foo": 1}, 400, "items[1].type"),
        ({"type": "item_reference", "id": "none"}, 404, "items[1].id"),
        ({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}, 400,
         "items[1].content[0].type"),
    ]  # fmt: skip
    id = client.http.post("/v1/conversations").json()["id"]
    for item, status, param in bad:
        for path in ("/v1/conversations", f"/v1/conversations/{id}/items"):
            answer = client.http.post(path, json={"items": [ASK, item]})
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert client.get(f"/v1/conversations/{id}/items")["data"] == []
    many = client.http.post(f"/v1/conversations/{id}/items", json={"items": [ASK] * 21})
    assert many.json()["error"]["param"] == "items"


def test_a_conversation_is_read_changed_and_forgotten(client):
    new = client.http.post("/v1/conversations", json={"items": [ASK], "metadata": {"a": "b"}}).json()
    path = f"/v1/conversations/{new['id']}"
    assert client.get(path) == new
    changed = client.http.post(path, json={"metadata": {"c": "d"}}).json()
    assert (changed["id"], changed["metadata"]) == (new["id"], {"c": "d"})
    added = client.http.post(f"{path}/items", json={"items": [THANKS, {**ASK, "id": "msg_mine"}]}).json()
    assert [item["type"] for item in added["data"]] == ["message", "message"]
    assert client.get(f"{path}/items/msg_mine")["content"] == [{"type": "input_text", "text": "1 and 1?"}]
    seen, after = [], None
    while True:
        query = f"?limit=1&order=asc{f'&after={after}' if after else ''}"
        page = client.get(f"{path}/items{query}")
        seen += [item["id"] for item in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    newest_first = [item["id"] for item in client.get(f"{path}/items")["data"]]
    assert seen == newest_first[::-1]
    assert len(seen) == 3
    assert client.http.delete(f"{path}/items/msg_mine").json() == changed
    client.get(f"{path}/items/msg_mine", 404)
    assert client.http.delete(path).json()["deleted"] is True
    for gone in (path, f"{path}/items"):
        client.get(gone, 404)


def test_a_conversation_gets_what_was_said_also_if_it_was_cut_short_but_not_what_failed(client):
    id = client.http.post("/v1/conversations").json()["id"]
    client.server.script.add(final("word " * 20), [final("word")[:-10], Broken()], final("ok"))
    cut = client.ask(input="one", conversation=id, max_output_tokens=8)
    assert cut["status"] == "incomplete"
    failing = {"input": "two", "conversation": id, "stream": True}
    assert "response.failed" in client.http.post("/v1/responses", json=failing).text
    client.ask(input="three", conversation=id, store=False)  # it reads the conversation, and leaves nothing
    assert "one<|end|>" in prompts(client)[-1]
    assert "two<|end|>" not in prompts(client)[-1]
    assert [item["role"] for item in client.get(f"/v1/conversations/{id}/items?order=asc")["data"]] == [
        "user", "assistant",
    ]  # fmt: skip


def test_one_keys_conversations_and_jobs_are_not_found_by_another():
    settings = Settings(date="2025-06-28", api_key=("alice", "bob"))
    with scripted(Script(*LOOP), settings) as server:
        client = Client(server)
        alice, bob = ({"authorization": f"Bearer {name}"} for name in ("alice", "bob"))
        id = client.http.post("/v1/conversations", json={"items": [ASK]}, headers=alice).json()["id"]
        item = client.get(f"/v1/conversations/{id}/items", headers=alice)["data"][0]["id"]
        job = client.ask(input="x", background=True, headers=alice)["id"]
        for path in (f"/v1/conversations/{id}", f"/v1/conversations/{id}/items",
                     f"/v1/conversations/{id}/items/{item}", f"/v1/responses/{job}",
                     f"/v1/responses/{job}?stream=true", f"/v1/responses/{job}/input_items"):  # fmt: skip
            client.get(path, 404, headers=bob)
        assert client.http.post(f"/v1/responses/{job}/cancel", headers=bob).status_code == 404
        path = f"/v1/conversations/{id}"
        for body in ({"metadata": {}}, {"items": [ASK]}):
            where = f"{path}/items" if "items" in body else path
            assert client.http.post(where, json=body, headers=bob).status_code == 404
        for where in (f"{path}/items/{item}", path, f"/v1/responses/{job}"):
            assert client.http.delete(where, headers=bob).status_code == 404
        assert [each["id"] for each in client.get(f"{path}/items", headers=alice)["data"]] == [item]
        client.ask(404, input="x", conversation=id, headers=bob)
        client.ask(404, input=[{"type": "item_reference", "id": item}], headers=bob)


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


def test_one_keys_thought_is_not_found_by_another_by_the_id_of_its_call():
    settings = Settings(date="2025-06-28", api_key=("alice", "bob"))
    with scripted(Script(*LOOP), settings) as server:
        client = Client(server)
        alice, bob = ({"authorization": f"Bearer {name}"} for name in ("alice", "bob"))
        first = client.ask(input=[ASK], headers=alice)
        call = {key: value for key, value in first["output"][-1].items() if key not in ("id", "status")}
        for who in (bob, alice):
            client.ask(input=[ASK, call, result(first)], headers=who)
            assert ("I add." in prompts(client)[-1]) == (who is alice)


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


def test_a_page_after_an_item_that_is_not_there_is_no_empty_page(client):
    """Read as the last page, it would hide what comes behind."""
    client.server.script.add(*LOOP)
    response = client.ask(input=[ASK])
    conversation = client.http.post("/v1/conversations", json={"items": [ASK]}).json()
    for path in (
        f"/v1/responses/{response['id']}/input_items",
        f"/v1/conversations/{conversation['id']}/items",
    ):
        (only,) = client.get(path)["data"]
        assert client.get(f"{path}?after={only['id']}")["data"] == []
        error = client.get(f"{path}?after=msg_none", 404)["error"]
        assert (error["param"], error["code"]) == ("after", "item_not_found")


SHELL = {"commands": ["ls"]}
EXEC = {"type": "exec", "command": ["ls"], "env": {}}
STDOUT = [{"stdout": "a", "stderr": "", "outcome": {"type": "timeout"}}]
BARE = [
    ASK,
    {"role": "developer", "content": [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"type": "reasoning", "summary": []},
    {"role": "assistant", "content": "a", "phase": "commentary"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
    {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "refusal", "refusal": "a"}],
        "status": None,
    },
    {"type": "function_call", "call_id": "a", "namespace": "n", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "a"}]},
    {"type": "custom_tool_call", "call_id": "b", "name": "c", "input": "a"},
    {"type": "custom_tool_call_output", "call_id": "b", "output": "a"},
    {"type": "local_shell_call", "call_id": "c", "action": EXEC},
    {"type": "local_shell_call_output", "id": "c", "output": "a"},
    {"type": "shell_call", "call_id": "d", "action": SHELL},
    {"type": "shell_call_output", "call_id": "d", "output": STDOUT},
    {"type": "apply_patch_call", "call_id": "e", "operation": {"type": "delete_file", "path": "a"}},
    {"type": "apply_patch_call_output", "call_id": "e", "status": "failed"},
]
"""Items as clients send them, without what may be left out."""


def test_listed_items_have_all_that_the_sdks_types_require(client):
    client.server.script.add(final("ok"))
    response = client.ask(input=BARE)
    conversation = client.http.post("/v1/conversations", json={"items": BARE}).json()
    for path, type in ((f"/v1/responses/{response['id']}/input_items", ResponseItem),
                       (f"/v1/conversations/{conversation['id']}/items", ConversationItem)):  # fmt: skip
        items = client.get(f"{path}?order=asc&limit=100")["data"]
        assert len(items) == len(BARE)
        for item, sent in zip(items, BARE, strict=True):
            TypeAdapter(type).validate_python(item)
            assert item["id"].startswith(PREFIXES.get(item["type"], sent.get("id", "")))
    assert items[-1]["status"] == "failed"
    client.server.script.add(final("ok"))
    client.ask(input=items)  # and they can be sent back
    assert prompts(client)[0] == prompts(client)[1]


def test_the_id_of_a_conversation_is_no_response_and_the_other_way_round(client):
    client.server.script.add(final("ok"))
    response = client.ask(input=[ASK])["id"]
    conversation = client.http.post("/v1/conversations", json={"items": [ASK]}).json()["id"]
    swapped = [f"/v1/responses/{conversation}", f"/v1/conversations/{response}"]
    for path in (*swapped, f"{swapped[0]}/input_items", f"{swapped[1]}/items"):
        client.get(path, 404)
    for path in swapped:
        assert client.http.delete(path).status_code == 404
    client.ask(404, input=[ASK], previous_response_id=conversation)
    client.ask(404, input=[ASK], conversation=response)
    client.get(f"/v1/responses/{response}")
    client.get(f"/v1/conversations/{conversation}")
