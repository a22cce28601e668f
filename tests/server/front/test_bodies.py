"""Bodies of requests: they are counted before they are parsed, and freed before the answer is complete."""

import gc
import json
import threading
import time
import weakref

import pytest
from pydantic_core import from_json

from server import middleware
from server.api.chat import ChatBody
from server.api.messages.body import MessagesBody
from server.errors import ApiError
from server.front import bodies
from server.front.bodies import (
    LARGE_BODY,
    MAX_CONTAINERS,
    MAX_ELEMENTS,
    MAX_PAIRS,
    CountedRequest,
    check_counts,
    forget_locals,
)
from server.settings import Settings
from tests.server.fakes import Pause, final, live
from tests.server.test_endings import HI, connect, request_bytes, wait_for

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def cost(server, path, body):
    """The answer, and the processor time until it was complete, including this client's."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    began = time.process_time()
    answer = server.http.post(path, content=raw, headers=JSON, timeout=60)
    return answer, time.process_time() - began


# Counted before anything is made of it


@pytest.mark.parametrize("more", [{"n": 128}, {"best_of": 128}, {}])
def test_answers_are_counted_before_anything_is_made(tiny_tokenizer, more):
    """A body of 100 kB became 2,560,000 requests to the engine: 28 s and 1.5 GB."""
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
    """Parsing them takes seconds, and up to a hundred times their size in memory."""
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
    """A body of 1.2 MB of zeros took 2.9 s and 535 MB."""
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


# Gone after


class Watched(dict):
    """A dict to which a weak reference is possible."""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_parsed_body_does_not_live_as_long_as_its_answer(tiny_tokenizer, monkeypatch, stream):
    """12 MiB of metadata took 346 MB of memory until the answer was complete."""
    watched = []

    def parsed(body, **options):
        found = from_json(body, **options)
        found["metadata"] = Watched(found["metadata"])
        watched.append(weakref.ref(found["metadata"]))
        return found

    monkeypatch.setattr(bodies, "from_json", parsed)
    with live(tiny_tokenizer, [Pause(30), final("x")]) as server, connect(server) as client:
        client.sendall(request_bytes(CHAT, metadata={"of no interest": "x"}, stream=stream))
        assert wait_for(lambda: server.worker.open)
        assert watched
        assert wait_for(lambda: watched[0]() is None, 5)
        assert server.worker.open
        client.close()
        assert server.worker.wait_until_idle()


@pytest.mark.parametrize("ends", ["client leaves", "too slow", "too long", "not JSON", "wrong", "refused"])
def test_a_body_that_was_not_taken_is_gone_before_a_garbage_collection(tiny_tokenizer, monkeypatch, ends):
    """A hundred clients that left held 700 MB: an error and its functions refer to each other."""
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.3 if ends == "too slow" else 60)
    bodies_of = {
        "not JSON": b"[" * 20_000,
        "wrong": json.dumps({"messages": 7, "x": "y" * 20_000}).encode(),
        "refused": json.dumps({**HI, "model": "y" * 20_000}).encode(),
    }
    raw = bodies_of.get(ends, b" " * 20_000)
    chunked = ends == "too long"
    length = 90_000 if ends in ("client leaves", "too slow") else len(raw)
    head = "transfer-encoding: chunked" if chunked else f"content-length: {length}"
    start = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{head}\r\n\r\n"
    sent = start.encode() + (b"5000\r\n" + b" " * 0x5000 + b"\r\n" if chunked else raw)
    settings = Settings(max_body_bytes=20_000 if chunked else 2**20)
    with live(tiny_tokenizer, final("x"), settings=settings) as server:
        server.http.post(CHAT, json=HI)
        gc.collect()
        gc.disable()
        try:
            before = _alive()
            with connect(server) as client:
                client.sendall(sent)
                if ends == "client leaves":
                    assert wait_for(lambda: _alive() > before)
                else:
                    assert b"HTTP/1.1 4" in client.recv(4096)
            assert wait_for(lambda: _alive() == before, 5)
        finally:
            gc.enable()


def _alive():
    return sum(type(each) is CountedRequest for each in gc.get_objects())


# Beside the event loop


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages", "/v1/conversations", "/tokenize"])
def test_a_body_is_checked_beside_the_loop(tiny_tokenizer, monkeypatch, path):
    """Errors in a large body have the same text as in a small one."""
    where = []
    validated = CountedRequest._validated

    def observed(self, body):
        where.append(threading.current_thread().name)
        return validated(self, body)

    monkeypatch.setattr(CountedRequest, "_validated", observed)
    wrong = {**HI, "input": HI["messages"], "max_tokens": 1, "items": [7], "n": "2", "metadata": 7}
    wrong = {**wrong, "messages": [{"role": "user", "content": 7}]}
    with live(tiny_tokenizer, final("x")) as server:
        small = server.http.post(path, json=wrong)
        assert not where
        large = server.http.post(path, json={**wrong, "more": "x" * LARGE_BODY})
    assert small.status_code == large.status_code == 400
    assert [_said(answer) for answer in (small, large)] == [_said(small)] * 2
    assert len(where) == 1
    assert where[0].startswith("gptoss-preprocess")


def _said(answer):
    return {**answer.json(), "request_id": ""}


@pytest.mark.parametrize("body", [ChatBody, MessagesBody])
def test_checking_leaves_other_threads_the_interpreter(body):
    """pydantic alone held the GIL until all parts were validated."""
    parts = [{"type": "text", "text": "a"}] * 30_000
    given = {"messages": [{"role": "user", "content": parts}], "max_tokens": 1}
    thread = threading.Thread(target=lambda: [body.model_validate(given) for _ in range(8)])
    thread.start()
    ticks = 0
    while thread.is_alive():
        time.sleep(0.001)
        ticks += 1
    assert ticks > 16  # alone, it lets go between the eight times only


def test_the_counts_are_the_same_wherever_slices_end(monkeypatch):
    monkeypatch.setattr(bodies, "MAX_CONTAINERS", 4)
    text = json.dumps({"a\\": ["[{", {'b"': "]["}], '"': [[]]}).encode()
    for size in range(1, len(text) + 2):
        monkeypatch.setattr(bodies, "COUNTED_BYTES", size)
        with pytest.raises(ApiError, match="arrays and objects"):
            check_counts(text)
        check_counts(text.replace(b"[[]]", b"[0]"))


@pytest.mark.timeout(5)
def test_the_variables_of_a_circle_of_errors_are_forgotten():
    def failure(body):
        with pytest.raises(ZeroDivisionError) as caught:
            fail(body)
        return caught.value

    def fail(body):
        raise ZeroDivisionError

    first, second = failure(object()), failure(object())
    first.__cause__, second.__context__ = second, first
    forget_locals(first)
    for error in (first, second):
        assert "body" not in error.__traceback__.tb_next.tb_frame.f_locals
