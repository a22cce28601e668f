"""Stores in memory, in a SQLite file and in a real PostgreSQL do the same."""

import asyncio
import threading
import time

import pytest

from server.dialogue import sqlite_store
from server.dialogue.records import Group, StoredItem, StoreError
from server.dialogue.sqlite_store import SqliteStore
from server.dialogue.store import open_store

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: the extra `postgres`")

from server.dialogue.postgres import connections as postgres_connections  # noqa: E402
from server.dialogue.postgres import store as postgres_store  # noqa: E402
from server.dialogue.postgres import tables as postgres_tables  # noqa: E402
from server.dialogue.postgres.connections import StoreUnavailable  # noqa: E402
from server.dialogue.postgres.store import PostgresStore  # noqa: E402
from tests.server.dialogue.postgres_server import running  # noqa: E402

MINE, THEIRS = b"mine", b"theirs"
A_MONTH = 30 * 24 * 3600.0


database = pytest.fixture(scope="module")(running)


@pytest.fixture(params=["memory", "file", "postgres"])
def opened(request, tmp_path):
    """Opens the store again; except in memory, its contents are still there."""
    stores = []
    if request.param == "postgres":
        database = request.getfixturevalue("database")
        database.clear()
    where = {
        "memory": lambda: None,
        "file": lambda: tmp_path / "store.db",
        "postgres": lambda: database.url,
    }[request.param]()

    def open_it(max_bytes=2**30, max_seconds=A_MONTH):
        stores.append(open_store(where, max_bytes, max_seconds))
        return stores[-1]

    open_it.kind = request.param
    yield open_it
    for store in stores:
        store.close()


def response(id, previous=None, status="completed", **body):
    return Group(id, "response", status, previous, {"id": id, **body})


def item(id, text="x", tokens=(), kind="input"):
    return StoredItem({"id": id, "text": text}, tokens, kind)


def bodies(kept):
    return [each.body["id"] for each in kept]


def test_a_response_is_found_with_its_items_and_their_tokens_in_order(opened):
    store = opened()
    put = [item("b"), item("a", "é\0\u2028"), item("c", tokens=[0, 201_087, 5], kind="output")]
    store.put(MINE, response("resp_1", text="é\0"), put)
    group = store.get(MINE, "resp_1")
    assert group == response("resp_1", text="é\0")
    found = store.items(MINE, "resp_1")
    assert [(each.body, list(each.tokens), each.kind) for each in found] == [
        (each.body, list(each.tokens), each.kind) for each in put
    ]
    assert bodies(store.items(MINE, "resp_1", "output")) == ["c"]
    assert list(store.item(MINE, "c").tokens) == [0, 201_087, 5]


def test_nobody_finds_what_is_anothers(opened):
    store = opened()
    store.put(MINE, response("resp_1"), [item("a")])
    assert store.get(THEIRS, "resp_1") is None
    assert store.items(THEIRS, "resp_1") == []
    assert store.item(THEIRS, "a") is None
    assert store.chain(THEIRS, "resp_1") == "resp_1"
    assert not store.delete(THEIRS, "resp_1")
    assert not store.remove(THEIRS, "resp_1", "a")
    store.add(THEIRS, "resp_1", [item("b")])
    store.change(THEIRS, "resp_1", {"id": "taken"})
    assert store.get(MINE, "resp_1") == response("resp_1")
    assert bodies(store.items(MINE, "resp_1")) == ["a"]


def test_what_is_put_again_takes_the_place_of_what_was(opened):
    store = opened()
    store.put(MINE, response("resp_1", status="queued"), [item("a"), item("b")])
    store.put(MINE, response("resp_1"), [item("c")])
    assert store.get(MINE, "resp_1").status == "completed"
    assert bodies(store.items(MINE, "resp_1")) == ["c"]
    assert store.item(MINE, "a") is None


def test_items_are_added_taken_out_and_the_latest_of_an_id_is_found(opened):
    store = opened()
    conversation = Group("conv_1", "conversation", "", None, {"id": "conv_1"})
    store.put(MINE, conversation, [item("a", "old")])
    store.add(MINE, "conv_1", [item("b"), item("a", "new")])
    store.change(MINE, "conv_1", {"id": "conv_1", "metadata": {"x": "y"}})
    assert store.get(MINE, "conv_1").body["metadata"] == {"x": "y"}
    assert bodies(store.items(MINE, "conv_1")) == ["a", "b", "a"]
    assert store.item(MINE, "a").body["text"] == "new"
    assert store.remove(MINE, "conv_1", "a")
    assert not store.remove(MINE, "conv_1", "a")
    assert bodies(store.items(MINE, "conv_1")) == ["b"]
    assert store.delete(MINE, "conv_1")
    assert store.item(MINE, "b") is None
    assert store.get(MINE, "conv_1") is None


