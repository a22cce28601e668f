"""No request that refers to stored items keeps the event loop busy for long, or takes much memory."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.api.responses import stored as stored_responses
from server.settings import Settings
from tests.server.fakes import final, live
from tests.server.test_bounds_everywhere import (
    CONVERSATIONS,
    INPUT,
    LOOP_SECONDS,
    RESPONSES,
    TEXT,
    _frozen,  # noqa: F401
    cost,
)
from tests.server.test_endings import wait_for


@pytest.fixture(scope="module")
def stored(tiny_tokenizer):
    """A server with a conversation of 64 MiB, and one of its long items."""
    with live(tiny_tokenizer, final("x"), settings=Settings(), max_context=10**7) as running:
        items = [{"role": "user", "content": TEXT[: 2**20 // 4]}] * 20
        id = running.http.post(CONVERSATIONS, json={"items": items}, timeout=60).json()["id"]
        for _ in range(12):
            running.http.post(f"{CONVERSATIONS}/{id}/items", json={"items": items}, timeout=60)
        (item,) = running.http.get(f"{CONVERSATIONS}/{id}/items?limit=1").json()["data"]
        yield running, id, item["id"]


@pytest.mark.parametrize("path", [RESPONSES, INPUT])
def test_a_short_body_cannot_name_a_long_item_again_and_again(stored, path):
    """10,000 references to an item of 8 MiB would be 80 GiB."""
    server, _, item = stored
    body = {"input": [{"type": "item_reference", "id": item}] * 10_000}
    answer, seconds = cost(server, path, body)
    assert answer.status_code == 400
    assert "bytes" in answer.json()["error"]["message"]
    assert seconds < LOOP_SECONDS
    assert (
        server.http.post(path, json={"input": [{"type": "item_reference", "id": item}] * 3}).status_code
        == 200
    )


@pytest.mark.parametrize("path", [RESPONSES, INPUT])
def test_a_conversation_that_is_larger_than_a_body_may_be_is_not_gone_on_from(stored, path):
    server, conversation, _ = stored
    answer, seconds = cost(server, path, {"input": "a", "conversation": conversation})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert seconds < LOOP_SECONDS


@pytest.mark.parametrize(
    ("method", "what", "body"),
    [
        ("GET", "/items?limit=1", None),
        ("GET", "/items?limit=100&order=asc", None),
        ("GET", "/items/nothing", None),
        ("POST", "", {"metadata": {"a": "b"}}),
        ("GET", "", None),
    ],
)
def test_a_large_conversation_is_looked_at_in_parts(stored, method, what, body):
    """For one item, all items were read, and for a page, all were written, on the event loop."""
    server, conversation, _ = stored
    answer, seconds = cost(server, f"{CONVERSATIONS}/{conversation}{what}", body, method)
    assert answer.status_code == (404 if what.endswith("nothing") else 200)
    assert len(answer.content) < 1.2 * server.app.state.service.settings.max_body_bytes
    assert seconds < LOOP_SECONDS


def test_pages_of_large_items_end_early_and_all_of_them_are_seen(stored):
    server, conversation, _ = stored
    seen, after = [], ""
    while True:
        answer = server.http.get(f"{CONVERSATIONS}/{conversation}/items?limit=100{after}", timeout=60).json()
        seen += [item["id"] for item in answer["data"]]
        if not answer["has_more"]:
            break
        assert 1 < len(answer["data"]) < 100
        after = f"&after={answer['last_id']}"
    assert len(seen) == len(set(seen)) == 13 * 20


def test_of_many_pages_asked_for_at_once_few_are_in_memory(stored, monkeypatch):
    """Before, all requested pages were read before the first was written: 8 MiB for each connection."""
    server, conversation, _ = stored
    items, threads = server.app.state.service.store, min(32, (os.cpu_count() or 1) + 4)
    asked, read, made, held = [], [], [], []
    run, page, written = items.run, items.page, stored_responses.written

    def counted(*arguments, **options):
        wait_for(lambda: len(asked) == 3 * threads)
        read.append(arguments)
        held.append(len(read) - len(made))
        return page(*arguments, **options)

    monkeypatch.setattr(items, "run", lambda *arguments: (asked.append(arguments), run(*arguments))[1])
    monkeypatch.setattr(items, "page", counted)
    monkeypatch.setattr(stored_responses, "written", lambda it: (written(it), made.append(1))[0])
    path = f"{CONVERSATIONS}/{conversation}/items?limit=1"
    with ThreadPoolExecutor(3 * threads) as pool:
        answers = list(pool.map(lambda _: server.http.get(path, timeout=60).status_code, [0] * 3 * threads))
    assert answers == [200] * 3 * threads
    assert max(held) <= threads
