"""Large bodies are rendered and tokenised on a few threads; callers take turns."""

import asyncio
import gc
import threading
import time
from contextlib import AsyncExitStack

import pytest

from engine.errors import QueueFull
from engine.fairness import Rounds, Shares
from language.harmony.render import Renderer
from server.front.bodies import LARGE_BODY
from server.front.preprocessing import REST, SLOTS, PreprocessingPool
from server.settings import Settings
from tests.server.fakes import final, live
from tests.server.test_endings import HI, connect, request_bytes, wait_for

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


TEXT = "a word " * (LARGE_BODY // 7)
FUNCTION = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}
ONE_CALL = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}


def tool(**more):
    return {"tools": [{"type": "function", "function": {**FUNCTION, **more}}]}


LARGE = {
    "content": {"messages": [{"role": "user", "content": TEXT}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]},
    "messages": {"messages": [{"role": "user", "content": TEXT[: len(TEXT) // 60]}] * 64},
    "reasoning": {
        "messages": [{**ONE_CALL, "reasoning": TEXT}, {"role": "tool", "tool_call_id": "c", "content": ""}]
    },
    "arguments": {
        "messages": [
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": TEXT}}]},
            {"role": "tool", "tool_call_id": "c", "content": ""},
        ]
    },
    "description": {**HI, **tool(description=TEXT)},
    "enum": {**HI, **tool(parameters={"properties": {"p": {"enum": TEXT.split() * 2}}})},
    "format": {
        **HI,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "description": TEXT, "schema": {}},
        },
    },
}


@pytest.mark.parametrize("part", LARGE)
@pytest.mark.parametrize("path", [CHAT, CHAT + "/render", "/tokenize"])
def test_a_large_body_is_rendered_beside_the_event_loop(tiny_tokenizer, monkeypatch, part, path):
    """Before, only the length of the messages' contents was considered."""
    where = []
    render = Renderer.render

    def observed(self, *args):
        where.append(threading.current_thread().name)
        return render(self, *args)

    monkeypatch.setattr(Renderer, "render", observed)
    with live(tiny_tokenizer, final("x"), max_context=10**6) as server:
        assert server.http.post(path, json=LARGE[part], timeout=60).status_code == 200
        assert server.http.post(path, json=HI).status_code == 200
    assert where[0].startswith("gptoss-preprocess")
    assert not where[1].startswith("gptoss-preprocess")  # for what is small, a thread would cost more


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize"])
def test_a_long_raw_prompt_is_tokenised_beside_the_event_loop(tiny_tokenizer, monkeypatch, path):
    where = []
    encode = type(tiny_tokenizer).encode_with_specials

    def observed(self, text):
        if text == TEXT:  # and not the script's
            where.append(threading.current_thread().name)
        return encode(self, text)

    monkeypatch.setattr(type(tiny_tokenizer), "encode_with_specials", observed)
    with live(tiny_tokenizer, "x", max_context=10**6) as server:
        assert server.http.post(path, json={"prompt": TEXT}, timeout=60).status_code == 200
    assert len(where) == 1
    assert where[0].startswith("gptoss-preprocess")


def test_tokenising_leaves_other_threads_the_interpreter(tiny_tokenizer):
    """`encode` holds the GIL until it is done; encoding a batch of one does not."""
    thread = threading.Thread(target=tiny_tokenizer.encode, args=["Some words, and others. " * 20_000])
    began = last = time.perf_counter()
    longest = 0.0
    thread.start()  # which waits too, if the thread keeps the interpreter at once
    alive = True
    while alive:
        alive = thread.is_alive()
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        time.sleep(0.001)
    assert longest < 0.6 * (last - began)


@pytest.fixture
def held(monkeypatch):
    """An event for which rendering waits, and the number of renderings that have begun."""
    go_on, begun = threading.Event(), []
    render = Renderer.render

    def waiting(self, *args):
        begun.append(args)
        assert go_on.wait(30)
        return render(self, *args)

    monkeypatch.setattr(Renderer, "render", waiting)
    yield go_on, begun
    go_on.set()


def test_too_many_large_bodies_are_a_429_and_small_ones_go_on(tiny_tokenizer, held):
    go_on, begun = held
    settings = Settings(max_queued=2)
    large = request_bytes(CHAT, **LARGE["content"])
    with live(tiny_tokenizer, final("ok"), settings=settings, max_context=10**6) as server:
        pool = server.app.state.service.preprocessing
        clients = [connect(server) for _ in range(SLOTS + 2)]
        for client in clients:
            client.sendall(large)
        assert wait_for(lambda: pool.waiting == 2)
        refused = server.http.post(CHAT, json=LARGE["content"])
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        assert server.http.get("/v1/models").status_code == 200  # the event loop is free
        go_on.set()
        assert all(b" 200 " in client.recv(1000) for client in clients)
        for client in clients:
            client.close()
    assert len(begun) == SLOTS + 2


def test_who_has_left_is_skipped(tiny_tokenizer, held):
    go_on, begun = held
    large = request_bytes(CHAT, **LARGE["content"])
    with live(tiny_tokenizer, final("ok"), settings=Settings(), max_context=10**6) as server:
        pool = server.app.state.service.preprocessing
        clients = [connect(server) for _ in range(SLOTS + 5)]
        for client in clients[:SLOTS]:
            client.sendall(large)
        assert wait_for(lambda: len(begun) == SLOTS)
        for client in clients[SLOTS:]:
            client.sendall(large)
        assert wait_for(lambda: pool.waiting == 5)
        for client in clients[SLOTS:-1]:
            client.close()
        assert wait_for(lambda: pool.waiting == 1)
        go_on.set()
        assert b" 200 " in clients[-1].recv(1000)
        for client in clients:
            client.close()
    assert len(begun) == SLOTS + 1


def test_slots_are_given_to_the_callers_in_turn():
    async def run():
        pool = PreprocessingPool(max_waiting=100, callers=3)
        order = []
        leave = asyncio.Event()

        async def use(caller, i):
            async with pool.slot(caller):
                order.append(f"{caller}{i}")
                if caller != "first":
                    await asyncio.sleep(0)
                else:
                    await leave.wait()

        tasks = [asyncio.ensure_future(use("first", i)) for i in range(SLOTS)]
        await asyncio.sleep(0)
        tasks += [asyncio.ensure_future(use("a", i)) for i in range(6)]
        await asyncio.sleep(0)
        tasks += [asyncio.ensure_future(use("b", i)) for i in range(2)]
        await asyncio.sleep(0)
        tasks[SLOTS + 2].cancel()  # a2 has left
        await asyncio.sleep(0)
        leave.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        pool.close()
        return order[SLOTS:]

    order = asyncio.run(run())
    assert [each for each in order if each[0] == "a"] == ["a0", "a1", "a3", "a4", "a5"]
    assert order.index("b0") <= 2
    assert order.index("b1") <= 4


def test_every_slot_is_free_again_however_it_was_left():
    async def run():
        pool = PreprocessingPool(max_waiting=4)

        async def fail():
            async with pool.slot():
                pool.mark_slot_held()
                await pool.run(lambda: 1 / 0)

        async def wait():
            async with pool.slot():
                await asyncio.sleep(0.01)

        tasks = [asyncio.ensure_future(each()) for each in (wait, wait, fail, wait, fail, wait)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        refused = [asyncio.ensure_future(wait()) for _ in range(9)]
        await asyncio.sleep(0)
        assert any(task.done() and isinstance(task.exception(), QueueFull) for task in refused)
        tasks += refused
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await pool.run(lambda: 7) == 7
        pool.close()
        return pool._free, pool.waiting

    assert asyncio.run(run()) == (SLOTS, 0)


# Shares


def test_one_caller_may_have_all_places_but_not_when_others_may_come():
    alone = Shares(8)
    for _ in range(8):
        assert not alone.refuses("")
        alone.take("")
    assert alone.refuses("")
    shared = Shares(8, callers=2)
    for _ in range(6):
        assert not shared.refuses("a")
        shared.take("a")
    assert shared.refuses("a")
    assert not shared.refuses("b")
    shared.take("b")
    for _ in range(3):
        shared.give_back("a")
    assert not shared.refuses("a")
    shared.take("a")
    assert shared.refuses("a")  # it has half
    shared.give_back("b")
    assert not shared.refuses("a")


def test_rounds_give_each_caller_one_and_keep_each_caller_s_order():
    rounds = Rounds()
    queue = [(rounds.join("a"), i, f"a{i}") for i in range(50)]
    for _ in range(10):
        queue.sort()
        rounds.serve(queue.pop(0)[0])
    queue += [(rounds.join("b"), 100 + i, f"b{i}") for i in range(3)]
    queue += [(rounds.join("a"), 200, "a50")]
    served = [name for _, _, name in sorted(queue)]
    assert served.index("b2") < 8
    own = [int(name[1:]) for name in served if name[0] == "a"]
    assert own == list(range(10, 51))


def test_what_goes_wrong_after_its_client_has_left_is_not_logged_as_an_error(caplog):
    async def run():
        pool, begun, go_on = PreprocessingPool(max_waiting=4), threading.Event(), threading.Event()

        def fail():
            begun.set()
            go_on.wait(30)
            raise ValueError("this body is wrong")

        task = asyncio.ensure_future(pool.run(fail))
        assert await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([task])
        assert task.cancelled()
        pool.close()

    asyncio.run(run())
    gc.collect()
    assert "this body is wrong" not in caplog.text


def test_a_slot_rests_for_longer_than_a_thread_worked():
    """With one large body after the other, streams got only a third of the GIL's time."""
    worked = []

    def work():
        began = time.thread_time()
        while time.thread_time() - began < 0.1:
            pass
        worked.append(time.thread_time() - began)

    async def run():
        pool = PreprocessingPool(max_waiting=4)
        async with pool.slot():
            pool.mark_slot_held()
            await pool.run(work)
        left = time.perf_counter()
        async with AsyncExitStack() as stack:
            for _ in range(SLOTS):
                await stack.enter_async_context(pool.slot())
            rested = time.perf_counter() - left
        pool.close()
        return rested

    assert asyncio.run(run()) >= 0.9 * REST * worked[0]