def test_an_item_is_found_as_it_was_made_however_often_a_client_sent_it_back(opened):
    store = opened()
    store.put(MINE, response("resp_1"), [item("msg_1", "said", [1, 2, 3], "output")])
    store.put(MINE, response("resp_2"), [item("msg_1", "said"), item("theirs", "one")])
    store.put(MINE, response("resp_3"), [item("msg_1", "said"), item("theirs", "two")])
    assert list(store.item(MINE, "msg_1").tokens) == [1, 2, 3]
    assert store.item(MINE, "theirs").body["text"] == "two"
    store.delete(MINE, "resp_1")
    assert list(store.item(MINE, "msg_1").tokens) == []


def test_what_is_larger_than_the_store_is_not_kept_and_drives_nothing_out(opened, monkeypatch):
    monkeypatch.setattr(postgres_tables, "EVICTION_SHARE", 10**9)  # it evicts after each write
    store = opened(max_bytes=20_000)
    assert store.put(MINE, response("small"))
    assert not store.put(MINE, response("huge"), [item("a", "x" * 30_000)])
    assert store.get(MINE, "huge") is None
    assert store.put(MINE, Group("conv_1", "conversation", "", None, {"id": "conv_1"}))
    assert not store.add(MINE, "conv_1", [item("a", "x" * 30_000)])
    assert not store.add(MINE, "nothing", [item("a")])
    assert store.items(MINE, "conv_1") == []
    assert store.get(MINE, "small") is not None


def test_a_history_is_the_chain_of_responses(opened):
    store = opened()
    for i in range(1, 5):
        store.put(MINE, response(f"resp_{i}", f"resp_{i - 1}" if i > 1 else None))
    assert [group.id for group in store.chain(MINE, "resp_4")] == ["resp_1", "resp_2", "resp_3", "resp_4"]
    assert store.chain(MINE, "resp_9") == "resp_9"
    store.delete(MINE, "resp_2")
    assert store.chain(MINE, "resp_4") == "resp_2"


@pytest.mark.parametrize("id", ["", "\0", "a\0b", "'; drop table groups", "ü" * 300, "%s", "\U0001f600"])
def test_ids_of_clients_may_be_any_text(opened, id):
    store = opened()
    store.put(MINE, response("resp_1"), [item(id)])
    assert store.item(MINE, id).body["id"] == id
    assert store.get(MINE, id) is None
    assert store.chain(MINE, id) == id
    assert store.remove(MINE, "resp_1", id)


def test_what_is_kept_outlives_the_server(opened):
    if opened.kind == "memory":
        pytest.skip("memory does not")
    first = opened()
    first.put(MINE, response("resp_1"), [item("a")])
    first.close()
    second = opened()
    assert bodies(second.items(MINE, "resp_1")) == ["a"]
    assert second.count == 1
    assert second.size > 0


def test_the_least_recently_used_give_way_to_the_newest(opened, monkeypatch):
    monkeypatch.setattr(postgres_tables, "EVICTION_SHARE", 10**9)  # it evicts after each write
    store = opened(max_bytes=20_000)
    for i in range(60):
        store.put(MINE, response(f"resp_{i}"), [item(f"item_{i}", "x" * 1000)])
    assert store.size <= 20_000
    assert 8 <= store.count < 20
    assert store.get(MINE, "resp_59") is not None
    assert store.get(MINE, "resp_0") is None
    assert store.item(MINE, "item_0") is None


def test_what_was_not_used_for_long_goes(opened, monkeypatch):
    store = opened(max_seconds=0.5)
    monkeypatch.setattr(postgres_tables, "EVICTION_SHARE", 10**9)
    store.put(MINE, response("resp_1"), [item("a")])
    assert store.get(MINE, "resp_1") is not None
    time.sleep(0.6)
    store.put(MINE, response("resp_2"))
    assert store.get(MINE, "resp_1") is None
    assert store.get(MINE, "resp_2") is not None


# PostgreSQL alone


@pytest.fixture
def store(database):
    database.clear()
    store = PostgresStore(database.url, 2**30, A_MONTH)
    yield store
    store.close()


