"""Background responses."""

import json
import time
from contextlib import ExitStack

from openai.types.responses import ResponseErrorEvent

from server.api.responses.background import MAX_WATCHERS, Job
from server.dialogue.records import Group
from server.dialogue.sqlite_store import SqliteStore
from server.settings import Settings
from tests.server.api.responses.loop import ASK, Client, until
from tests.server.api.responses.response_events import parsed, shape
from tests.server.fakes import Pause, final
from tests.server.scripted import Broken, Script, scripted


def event_of(line):
    return json.loads(line.removeprefix("data: "))


def ended(client, id, status):
    """Wait until a background response has this status; until then it must be queued or in progress."""
    found = {}

    def arrived():
        found.update(client.get(f"/v1/responses/{id}"))
        assert found["status"] in ("queued", "in_progress", status), found
        return found["status"] == status

    until(arrived)
    return found


def test_a_job_is_polled_until_it_is_done(client):
    client.server.script.add(final("Done.", "Hm."))
    queued = client.ask(input=[ASK], background=True)
    assert (queued["status"], queued["background"]) == ("queued", True)
    done = ended(client, queued["id"], "completed")
    assert shape(done["output"]) == [("reasoning", "Hm."), ("final_answer", "Done.")]


def test_its_events_can_be_read_again_from_any_one_on(client):
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


