"""Slow requests are refused after a time limit; slow readers of an answer are served."""

import time
from contextlib import suppress

import pytest

from server import middleware
from server.front.protocol import BoundedProtocol
from tests.server.fakes import Pause, final, live
from tests.server.test_endings import connect

CHAT = "/v1/chat/completions"


@pytest.fixture
def hasty(monkeypatch):
    """Headers and bodies must come within a second."""
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 1.0)
    monkeypatch.setattr(middleware, "BODY_SECONDS", 1.0)


def everything(client):
    """Read until the server closes the connection; fails if it does not within the socket's time limit."""
    found = b""
    while chunk := client.recv(4096):
        found += chunk
    return found


@pytest.mark.parametrize("begun", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"])
def test_a_header_that_does_not_come_ends_the_connection(tiny_tokenizer, hasty, begun):
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        client.sendall(begun)
        assert everything(client) == b""


def test_a_header_that_drips_ends_the_connection(tiny_tokenizer, hasty):
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n")
        began = time.monotonic()
        with suppress(OSError):  # closed, in one of several ways
            while time.monotonic() - began < 20:
                client.sendall(b"x: y\r\n")
                time.sleep(0.05)
        assert time.monotonic() - began < 15


def test_a_body_that_does_not_come_is_a_408(tiny_tokenizer, hasty):
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        client.sendall(f'{head}content-length: 100\r\n\r\n{{"messages"'.encode())
        answer = everything(client)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_too_slow" in answer


def test_an_answer_may_take_longer_than_a_question(tiny_tokenizer, hasty):
    slow = ["<|channel|>final<|message|>a", Pause(1.5), "b<|return|>"]
    with live(tiny_tokenizer, slow) as server:
        for stream in (False, True):
            asked = {"messages": [{"role": "user", "content": "Hi"}], "stream": stream}
            answer = server.http.post(CHAT, json=asked)
            assert answer.status_code == 200
            assert '"finish_reason":"stop"' in answer.text.replace(" ", "")


def test_a_second_request_on_a_connection_has_time_of_its_own(tiny_tokenizer, hasty):
    with live(tiny_tokenizer, final("ok")) as server:
        for _ in range(4):
            assert server.http.get("/health").status_code == 200
            time.sleep(0.3)
