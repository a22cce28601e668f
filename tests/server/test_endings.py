"""However an answer ends, its token streams are closed: over real sockets, streamed or not."""

import json
import re
import socket
import threading
import time

import openai
import pytest

from engine.errors import (
    DeadlineExceeded,
    EngineDied,
    NonFinite,
    PromptTooLong,
    QueueFull,
    ShuttingDown,
)
from server.front.protocol import BoundedProtocol
from server.settings import Settings
from tests.server.fakes import Pause, final, live

HI = {"messages": [{"role": "user", "content": "hi"}]}
ENDPOINTS = {"/v1/chat/completions": HI, "/v1/completions": {"prompt": "hi", "max_tokens": 100}}
endpoints = pytest.mark.parametrize("path", ENDPOINTS)
streaming = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def request_bytes(path, **body):
    raw = json.dumps({**ENDPOINTS[path], **body}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw


def connect(server, receive_buffer=None):
    host, port = server.url.removeprefix("http://").split(":")
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(30)
    client.connect((host, int(port)))
    return client


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


@endpoints
@streaming
def test_a_client_that_leaves_before_the_first_token_frees_its_sequence(tiny_tokenizer, path, stream):
    with live(tiny_tokenizer, [Pause(30), final("never")]) as server:
        with connect(server) as client:
            client.sendall(request_bytes(path, stream=stream))
            assert wait_for(lambda: server.worker.open)
        assert server.worker.wait_until_idle()


@endpoints
@streaming
def test_a_client_that_leaves_in_the_middle_frees_its_sequence(tiny_tokenizer, path, stream):
    steps = [step for _ in range(3000) for step in ("x", Pause(0.01))]
    with live(tiny_tokenizer, ["<|channel|>final<|message|>", *steps]) as server:
        with connect(server) as client:
            client.sendall(request_bytes(path, stream=stream, max_tokens=9000))
            assert wait_for(lambda: server.worker.requests)
            if stream:
                assert client.recv(100)
            time.sleep(0.05)
        assert server.worker.wait_until_idle()


@streaming
def test_a_client_that_leaves_frees_all_of_its_choices(tiny_tokenizer, stream):
    with live(tiny_tokenizer, [Pause(30), final("never")]) as server:
        with connect(server) as client:
            client.sendall(request_bytes("/v1/chat/completions", stream=stream, n=3))
            assert wait_for(lambda: len(server.worker.open) == 3)
        assert server.worker.wait_until_idle()


def test_a_slow_reader_holds_up_nobody_and_loses_nothing(tiny_tokenizer):
    """4 MB are more than all buffers hold, so the server must wait for this client, and only for it."""
    text = "x" * 20_000
    chunks = [[id] for id in tiny_tokenizer.encode(text)]
    script = ["<|channel|>final<|message|>", *chunks, "<|return|>"]
    with live(tiny_tokenizer, script, max_context=50_000) as server:
        with connect(server) as slow:
            slow.sendall(request_bytes("/v1/chat/completions", stream=True, max_tokens=30_000))
            assert wait_for(lambda: server.worker.requests)
            time.sleep(0.3)
            began = time.perf_counter()
            server.http.get("/v1/models").raise_for_status()
            assert time.perf_counter() - began < 5
            received = b""
            while b"[DONE]" not in received[-40:]:
                received += slow.recv(65536)
        assert server.worker.wait_until_idle()
    assert "".join(contents(received)) == text


def contents(raw):
    for line in raw.split(b"\n"):
        if line.startswith(b'data: {"id"'):
            yield json.loads(line[6:])["choices"][0]["delta"].get("content") or ""


TOO_LONG = (
    r"This model's maximum context length is 4096 tokens\. However, you requested 5\d+ tokens \(5000 in the "
    r"messages, \d+ in the completion\)\. Please reduce the length of the messages or completion\. "
    r"\(context_length_exceeded\)"
)
"""OpenAI's message, by which clients recognise a full context."""


@endpoints
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PromptTooLong(5000, 4095), 400, "context_length_exceeded"),
        (QueueFull(256), 429, "rate_limit_exceeded"),
        (ShuttingDown(), 503, "shutting_down"),
        (EngineDied(), 503, "engine_died"),
    ],
)
@streaming
def test_what_is_refused_before_the_first_byte_is_a_status(tiny_tokenizer, path, error, status, code, stream):
    def refuse(request):
        raise error

    with live(tiny_tokenizer, refuse) as server:
        answer = server.http.post(path, json={**ENDPOINTS[path], "stream": stream})
        assert server.worker.wait_until_idle()
    assert answer.status_code == status
    told = answer.json()["error"]
    words = TOO_LONG if status == 400 else re.escape(str(error))
    assert told["code"] == code
    assert re.fullmatch(words, told["message"])
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    if status == 400:
        assert told["param"] == ("prompt" if path == "/v1/completions" else "messages")
        assert "5000" in told["message"]
        assert "4096" in told["message"]


def test_a_refused_choice_takes_its_siblings_with_it(tiny_tokenizer):
    def third_is_one_too_many(request):
        if request.id.endswith("-2"):
            raise QueueFull(2)
        return [Pause(30)]

    with live(tiny_tokenizer, third_is_one_too_many) as server:
        answer = server.http.post("/v1/chat/completions", json={**HI, "n": 3})
        assert server.worker.wait_until_idle()
    assert answer.status_code == 429


