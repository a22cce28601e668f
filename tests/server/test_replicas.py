"""Several servers with the same store and seal key: each can continue any conversation."""

import json
import time

import pytest

from server.settings import Settings, SettingsError
from server.settings_sources import read
from tests.server.api.responses.response_events import ADD
from tests.server.api.responses.test_response_history import ASK, LOOP, SEAL, WANTED, Client, result
from tests.server.fakes import final
from tests.server.scripted import Script, scripted

pytest.importorskip("psycopg", reason="psycopg is not installed: the extra `postgres`")

from server.dialogue.postgres import connections as postgres_connections
from tests.server.dialogue.postgres_server import running

database = pytest.fixture(scope="module")(running)


@pytest.fixture
def two(database):
    """Two servers, each with its script."""
    database.clear()
    settings = Settings(date="2025-06-28", store=database.url, api_key=("alice", "bob"))
    with scripted(Script(), settings) as one, scripted(Script(), settings) as other:
        yield [_client(one), _client(other)]


def _client(server):
    client = Client(server)
    client.http.headers["authorization"] = "Bearer alice"
    client.prompts = lambda: [prompt.split("<|end|>", 2)[2] for prompt in server.script.prompts]
    return client


def test_a_conversation_goes_on_at_any_server_with_the_tokens_that_were_sampled(two):
    one, other = two
    one.server.script.add(LOOP[0])
    other.server.script.add(LOOP[1])
    first = one.ask(input=[ASK])
    second = other.ask(input=[result(first)], previous_response_id=first["id"])
    assert other.prompts() == [WANTED[1]]
    assert one.get(f"/v1/responses/{second['id']}") == second
    listed = other.get(f"/v1/responses/{first['id']}/input_items")
    assert listed["data"][0]["role"] == "user"
    assert one.http.delete(f"/v1/responses/{second['id']}").json()["deleted"]
    other.get(f"/v1/responses/{second['id']}", 404)


