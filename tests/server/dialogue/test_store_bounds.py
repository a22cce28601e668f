"""A store stays within its limits, and reads no more than was requested."""

import json

import pytest

from server.dialogue.records import ChainTooLong, Group, Link, StoredItem
from tests.server.dialogue.test_stores import database, opened, postgres_store, sqlite_store  # noqa: F401

OWNER = b"me"
stores = [sqlite_store, postgres_store]


def response(id, previous=None, **more):
    return Group(id, "response", "completed", previous, {"id": id, **more})


def message(id, text="x"):
    return StoredItem({"id": id, "text": text})


@pytest.fixture
def kept(opened):  # noqa: F811
    """In memory, in a file, and in PostgreSQL."""
    return opened()


def ids(found):
    return [each.body["id"] for each in found]


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_joined_are_the_whole(kept, ascending, limit):
    kept.put(OWNER, response("r"), [message(f"m{i}") for i in range(7)])
    kept.put(OWNER, response("other"), [message("m0")])
    seen, after = [], None
    while True:
        found, more = kept.page(OWNER, "r", limit, 10**6, after=after, ascending=ascending)
        seen += ids(found)
        assert len(found) == limit or not more
        if not more:
            break
        after = seen[-1]
    assert seen == [f"m{i}" for i in (range(7) if ascending else range(6, -1, -1))]
    assert kept.page(OWNER, "r", 100, 10**6, after="nothing") == ([], False)
    assert kept.page(b"you", "r", 100, 10**6) == ([], False)


@pytest.mark.parametrize("ascending", [True, False])
def test_pages_end_also_if_items_have_the_same_id(kept, ascending):
    """A client that sends an item twice, or has ids of its own, read the same page for ever."""
    kept.put(OWNER, response("r"), [message(id, str(i)) for i, id in enumerate("abcbdbe")])
    kept.put(OWNER, response("other"), [message("e"), message("b")])
    seen, after, more = [], None, True
    while more:
        assert len(seen) < 7
        found, more = kept.page(OWNER, "r", 2, 10**6, after=after, ascending=ascending)
        seen += [(each.body["id"], each.body["text"]) for each in found]
        after = found[-1].body["id"]
    last = [("a", "0"), ("c", "2"), ("d", "4"), ("b", "5"), ("e", "6")]
    assert seen == (last if ascending else last[::-1])
    assert kept.find(OWNER, "r", "b").body["text"] == "5"


def test_a_page_has_one_item_of_any_size_and_others_while_they_fit(kept):
    texts = [500, 10, 10, 500, 500, 10]
    kept.put(OWNER, response("r"), [message(f"m{i}", "x" * size) for i, size in enumerate(texts)])
    pages, after = [], None
    while True:
        found, more = kept.page(OWNER, "r", 100, 400, after=after)
        pages.append(len(found))
        if not more:
            break
        after = found[-1].body["id"]
    assert pages == [1, 2, 1, 1, 1]


def test_only_items_of_a_kind_are_listed(kept):
    output = StoredItem({"id": "o"}, [1, 2], "output")
    kept.put(OWNER, response("r"), [message("m"), output])
    assert ids(kept.page(OWNER, "r", 9, 10**6, kind="input")[0]) == ["m"]
    found = kept.find(OWNER, "r", "o")
    assert (found.body, list(found.tokens), found.kind) == (output.body, [1, 2], "output")
    assert kept.find(OWNER, "r", "x") is kept.find(b"you", "r", "o") is None


def test_the_bytes_of_a_history_are_those_of_its_items(kept):
    sizes = 0
    for i in range(4):
        item = message(f"m{i}", "x" * 10 * i)
        sizes += len(json.dumps(item.body, separators=(",", ":")))
        previous = f"r{i - 1}" if i else None
        kept.put(OWNER, response(f"r{i}", previous, instructions="x" * 1000), [item])
    assert kept.history_bytes(OWNER, "r3") == sizes
    assert kept.history_bytes(OWNER, "r0") < sizes / 3
    assert kept.history_bytes(b"you", "r3") == kept.history_bytes(OWNER, "nothing") == 0


def test_a_chain_of_responses_has_a_length(kept, monkeypatch):
    for module in stores:
        monkeypatch.setattr(module, "MAX_CHAIN", 3)
    for i in range(4):
        kept.put(OWNER, response(f"r{i}", f"r{i - 1}" if i else None), [message(f"m{i}")])
    assert kept.chain(OWNER, "r2") == [Link(f"r{i}", "completed") for i in range(3)]
    with pytest.raises(ChainTooLong):
        kept.chain(OWNER, "r3")
    assert kept.history_bytes(OWNER, "r3") == 3 * kept.history_bytes(OWNER, "r0")
