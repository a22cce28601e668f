"""The Responses API under more load than the server can handle: nothing is left of any request."""

import asyncio
import json
import os
import random
from contextlib import contextmanager

import httpx
import pytest

from bench import load
from bench.standin import StandIn
from engine.engine import Engine
from engine.scheduler import Limits
from engine.worker import Worker
from server.app import create_app
from server.settings import Settings
from tests.server.api.responses.loop import until
from tests.server.fakes import serving

RUNNING, QUEUED = 32, 64
RESPONSES = "/v1/responses"


class Pressed:
    """A real server with a small engine."""

    def __init__(self, url, worker, app):
        self.port, self.worker, self.app = int(url.rpartition(":")[2]), worker, app
        self.http = httpx.Client(base_url=url, timeout=60)
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.tasks = self.count_tasks()

    def count_tasks(self):
        """Number of tasks of the server's event loop, including that of this request."""
        return self.http.get("/tasks").json()

    def check_nothing_is_left(self):
        def idle():
            stats = self.worker.stats()
            return not (stats.running or stats.waiting) and stats.pages_free == stats.pages_total

        until(idle, 60)
        until(lambda: not self.app.state.jobs.foreground, 60)
        until(lambda: self.count_tasks() <= self.tasks, 60)
        until(lambda: len(os.listdir("/proc/self/fd")) <= self.descriptors + 4, 60)


@contextmanager
def pressed(tokenizer, step_seconds=0.002, **settings):
    limits = Limits(
        num_pages=600, page_size=8, window=16, max_context=1024, max_running=RUNNING, max_queued=QUEUED
    )
    worker = Worker(Engine(StandIn(tokenizer, step_seconds), limits))
    app = create_app(worker, tokenizer, Settings(max_queued=QUEUED, **settings), "stand-in", 1024)

    @app.get("/tasks")
    async def tasks() -> int:
        return len(asyncio.all_tasks())

    with serving(app) as url:
        server = Pressed(url, worker, app)
        yield server
        server.http.close()


def body(**more):
    return {"input": "hello", "stream": True, "max_output_tokens": 20, "store": False, **more}


LONG = {"max_output_tokens": 900, "ignore_eos": True}


def test_five_hundred_streams_all_end_in_a_response_or_a_429(tiny_tokenizer):
    with pressed(tiny_tokenizer, step_seconds=0.02) as server:
        streams = asyncio.run(load.run("127.0.0.1", server.port, RESPONSES, [body()] * 500, patience=120))
        statuses = [stream.status for stream in streams]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= RUNNING
        server.check_nothing_is_left()


async def vanish(port, seed):
    """Request a long response and disconnect: at once, while waiting, or after the first bytes."""
    draw = random.Random(seed)
    asked = body(stream=draw.random() < 0.5, store=draw.random() < 0.5, **LONG)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(load.post("127.0.0.1", port, RESPONSES, asked))
    await writer.drain()
    match draw.randrange(3):
        case 0:
            pass
        case 1:
            await asyncio.sleep(draw.random() * 0.3)
        case 2:
            await asyncio.wait({asyncio.ensure_future(reader.read(200))}, timeout=0.3)
    writer.transport.abort()


def test_four_hundred_clients_that_vanish_leave_nothing_behind(tiny_tokenizer):
    async def crowd(port):
        await asyncio.gather(*(vanish(port, seed) for seed in range(400)))

    with pressed(tiny_tokenizer) as server:
        asyncio.run(crowd(server.port))
        server.check_nothing_is_left()
        assert server.app.state.service.store.size == 0
        assert server.http.post(RESPONSES, json=body(stream=False)).status_code == 200


def test_jobs_that_pile_up_are_bounded_and_can_all_be_cancelled(tiny_tokenizer):
    with pressed(tiny_tokenizer) as server:
        ids, refused = [], []
        for _ in range(QUEUED + 40):
            answer = server.http.post(RESPONSES, json=body(background=True, stream=False, store=True, **LONG))
            if answer.status_code == 200:
                ids.append(answer.json()["id"])
            else:
                refused.append(answer)
        assert len(ids) <= QUEUED
        assert len(refused) >= 40
        for answer in refused:
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert int(answer.headers["retry-after"]) >= 1
        for id in ids:
            cancelled = server.http.post(f"{RESPONSES}/{id}/cancel")
            assert cancelled.json()["status"] in ("cancelled", "completed", "incomplete")
        server.check_nothing_is_left()
        for id in ids:
            assert server.http.delete(f"{RESPONSES}/{id}").status_code == 200
        assert (server.app.state.service.store.size, server.app.state.service.store.count) == (0, 0)


def test_watchers_that_leave_end_nothing_and_leave_nothing(tiny_tokenizer):
    async def watch(port, id):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {RESPONSES}/{id}?stream=true HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        await reader.read(100)
        writer.transport.abort()

    async def crowd(port, id):
        await asyncio.gather(*(watch(port, id) for _ in range(100)))

    with pressed(tiny_tokenizer, step_seconds=0.01) as server:
        asked = body(background=True, store=True, max_output_tokens=200, ignore_eos=True)
        with server.http.stream("POST", RESPONSES, json=asked) as answer:
            line = next(line for line in answer.iter_lines() if line.startswith("data: "))
        id = json.loads(line.removeprefix("data: "))["response"]["id"]
        asyncio.run(crowd(server.port, id))
        until(lambda: server.http.get(f"{RESPONSES}/{id}").json()["status"] == "incomplete", 60)
        server.check_nothing_is_left()


