"""The store in memory and in a file: its size is limited, and deleted data are overwritten."""

import pytest

from server.dialogue.records import Group, StoredItem, StoreError
from server.dialogue.sqlite_store import SqliteStore

US = b"us"


def response(id, previous=None, status="completed", **body):
    return Group(id, "response", status, previous, {"id": id, **body})


def message(id, text="", tokens=(), kind="input"):
    return StoredItem({"type": "message", "id": id, "text": text}, tokens, kind)


@pytest.fixture
def store():
    items = SqliteStore(None, 100_000, 3600)
    yield items
    items.close()


def test_the_oldest_give_way_and_the_size_is_that_of_what_is_there(store):
    for i in range(50):
        store.put(US, response(f"r{i}"), [message(f"m{i}", "x" * 5000)])
        assert store.size <= 100_000
    assert store.get(US, "r0") is store.item(US, "m0") is None
    assert store.get(US, "r49") is not None
    for i in range(50):
        store.delete(US, f"r{i}")
    assert (store.size, store.count) == (0, 0)


def test_many_small_ones_give_way_to_a_large_one_at_once(store):
    for i in range(150):
        store.put(US, response(f"r{i}"))
    store.put(US, response("large"), [message("m", "x" * 90_000)])
    assert store.size <= 100_000
    assert store.get(US, "large") is not None


def test_age_ends_what_is_not_used(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("server.dialogue.sqlite_store.time.time", lambda: clock[0])
    store = SqliteStore(None, 100_000, 100)
    store.put(US, response("used"), [message("m1")])
    store.put(US, response("idle"))
    clock[0] += 60
    store.item(US, "m1")
    clock[0] += 60
    store.put(US, response("new"))
    assert store.get(US, "idle") is None
    assert store.get(US, "used") is not None
    store.close()


def test_a_file_keeps_all_of_it_and_forgets_what_is_deleted(tmp_path):
    file = tmp_path / "store.db"
    store = SqliteStore(file, 100_000, 3600)
    store.put(US, response("r1", status="queued"), [message("m1", "a secret", [5], "output")])
    store.put(US, response("r2"), [message("m2", "another")])
    size = store.size
    store.close()
    assert file.stat().st_mode & 0o777 == 0o600
    store = SqliteStore(file, 100_000, 3600)
    assert store.size == size
    assert [(owner, group.id) for owner, group in store.unfinished()] == [(US, "r1")]
    assert list(store.item(US, "m1").tokens) == [5]
    store.delete(US, "r1")
    store.close()
    assert b"another" in file.read_bytes()
    assert b"a secret" not in file.read_bytes()


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "other").write_text("not a database, but long enough to be told from one" * 10)
    with pytest.raises(StoreError):
        SqliteStore(tmp_path / "other", 1000, 10)
