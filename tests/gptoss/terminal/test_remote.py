"""Answers over HTTP: from this server with a script, and from servers that are broken."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from engine.errors import EngineDied
from gptoss.terminal.answers import ChatError, Piece, PromptProgress, Question
from gptoss.terminal.remote import Remote, api_url
from language.harmony.messages import Message
from server.settings import Settings
from tests.server.fakes import Pause, final, live

HI = Question([Message("system", "Be kind."), Message("user", "Hi")])


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("https://example.com/openai/v1/chat/completions", "https://example.com/openai/v1"),
        ("http://[::1]:80", "http://[::1]/v1"),
    ],
)
def test_where_the_endpoints_are(given, url):
    assert api_url(given) == url


@pytest.mark.parametrize("given", ["ftp://example.com", "http://", "http://:80", "http://[::1"])
def test_addresses_that_are_none(given):
    with pytest.raises(ChatError, match="is not the URL of a server"):
        api_url(given)


def said(pieces, kind):
    return "".join(piece.text for piece in pieces if piece.kind == kind)


def test_reasoning_and_answer_come_apart(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello!", "A greeting.")) as server:
        remote = Remote(server.url, None, None)
        assert remote.name == "tiny"
        pieces = list(remote.answer(HI))
        assert said(pieces, "reasoning") == "A greeting."
        assert said(pieces, "content") == "Hello!"
        asked = server.worker.requests[0]
        assert "Be kind." in tiny_tokenizer.decode(asked.prompt)


def test_what_was_set_is_sent(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello, how are you?")) as server:
        question = Question(HI.messages, effort="high", temperature=0.5, max_tokens=5)
        pieces = list(Remote(server.url, None, "tiny").answer(question))
        asked = server.worker.requests[0]
        assert (asked.max_tokens, asked.sampling.temperature) == (5, 0.5)
        assert "Reasoning: high" in tiny_tokenizer.decode(asked.prompt)
        assert [piece.kind for piece in pieces].count("note") <= 1


def test_closing_an_answer_stops_it(tiny_tokenizer):
    with live(tiny_tokenizer, ["<|channel|>final<|message|>Once", Pause(60)]) as server:
        answer = Remote(server.url, None, None).answer(HI)
        assert next(answer).text
        answer.close()
        assert server.worker.wait_until_idle()


def test_a_failure_in_mid_answer_is_told(tiny_tokenizer):
    with live(tiny_tokenizer, ["<|channel|>final<|message|>Once", EngineDied()]) as server:
        pieces = []
        with pytest.raises(ChatError, match="engine"):
            pieces.extend(Remote(server.url, None, None).answer(HI))


def test_a_key_is_asked_for_and_sent(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello!"), settings=Settings(api_key=("k",))) as server:
        with pytest.raises(ChatError, match="--api-key or OPENAI_API_KEY"):
            Remote(server.url, "wrong", None)
        assert said(Remote(server.url, "k", None).answer(HI), "content") == "Hello!"


def test_another_model_must_exist(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello!")) as server:
        remote = Remote(server.url, None, None)
        with pytest.raises(ChatError, match="there are tiny"):
            remote.choose("other")
        remote.choose("tiny")


def test_nobody_there_is_told():
    with pytest.raises(ChatError, match=r"cannot reach http://127\.0\.0\.1:9/v1"):
        Remote("127.0.0.1:9", None, None)


@contextmanager
def another_server(models: bytes, answer: bytes = b"", status: int = 200):
    """A server of another kind."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send(models)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(answer)

        def send(self, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("models", "status", "hint"),
    [
        (b"<html>", 200, "does not answer in JSON"),
        (b'{"data": []}', 200, "lists no model"),
        (b'{"data": [1]}', 200, "is not a list of models"),
        (b"[]", 200, "is not a list of models"),
        (b"busy", 503, "503 Service Unavailable"),
        (b'{"error": {"message": "not\\nnow"}}', 503, "not now"),
    ],
)
def test_what_is_no_such_server_is_told(models, status, hint):
    with another_server(models, status=status) as url, pytest.raises(ChatError, match=hint):
        Remote(url, None, None)


def test_events_of_another_server_are_read():
    events = (
        b": a comment\r\n: prompt 512/7511\r\n: prompt 1/2/3\nevent: message\r\n"
        b'data:{"choices":[{"delta":{"role":"assistant","content":null,"reasoning":"h\xc3\xb6m"}}]}\r\n\r\n'
        b'data: {"choices":[]}\n\n'
        b'data: {"choices":[{"delta":{"content":"a\xe2\x80\xa8b"},"finish_reason":null}]}\n\n'
        b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\ndata: [DONE]\n\nnothing more'
    )
    with another_server(b'{"data": [{"id": "m"}]}', events) as url:
        pieces = list(Remote(url, None, None).answer(HI))
    assert pieces[:3] == [PromptProgress(512, 7511), Piece("reasoning", "höm"), Piece("content", "a\u2028b")]
    assert [piece.kind for piece in pieces[1:]] == ["reasoning", "content", "note"]
