"""What a request costs before the engine sees it: counted first, computed beside the loop, and gone after."""

import asyncio
import gc
import json
import threading
import time

import pytest

from engine.errors import QueueFull
from engine.fairness import Rounds, Shares
from language.harmony.render import Renderer
from language.names import FunctionNames
from server.errors import ApiError
from server.front.bodies import LARGE_BODY, MAX_CONTAINERS, MAX_ELEMENTS, MAX_PAIRS, check_counts
from server.front.preprocessing import SLOTS, PreprocessingPool
from server.settings import Settings
from tests.server.fakes import Pause, final, live
from tests.server.test_endings import HI, connect, request_bytes, wait_for

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def cost(server, path, body):
    """The answer, and the seconds of processor time until it was there, ours included."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    began = time.process_time()
    answer = server.http.post(path, content=raw, headers=JSON, timeout=60)
    return answer, time.process_time() - began


# Counted before anything is made of it


@pytest.mark.parametrize("more", [{"n": 128}, {"best_of": 128}, {}])
def test_answers_are_counted_before_anything_is_made(tiny_tokenizer, more):
    """100 kB made 2,560,000 requests to the engine: 28 s and 1.5 GB."""
    with live(tiny_tokenizer, final("x")) as server:
        answer, seconds = cost(server, "/v1/completions", {"prompt": ["a"] * 20_000, **more})
        assert not server.worker.requests
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "n"
    assert seconds < 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({**HI, "messages": [HI["messages"][0]] * 21}, "messages"),
        ({**HI, "tools": [{"type": "function"}] * 11}, "tools"),
        ({**HI, "functions": [{"name": f"f{i}"} for i in range(11)]}, "functions"),
    ],
)
def test_lists_have_a_length_that_a_setting_says(tiny_tokenizer, body, param):
    settings = Settings(max_messages=20, max_tools=10)
    with live(tiny_tokenizer, final("x"), settings=settings) as server:
        refused = server.http.post(CHAT, json=body)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == param
        fits = {**body, param: body[param][:10]}
        if param != "tools":
            assert server.http.post(CHAT, json=fits).status_code == 200


DENSE = {
    "arrays": b'{"a":[' + b"[]," * MAX_CONTAINERS + b"0]}",
    "objects": b'{"a":[' + b"{}," * MAX_CONTAINERS + b"0]}",
    "names": b"{" + b'"":0,' * (MAX_PAIRS + 1) + b'"":0}',
    "elements": b'{"a":[' + b"0," * (MAX_ELEMENTS + 1) + b"0]}",
    "strings": b'{"a":[' + b'"",' * (MAX_ELEMENTS + 1) + b'""]}',
    "nested": b'{"a":[' + (b"[" * 100 + b"]" * 100 + b",") * (MAX_CONTAINERS // 100) + b"0]}",
}


@pytest.mark.parametrize("shape", DENSE)
def test_a_body_of_too_many_parts_is_refused_unparsed(tiny_tokenizer, shape):
    """Parsing these takes seconds, and up to a hundred times their bytes."""
    with live(tiny_tokenizer, final("x")) as server:
        answer, seconds = cost(server, CHAT, DENSE[shape])
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "body_too_complex"
    assert seconds < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "[]{},:" * 200_000,
        '["a", "b"], ' * 100_000,
        "\\" * 100_001,
        '\\"[' * 150_000,
        '"' * 300_000,
        "\\\\[\\" * 150_000,
    ],
)
def test_what_is_inside_of_strings_is_not_counted(text):
    for ascii in (False, True):
        check_counts(json.dumps({"messages": [{"content": text}] * 3}, ensure_ascii=ascii).encode())


def test_counting_agrees_with_parsing():
    for extra, fits in ((0, True), (1, False)):
        body = json.dumps({"a\\": [[]] * (MAX_CONTAINERS - 2 + extra), '"': "[" * 1000}).encode()
        if fits:
            check_counts(body)
        else:
            with pytest.raises(ApiError, match="arrays and objects"):
                check_counts(body)


def test_token_ids_by_the_hundred_thousand_are_taken(tiny_tokenizer):
    ids = tiny_tokenizer.encode("a") * 150_000
    with live(tiny_tokenizer, final("x"), max_context=200_000) as server:
        answer = server.http.post("/v1/completions", json={"prompt": ids, "max_tokens": 1}, timeout=60)
        assert answer.status_code == 200
        assert len(server.worker.requests[0].prompt) == 150_000


# Validation and errors


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [0] * 600_000},
        {"messages": [{"role": "user", "content": [0] * 300_000}]},
        {"messages": HI["messages"], "tools": [0] * 900},
        {"messages": HI["messages"], "stop_token_ids": ["a"] * 300_000},
        {"messages": HI["messages"], "modalities": [0] * 300_000},
        {"messages": HI["messages"], "logit_bias": {str(i): "x" for i in range(50_000)}},
        {"messages": HI["messages"], "logit_bias": {str(i): "x" for i in range(1000)}},
        {"messages": [{"role": "assistant", "tool_calls": [0] * 300_000}]},
    ],
)
def test_validation_stops_at_the_first_wrong_element(tiny_tokenizer, body):
    """1.2 MB of zeros cost 2.9 s and 535 MB."""
    settings = Settings(max_messages=10**6)
    with live(tiny_tokenizer, final("x"), settings=settings) as server:
        answer, seconds = cost(server, CHAT, body)
    assert answer.status_code == 400
    assert len(answer.content) < 2500
    assert seconds < 0.5


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_an_error_is_small_whatever_it_quotes(tiny_tokenizer, path):
    long = "\x00\u202e" * 100_000
    bodies = [
        {"prompt": "a", **HI, "model": long},
        {"prompt": "a", **HI, "logit_bias": {long: "x"}},
        {"prompt": "a", **HI, "logit_bias": {long: 1}},
        {
            "prompt": "a",
            **HI,
            "messages": [{"role": "tool", "content": "x", "tool_call_id": long}],
            "best_of": 0,
        },
    ]
    with live(tiny_tokenizer, final("x")) as server:
        for body in bodies:
            answer = server.http.post(path, json=body)
            assert answer.status_code in (400, 404)
            assert len(answer.content) < 15_000  # a thousand characters, of which each is \\u202e in JSON


def test_names_that_are_one_identifier_take_linear_time():
    """Four thousand of them took as many looks as there are pairs."""
    names = [f"a{'.-'[i % 2]}{i:017b}".replace("0", ".").replace("1", "-") for i in range(60_000)]
    began = time.process_time()
    mapped = FunctionNames(names)
    assert time.process_time() - began < 2
    inside = [mapped.to_model(name) for name in names]
    assert len(set(inside)) == len(set(names))
    assert all(mapped.to_client(own).name == name for own, name in zip(inside, names, strict=True))


def test_names_that_look_numbered_already_are_told_apart():
    names = ["a_b_2", "a.b", "a-b", "a_b", "a_b_3", "a..b"]
    mapped = FunctionNames(names)
    assert len({mapped.to_model(name) for name in names}) == len(names)
    assert [mapped.to_model(name) for name in ("a_b", "a_b_2", "a_b_3")] == ["a_b", "a_b_2", "a_b_3"]


# Beside the event loop

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
    """Only the length of the messages' contents was looked at."""
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
    """`encode` kept it for as long as it took; a batch of one does not."""
    thread = threading.Thread(target=tiny_tokenizer.encode, args=["Some words, and others. " * 20_000])
    began = time.perf_counter()
    thread.start()
    longest, last = 0.0, time.perf_counter()
    while thread.is_alive():
        time.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    assert longest < 0.6 * (last - began)


@pytest.fixture
def held(monkeypatch):
    """Rendering waits until this is set; and how often it was begun."""
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


def test_a_desk_gives_each_caller_its_turn():
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


def test_every_seat_is_free_again_however_it_was_left():
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


# Gone after


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_parsed_body_does_not_live_as_long_as_its_answer(tiny_tokenizer, stream):
    """12 MiB of metadata were 346 MB of objects until the answer was complete."""
    with live(tiny_tokenizer, [Pause(30), final("x")]) as server, connect(server) as client:
        client.sendall(
            request_bytes(CHAT, metadata={"of no interest": {str(i): [] for i in range(1000)}}, stream=stream)
        )
        assert wait_for(lambda: server.worker.open)
        assert wait_for(lambda: not _alive("of no interest"), 5)
        assert server.worker.open
        client.close()
        assert server.worker.wait_until_idle()


def _alive(key):
    return any(type(each) is dict and key in each for each in gc.get_objects() if each is not None)