def test_a_stream_is_kept_before_its_end_is_told(two):
    one, other = two
    one.server.script.add(final("Hello!"))
    with one.http.stream("POST", "/v1/responses", json={"input": [ASK], "stream": True}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: ") and '"response.completed"' in line:
                told = json.loads(line.removeprefix("data: "))["response"]
                assert other.get(f"/v1/responses/{told['id']}")["status"] == "completed"
                break
        else:
            raise AssertionError("it had no end")


def test_conversations_are_shared(two):
    one, other = two
    conversation = one.http.post("/v1/conversations", json={"metadata": {"a": "b"}}).json()["id"]
    path = f"/v1/conversations/{conversation}"
    assert other.get(path)["metadata"] == {"a": "b"}
    other.server.script.add(final("Hello!"))
    other.ask(input=[ASK], conversation=conversation)
    kinds = [item["type"] for item in one.get(f"{path}/items?order=asc")["data"]]
    assert kinds == ["message", "message"]
    added = {"items": [{"type": "message", "role": "user", "content": "more"}]}
    id = one.http.post(f"{path}/items", json=added).json()["data"][0]["id"]
    assert other.get(f"{path}/items/{id}")["role"] == "user"
    one.http.post(path, json={"metadata": {"c": "d"}})
    assert len(other.get(f"{path}/items")["data"]) == 3
    other.http.delete(f"{path}/items/{id}")
    one.get(f"{path}/items/{id}", 404)
    other.http.delete(path)
    one.get(path, 404)


def test_another_key_finds_nothing_at_either_server(two):
    one, _ = two
    one.server.script.add(final("Hello!"))
    first = one.ask(input=[ASK])
    bob = {"authorization": "Bearer bob"}
    for client in two:
        client.get(f"/v1/responses/{first['id']}", 404, headers=bob)
        client.ask(404, headers=bob, input=[ASK], previous_response_id=first["id"])


def test_a_background_response_is_found_at_the_other_server(two):
    one, other = two
    one.server.script.add(final("Hello!"))
    first = one.ask(input=[ASK], background=True)
    end = time.monotonic() + 30
    while (found := other.get(f"/v1/responses/{first['id']}"))["status"] != "completed":
        assert time.monotonic() < end
        assert found["status"] in ("queued", "in_progress")
    assert found["output"][-1]["content"][0]["text"] == "Hello!"


def test_without_its_database_a_server_answers_and_says_what_it_cannot_do(two, database, monkeypatch, caplog):
    monkeypatch.setattr(postgres_connections, "PAUSE_SECONDS", 0.05)
    one, other = two
    one.server.script.add(*(final("Hello!") for _ in range(4)))
    first = one.ask(input=[ASK])
    database.stop()
    try:
        refused = one.http.get(f"/v1/responses/{first['id']}")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "store_unavailable"
        assert refused.headers["retry-after"] == "5"
        one.ask(503, input=[ASK], previous_response_id=first["id"])
        answered = one.ask(input=[ASK])  # and the log says that it could not be stored
        assert answered["output"][-1]["content"][0]["text"] == "Hello!"
        assert "a response could not be stored" in caplog.text
        assert one.http.get("/metrics").status_code == 200
        assert one.http.get("/ready").status_code == 200
        chat = {"messages": [{"role": "user", "content": "Hi"}]}
        assert one.http.post("/v1/chat/completions", json=chat).status_code == 200
    finally:
        database.start()
    time.sleep(0.06)
    assert other.get(f"/v1/responses/{first['id']}") == first
    one.ask(input=[ASK], previous_response_id=first["id"])


def test_sealed_thoughts_open_at_every_server_that_has_the_key(tmp_path):
    shared = Settings(date="2025-06-28", seal_key_file=tmp_path / "key")
    with (
        scripted(Script(LOOP[0]), shared) as one,
        scripted(Script(LOOP[1]), shared) as other,
        scripted(Script(LOOP[1]), Settings(date="2025-06-28")) as stranger,
    ):
        first = Client(one).ask(input=[ASK], include=SEAL, store=False, tools=[ADD])
        thought = {**first["output"][0], "content": []}
        asked = {"input": [ASK, thought, first["output"][1], result(first)], "store": False}
        for server in other, stranger:
            Client(server).ask(**asked)
        assert 'gptoss_seals_total{outcome="opened"} 1.0' in Client(other).http.get("/metrics").text
        assert 'gptoss_seals_total{outcome="refused"} 1.0' in Client(stranger).http.get("/metrics").text
        assert "I add." in other.script.prompts[0]
        assert "I add." not in stranger.script.prompts[0]


def test_where_things_are_kept_is_a_file_or_a_url_of_postgresql():
    assert read({"store": "postgresql://me@host/db"}, {}).store == "postgresql://me@host/db"
    assert read({"store": "folder/file.db"}, {}).store.name == "file.db"
    with pytest.raises(SettingsError, match="mysql:// is not supported"):
        read({"store": "mysql://host/db"}, {})


def test_a_database_that_is_not_there_is_told_without_its_password(tmp_path, tiny_tokenizer):
    from server.app import create_app
    from tests.server.fakes import ScriptedWorker

    settings = Settings(store=f"postgresql://me:hush@/db?host={tmp_path}")
    with pytest.raises(SettingsError, match=r"--store postgresql://…: connection .*No such file") as told:
        create_app(ScriptedWorker(), tiny_tokenizer, settings, "tiny", 4096)
    assert "hush" not in str(told.value)


def test_an_item_whose_id_is_too_long_for_an_index_is_stored_under_another(two):
    """PostgreSQL refused it: a conversation was 503, and a response was not stored."""
    one, other = two
    long = {**ASK, "id": "".join(f"{i * i:x}" for i in range(2000))}
    conversation = one.http.post("/v1/conversations", json={"items": [long]}).json()["id"]
    one.server.script.add(final("Hello!"))
    response = one.ask(input=[long])
    for path in (f"conversations/{conversation}/items", f"responses/{response['id']}/input_items"):
        (item,) = other.get(f"/v1/{path}")["data"]
        assert item["id"].startswith("msg_")
        assert other.get(f"/v1/{path}?after={item['id']}")["data"] == []