def test_more_answers_than_can_ever_wait_are_the_request_s_fault(tiny_tokenizer):
    settings = Settings(max_queued=4)
    with live(tiny_tokenizer, final("x"), settings=settings) as server:
        answer = server.http.post("/v1/completions", json={"prompt": ["a"] * 5})
    assert answer.status_code == 400
    assert "at most 4" in answer.json()["error"]["message"]


@endpoints
@pytest.mark.parametrize(
    ("error", "status"), [(DeadlineExceeded(5), 504), (NonFinite(), 500), (EngineDied(), 503)]
)
def test_what_fails_later_is_a_status_for_a_whole_answer(tiny_tokenizer, path, error, status):
    with live(tiny_tokenizer, ["<|channel|>final<|message|>begun", Pause(0.01), error]) as server:
        answer = server.http.post(path, json=ENDPOINTS[path])
        assert server.worker.wait_until_idle()
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == str(error)


@endpoints
@pytest.mark.parametrize("error", [DeadlineExceeded(5), NonFinite(), EngineDied(), ShuttingDown()])
def test_what_fails_later_is_an_event_of_a_stream(tiny_tokenizer, path, error):
    with live(tiny_tokenizer, ["<|channel|>final<|message|>begun", Pause(0.01), error]) as server:
        answer = server.http.post(path, json={**ENDPOINTS[path], "stream": True})
        assert server.worker.wait_until_idle()
    assert answer.status_code == 200
    *_, failed, done = [line for line in answer.text.split("\n") if line]
    assert json.loads(failed.removeprefix("data: "))["error"]["message"] == str(error)
    assert done == "data: [DONE]"
    assert '"content":"n"' in answer.text or '"text":"n"' in answer.text  # what came before is not lost


def test_the_openai_client_raises_what_happened_in_mid_stream(tiny_tokenizer):
    with live(tiny_tokenizer, ["<|channel|>final<|message|>begun", Pause(0.01), NonFinite()]) as server:
        stream = server.openai().chat.completions.create(model="tiny", **HI, stream=True)
        with pytest.raises(openai.APIError, match="not finite"):
            list(stream)


@endpoints
@streaming
def test_an_exception_nobody_expected_leaks_nothing(tiny_tokenizer, path, stream):
    broken = RuntimeError("/secret/path at 0xdeadbeef")
    with live(tiny_tokenizer, ["<|channel|>final<|message|>x", Pause(0.01), broken]) as server:
        answer = server.http.post(path, json={**ENDPOINTS[path], "stream": stream})
        assert server.worker.wait_until_idle()
    assert answer.status_code == (200 if stream else 500)
    assert "secret" not in answer.text
    assert "server_error" in answer.text
    assert answer.headers["x-request-id"]


def test_a_failed_choice_ends_the_whole_answer(tiny_tokenizer):
    def second_fails(request):
        return [NonFinite()] if request.id.endswith("-1") else [Pause(30), final("never")]

    with live(tiny_tokenizer, second_fails) as server:
        answer = server.http.post("/v1/chat/completions", json={**HI, "n": 3}, timeout=20)
        assert server.worker.wait_until_idle()
    assert answer.status_code == 500


def test_silence_is_filled_with_comments(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr("server.streaming.PING_SECONDS", 0.05)
    with live(tiny_tokenizer, [Pause(0.3), final("Hello")]) as server:
        with server.http.stream("POST", "/v1/chat/completions", json={**HI, "stream": True}) as answer:
            lines = list(answer.iter_lines())
        whole = server.openai().chat.completions.create(model="tiny", **HI, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in whole) == "Hello"
    assert lines.count(": ping") >= 2
    assert lines.index(": ping") < next(i for i, line in enumerate(lines) if line.startswith("data:"))


def test_a_client_that_stops_reading_is_given_up(tiny_tokenizer, monkeypatch):
    """The client never closes its connection."""
    monkeypatch.setattr(BoundedProtocol, "stuck_seconds", 0.4)
    script = ["<|channel|>final<|message|>", *[[id] for id in tiny_tokenizer.encode("x" * 20_000)]]
    with live(tiny_tokenizer, script, max_context=2**30) as server, connect(server, 4096) as client:
        client.sendall(request_bytes("/v1/chat/completions", stream=True))
        assert wait_for(lambda: server.worker.requests)
        assert server.worker.wait_until_idle(60)
        assert b"[DONE]" not in drained(client)


def drained(client):
    """Read until the server closes the connection; fails if it does not."""
    received = b""
    try:
        while piece := client.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received


def test_many_that_vanish_leave_nothing_behind(tiny_tokenizer):
    with live(tiny_tokenizer, [Pause(30)]) as server:
        clients = []

        def vanish(stream):
            client = connect(server)
            client.sendall(request_bytes("/v1/chat/completions", stream=stream))
            clients.append(client)

        threads = [threading.Thread(target=vanish, args=(i % 2 == 0,)) for i in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wait_for(lambda: len(server.worker.open) == 40)
        for client in clients:
            client.close()
        assert server.worker.wait_until_idle()


def test_health_and_readiness(tiny_tokenizer):
    with live(tiny_tokenizer, final("x"), settings=Settings()) as server:
        assert server.http.get("/health").status_code == 200
        assert server.http.get("/ready").status_code == 200
        server.worker.draining = True
        assert server.http.get("/health").status_code == 200
        assert server.http.get("/ready").status_code == 503
        server.worker.died = RuntimeError()
        for path in ("/health", "/ready"):
            answer = server.http.get(path)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "engine_died"
            assert answer.headers["retry-after"]