def test_a_job_is_cancelled_and_nothing_is_left(client):
    client.server.script.pace = 0.01
    client.server.script.add("<|channel|>final<|message|>" + "word " * 3000)
    running = client.ask(input=[ASK], background=True)
    ended(client, running["id"], "in_progress")
    error = client.ask(409, input="x", previous_response_id=running["id"])["error"]
    assert error["code"] == "response_in_progress"
    cancelled = client.http.post(f"/v1/responses/{running['id']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert client.get(f"/v1/responses/{running['id']}")["status"] == "cancelled"
    stats = client.server.worker.stats
    until(lambda: (stats().running, stats().waiting) == (0, 0))  # as of the step that is under way
    client.server.script.pace = 0.0
    client.server.script.add(final("ok"))
    plain = client.ask(input=[ASK])
    assert client.http.post(f"/v1/responses/{plain['id']}/cancel").status_code == 400


def test_a_job_that_fails_says_so(client):
    client.server.script.add(["<|channel|>final<|message|>Half", Broken()])
    queued = client.ask(input=[ASK], background=True)
    failed = ended(client, queued["id"], "failed")
    assert failed["error"]["code"] == "server_error"


def test_a_job_that_is_cancelled_tells_its_watchers(client):
    client.server.script.pace = 0.01
    client.server.script.add("<|channel|>final<|message|>" + "word " * 3000)
    body = {"input": "x", "background": True, "stream": True}
    with client.http.stream("POST", "/v1/responses", json=body) as answer:
        lines = answer.iter_lines()
        first = event_of(next(line for line in lines if line.startswith("data: ")))
        id = first["response"]["id"]
        ended(client, id, "in_progress")
        with client.http.stream("GET", f"/v1/responses/{id}?stream=true&starting_after=1") as second:
            assert client.http.post(f"/v1/responses/{id}/cancel").json()["status"] == "cancelled"
            last = [event_of(line) for line in second.iter_lines() if line.startswith("data: ")][-1]
        assert last == [event_of(line) for line in lines if line.startswith("data: ")][-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")
    assert client.http.post(f"/v1/responses/{id}/cancel").json()["status"] == "cancelled"  # twice is fine


def test_only_so_many_clients_stream_one_job(client):
    """Each event goes to all of them: a thousand kept the event loop busy, and all connections."""
    client.server.script.pace = 0.01
    client.server.script.add("<|channel|>final<|message|>" + "word " * 3000)
    body = {"input": "x", "background": True, "stream": True}
    with ExitStack() as opened:
        answer = opened.enter_context(client.http.stream("POST", "/v1/responses", json=body))
        lines = answer.iter_lines()
        first = next(line for line in lines if line.startswith("data: "))
        id = event_of(first)["response"]["id"]

        def watch():
            return client.http.stream("GET", f"/v1/responses/{id}?stream=true")

        others = [opened.enter_context(watch()) for _ in range(MAX_WATCHERS - 1)]
        assert {other.status_code for other in others} == {200}
        with watch() as refused:
            assert refused.status_code == 429
            assert refused.headers["retry-after"]
        others[3].close()

        def allowed():
            with watch() as again:
                return again.status_code == 200

        until(allowed)
        assert client.http.post(f"/v1/responses/{id}/cancel").json()["status"] == "cancelled"


def test_a_client_that_leaves_does_not_end_a_job(client):
    client.server.script.pace = 0.002
    client.server.script.add(final("word " * 200))
    body = {"input": "x", "background": True, "stream": True}
    with client.http.stream("POST", "/v1/responses", json=body) as answer:
        first = next(line for line in answer.iter_lines() if line.startswith("data: "))
    ended(client, event_of(first)["response"]["id"], "completed")


def test_a_watchers_stream_that_fails_says_so_and_the_job_goes_on(client, monkeypatch):
    batches = Job.batches

    async def failing(job, after):
        async for batch in batches(job, after):
            yield batch
            raise RuntimeError("nobody expected this")

    client.server.script.add(final("word " * 20))
    body = {"input": "x", "background": True, "stream": True}
    with monkeypatch.context() as patched:
        patched.setattr(Job, "batches", failing)
        with client.http.stream("POST", "/v1/responses", json=body) as answer:
            events = [event_of(line) for line in answer.iter_lines() if line.startswith("data: ")]
    ResponseErrorEvent.model_validate(events[-1])
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "internal_error")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    ended(client, events[0]["response"]["id"], "completed")


def test_a_job_that_nobody_asked_to_stream_cannot_be_streamed(client):
    client.server.script.add(final("Done."))
    id = client.ask(input=[ASK], background=True)["id"]
    for _ in ("running, perhaps", "ended"):
        assert client.get(f"/v1/responses/{id}?stream=true", 400)["error"]["param"] == "stream"
        ended(client, id, "completed")
    assert client.get(f"/v1/responses/{id}?starting_after=3", 400)["error"]["param"] == "starting_after"
    error = client.get(f"/v1/responses/{id}?stream=true&starting_after=-1", 400)["error"]
    assert error["param"] == "starting_after"


def test_a_job_that_is_deleted_is_ended_and_gone(client):
    client.server.script.pace = 0.01
    client.server.script.add("<|channel|>final<|message|>" + "word " * 3000)
    id = client.ask(input=[ASK], background=True)["id"]
    assert client.http.delete(f"/v1/responses/{id}").json()["deleted"]
    client.get(f"/v1/responses/{id}", 404)
    until(lambda: client.server.worker.stats().running == 0)
    client.get(f"/v1/responses/{id}", 404)


def test_a_deadline_ends_a_job():
    settings = Settings(date="2025-06-28", request_timeout=1)
    script = Script("<|channel|>final<|message|>" + "word " * 3000, pace=0.01)
    with scripted(script, settings) as server:
        client = Client(server)
        failed = ended(client, client.ask(input=[ASK], tools=[], background=True)["id"], "failed")
    assert failed["error"]["code"] == "server_error"
    assert "1 s" in failed["error"]["message"]


def test_jobs_beyond_the_bound_are_refused_until_one_ends():
    settings = Settings(date="2025-06-28", max_queued=4, max_running=2)
    script = Script(pace=0.01)
    script.add(*["<|channel|>final<|message|>" + "word " * 3000] * 4, final("ok"))
    with scripted(script, settings) as server:
        client = Client(server)
        ids = [client.ask(input=[ASK], background=True)["id"] for _ in range(4)]
        answer = client.http.post("/v1/responses", json={"input": "x", "background": True})
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(answer.headers["retry-after"]) >= 1
        for id in ids:
            client.http.post(f"/v1/responses/{id}/cancel")
        until(lambda: server.worker.stats().running == 0)
        client.ask(input=[ASK], background=True)


def test_the_events_that_are_held_are_bounded():
    """The oldest ended jobs are dropped first; their responses stay stored."""
    settings = Settings(date="2025-06-28", store_size=60_000)
    with scripted(Script(*[final("word " * 30)] * 6), settings) as server:
        client = Client(server)
        ids = []
        for _ in range(6):
            body = {"input": "x", "background": True, "stream": True}
            with client.http.stream("POST", "/v1/responses", json=body) as answer:
                ids.append(parsed(answer.iter_lines())[0]["response"]["id"])
        client.get(f"/v1/responses/{ids[0]}?stream=true", 400)
        assert client.http.get(f"/v1/responses/{ids[-1]}?stream=true").status_code == 200
        assert client.get(f"/v1/responses/{ids[0]}")["status"] == "completed"


def test_a_job_keeps_its_watchers_awake_by_events(client, monkeypatch):
    monkeypatch.setattr("server.streaming.PING_SECONDS", 0.05)
    monkeypatch.setattr("server.api.responses.answer.HEARTBEAT_SECONDS", 0.01)
    client.server.script.add([Pause(0.5), final("late")])
    body = {"input": "x", "background": True, "stream": True}
    with client.http.stream("POST", "/v1/responses", json=body) as answer:
        events = parsed(answer.iter_lines())
    kinds = [event["type"] for event in events]
    assert kinds.index("response.output_item.added") > 4
    for event in events[1:]:
        if event["type"] in ("response.queued", "response.in_progress"):
            assert event["type"] == f"response.{event['response']['status']}"
    again = client.http.get(f"/v1/responses/{events[0]['response']['id']}?stream=true").text.splitlines()
    assert [event_of(line) for line in again if line.startswith("data: ")] == events


def test_a_job_that_the_server_did_not_end_has_failed_after_a_restart(tmp_path):
    """A killed server cannot mark its jobs, and a client that polls would wait for ever."""
    settings = Settings(date="2025-06-28", store=tmp_path / "store.db")
    store = SqliteStore(tmp_path / "store.db", 2**20, 3600)
    body = {"id": "resp_1", "status": "in_progress", "error": None, "previous_response_id": None}
    store.put(b"", Group("resp_1", "response", "in_progress", None, body))
    store.close()
    with scripted(Script(), settings) as server:
        found = Client(server).get("/v1/responses/resp_1")
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")


def test_the_end_of_the_server_ends_a_job_and_keeps_it(tmp_path):
    settings = Settings(date="2025-06-28", store=tmp_path / "store.db", grace=0)
    script = Script("<|channel|>final<|message|>" + "word " * 3000, pace=0.01)
    with scripted(script, settings) as server:
        client = Client(server)
        id = client.ask(input=[ASK], background=True)["id"]
        ended(client, id, "in_progress")
    with scripted(Script(), settings) as server:
        found = Client(server).get(f"/v1/responses/{id}")
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")


def test_a_job_of_another_server_that_died_has_failed_after_its_deadline(client):
    """Servers that share a store do not notice when another one dies."""
    now = time.time()
    for id, age in (("resp_old", 700), ("resp_new", 0)):
        body = {"id": id, "status": "in_progress", "created_at": int(now - age), "error": None}
        client.server.items.put(b"", Group(id, "response", "in_progress", None, body))
    assert client.get("/v1/responses/resp_old")["status"] == "failed"
    assert client.get("/v1/responses/resp_new")["status"] == "in_progress"
    client.server.script.add(final("ok"))
    client.ask(409, input="x", previous_response_id="resp_new")
    client.ask(input="x", previous_response_id="resp_old")


def test_the_last_state_of_a_job_is_the_one_that_stays(client, monkeypatch):
    """Large responses are stored by threads, of which the first may be the slower one."""
    monkeypatch.setattr("server.api.responses.answer.SMALL_ANSWER", 0)
    put, states = SqliteStore.put, []

    def slow(store, owner, group, items=()):
        if group.status == "queued":
            time.sleep(0.3)
        fits = put(store, owner, group, items)
        states.append(group.status)
        return fits

    monkeypatch.setattr(SqliteStore, "put", slow)
    client.server.script.add(final("Done."))
    id = client.ask(input=[ASK], background=True)["id"]
    until(lambda: len(states) == 2)
    assert states == ["queued", "completed"]
    assert client.server.items.get(b"", id).status == "completed"