def test_servers_that_start_together_and_write_together_lose_nothing(database):
    database.clear()
    failures = []

    def serve(name):
        try:
            store = PostgresStore(database.url, 2**30, A_MONTH)
            for i in range(20):
                store.put(MINE, response(f"{name}_{i}"), [item(f"item_{name}_{i}")])
                store.add(MINE, "conv", [item(f"{name}_{i}")])
            store.close()
        except Exception as error:
            failures.append(error)

    first = PostgresStore(database.url, 2**30, A_MONTH)
    first.put(MINE, Group("conv", "conversation", "", None, {}))
    threads = [threading.Thread(target=serve, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(first.items(MINE, "conv")) == 80
    assert all(first.get(MINE, f"{name}_{i}") for name in "abcd" for i in range(20))
    ((told, counted),) = database.ask(
        "select (select sum(bytes) from gptoss_groups), (select sum(length(body) + length(tokens) + 300) "
        "from gptoss_items) + (select sum(length(body) + 300) from gptoss_groups)"
    )
    assert told == counted
    first.close()


def test_a_password_is_never_told_and_why_it_cannot_be_opened_is(database, monkeypatch):
    with pytest.raises(StoreError, match="does not exist") as told:
        PostgresStore(database.url.replace("/postgres?", "/nowhere?") + "&password=hush", 2**30, A_MONTH)
    assert "hush" not in str(told.value)


def test_a_store_of_another_version_is_refused(database, store):
    with database.connect() as db:
        db.execute("update gptoss_store set version = 99")
    with pytest.raises(StoreError, match="its format has version 99; this program reads version 1"):
        PostgresStore(database.url, 2**30, A_MONTH)


async def _unavailable(store, function, *args):
    """Seconds until StoreUnavailable was raised."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as told:
        await store.run(function, *args)
    assert told.value.status == 503
    assert told.value.headers == {"retry-after": "5"}
    return time.monotonic() - began


def test_a_database_that_goes_is_told_and_one_that_comes_back_is_used_again(database, store, monkeypatch):
    monkeypatch.setattr(postgres_connections, "PAUSE_SECONDS", 0.05)

    async def outage():
        await store.run(store.put, MINE, response("resp_1"))
        database.stop()
        try:
            for _ in range(20):
                assert await _unavailable(store, store.get, MINE, "resp_1") < 5
            await store.save(lambda: store.put(MINE, response("resp_2")))  # it is logged, and no more
        finally:
            database.start()
        await asyncio.sleep(0.1)
        for _ in range(20):
            assert await store.run(store.get, MINE, "resp_1") == response("resp_1")

    asyncio.run(outage())


def test_a_frozen_database_holds_nobody_up(database, store, monkeypatch, caplog):
    monkeypatch.setattr(postgres_store, "DEADLINE_SECONDS", 0.5)

    async def frozen():
        await store.run(store.put, MINE, response("resp_1"))
        for _ in range(10):  # each thread has a connection
            await asyncio.gather(*(store.run(store.get, MINE, "resp_1") for _ in range(8)))
        database.freeze()
        try:
            told = await asyncio.gather(*(_unavailable(store, store.get, MINE, "resp_1") for _ in range(30)))
            assert max(told) < 3
        finally:
            database.thaw()
        monkeypatch.setattr(postgres_store, "DEADLINE_SECONDS", 20)
        assert await store.run(store.get, MINE, "resp_1") == response("resp_1")

    asyncio.run(frozen())
    assert "did not answer within 0.5 s" in caplog.text


def _wait_for_queue(store, length):
    end = time.monotonic() + 20
    time.sleep(0.02)
    while store._threads[0].waiting != length:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_no_more_calls_wait_than_can(database, store, monkeypatch):
    monkeypatch.setattr(postgres_store, "DEADLINE_SECONDS", 30)

    async def flood():
        go = threading.Event()
        waiting = [asyncio.ensure_future(store.run(go.wait, 20)) for _ in range(8)]
        await asyncio.to_thread(_wait_for_queue, store, 0)  # each thread has one
        monkeypatch.setattr(postgres_connections, "MAX_WAITING", 5)
        waiting += [asyncio.ensure_future(store.run(go.wait, 20)) for _ in range(5)]
        await asyncio.to_thread(_wait_for_queue, store, 5)
        assert await _unavailable(store, store.get, MINE, "resp_1") < 1
        go.set()
        assert await asyncio.gather(*waiting) == [True] * 13

    asyncio.run(flood())


def test_reading_a_store_writes_to_it_once_a_minute(database, store, monkeypatch):
    store.put(MINE, response("resp_1"), [item("a")])
    used = "select used, xmin::text from gptoss_groups"
    before = database.ask(used)
    assert store.get(MINE, "resp_1") is not None
    assert store.item(MINE, "a") is not None
    assert len(store.chain(MINE, "resp_1")) == 1
    assert database.ask(used) == before
    for read in (
        lambda: store.get(MINE, "resp_1"),
        lambda: store.item(MINE, "a"),
        lambda: store.chain(MINE, "resp_1"),
    ):
        with database.connect() as db:
            db.execute("update gptoss_groups set used = used - 61")
        ((stale, _),) = database.ask(used)
        read()
        ((fresh, _),) = database.ask(used)
        assert fresh > stale + 60


def test_a_store_that_is_closed_leaves_no_connection(database):
    database.clear()
    store = PostgresStore(database.url, 2**30, A_MONTH)

    async def asked():
        await asyncio.gather(*(store.run(store.get, MINE, "resp_1") for _ in range(8)))
        await store.save(lambda: store.put(MINE, response("resp_1")))

    asyncio.run(asked())
    store.close()
    end = time.monotonic() + 20
    while database.ask("select count(*) from pg_stat_activity where application_name = 'gptoss'") != [(0,)]:
        assert time.monotonic() < end


def test_saves_are_done_in_their_order(store):
    async def saved():
        last = [store.save(lambda i=i: store.put(MINE, response("resp_1", text=i))) for i in range(30)][-1]
        await last

    asyncio.run(saved())
    assert store.get(MINE, "resp_1").body["text"] == 29


def test_a_full_disk_spoils_no_answer(monkeypatch, caplog):
    store = SqliteStore(None, 2**20, A_MONTH)

    def fails():
        raise sqlite_store.sqlite3.OperationalError("disk is full")

    async def saved():
        await store.save(fails)

    asyncio.run(saved())
    assert "a response could not be stored" in caplog.text