MANY = [{"role": "user", "content": "a"}] * 5000
DEEP: list = []
for _ in range(150):
    DEEP = [DEEP]

SHORT = {"max_output_tokens": 5}
HUGE = {
    "5,000 items": ({"input": MANY}, "context_length_exceeded"),
    "more items than are read": ({"input": MANY * 3}, "invalid_value"),
    "1 MB of text": ({"input": "word " * 200_000}, "context_length_exceeded"),
    "8 MiB of text": ({"input": "word " * 1_600_000}, "context_length_exceeded"),
    "arguments of a million brackets": (
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "[" * 1_000_000}]},
        "context_length_exceeded",
    ),
    "8 MiB that claim to be a seal": (
        {"input": [{"type": "reasoning", "encrypted_content": "gs1." + "A" * 8_000_000}], **SHORT},
        None,
    ),
    "5,000 references": (
        {"input": [{"type": "item_reference", "id": f"msg_{i}"} for i in range(5000)]},
        "not_found",
    ),
    "an item that is nested deeply": (
        {"input": [{"role": "user", "content": "x", "more": DEEP}], "store": True, **SHORT},
        None,
    ),
    "a schema that is nested deeply": (
        {"input": "x", **SHORT,
         "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "x": DEEP}}]},
        None,
    ),
    "an output that is nested deeply": (
        {"input": [{"type": "apply_patch_call", "call_id": "c", "operation": {"path": DEEP}},
                   {"type": "apply_patch_call_output", "call_id": "c", "output": DEEP}], **SHORT},
        None,
    ),
    "a thousand namespaces": (
        {"input": "x", "tools": [{"type": "namespace", "name": f"n{i}"} for i in range(1001)]},
        "invalid_value",
    ),
    "a namespace of too many": (
        {"input": "x", "tools": [{"type": "namespace", "name": "n", "tools": [
            {"type": "function", "name": f"f{i}"} for i in range(1025)]}]},
        "invalid_value",
    ),
    "a thousand names that become one": (
        {"input": "x", **SHORT,
         "tools": [{"type": "function", "name": "-" * (i + 1)} for i in range(100)]},
        "context_length_exceeded",
    ),
}  # fmt: skip
"""A request, and the code of its error; None: it may also succeed."""


@pytest.fixture(scope="module")
def small(tiny_tokenizer):
    with pressed(tiny_tokenizer) as server:
        yield server


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=pytest.mark.exhaustive if each == "8 MiB of text" else ()) for each in HUGE],
)
def test_what_is_huge_or_deep_gets_a_clear_answer(small, name):
    asked, code = HUGE[name]
    answer = small.http.post(RESPONSES, json={"store": False, **asked})
    if code is None and answer.status_code == 200:
        assert answer.json()["object"] == "response"
    else:
        assert answer.status_code in (400, 404), answer.text[:500]
        error = answer.json()["error"]
        assert error["code"] in (code, "context_length_exceeded", "invalid_value")
        assert code is None or error["code"] == code
        assert len(answer.text) < 2000
    assert small.http.get("/health").status_code == 200
    small.check_nothing_is_left()


NAMES = ["", " ", "a b", "a/b", "../x", "<|start|>", "a\n", "é", "🦜", "a" * 129, "\x00", "a:b", "a{b}"]
FINE = ["functions", "browser", "python", "assistant", "system", "all", "a.b", "-", "...", "1"]
FINE += ["browser.search", "None", "__proto__", "constructor"]


@pytest.mark.parametrize("kind", ["function", "custom", "namespace"])
def test_hostile_names_are_refused_or_read_and_come_back(small, kind):
    for name in [*NAMES, *FINE]:
        inner = [{"type": "function", "name": "f"}]
        tool = {"type": kind, "name": name, **({"tools": inner} if kind == "namespace" else {})}
        answer = small.http.post(RESPONSES, json={"input": "x", "tools": [tool], "max_output_tokens": 3})
        if name in FINE:
            assert answer.status_code == 200, (name, answer.text)
            assert answer.json()["tools"][0]["name"] == name
        else:
            assert answer.status_code == 400, name
            assert answer.json()["error"]["param"] == "tools[0].name"


def test_names_in_a_history_may_be_anything(small):
    """A model has invented them, and the model's output must never cause an error."""
    for name in [*NAMES, *FINE]:
        for space in ({}, {"namespace": name}):
            items = [{"type": "function_call", "call_id": "c", "name": name, "arguments": "{", **space},
                     {"type": "function_call_output", "call_id": "c", "output": "x"}]  # fmt: skip
            answer = small.http.post(RESPONSES, json={"input": items, "max_output_tokens": 3})
            assert answer.status_code == 200, (name, answer.text)
