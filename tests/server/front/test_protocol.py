"""The limits on bytes, number and time for clients whose key is not known yet."""

import json
import socket
import time
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest

from server import middleware
from server.front import protocol
from server.front.protocol import HEAD_BYTES, HEAD_FIELDS, BoundedProtocol
from server.settings import Settings
from tests.server.fakes import Pause, final, live, serving
from tests.server.test_endings import HI, connect, drained, request_bytes, wait_for

CHAT = "/v1/chat/completions"
START = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode()


def sent_until_closed(client, piece, most):
    """Number of bytes that the server read from an endless stream before it closed the connection."""
    sent = 0
    try:
        while sent < most:
            sent += client.send(piece)
    except ConnectionError:
        pass
    return sent


def is_healthy(client):
    """Whether GET /health is answered; its body may arrive separately."""
    client.sendall(START + b"\r\n")
    answer = b""
    while not answer.endswith(b"ok"):
        answer += (piece := client.recv(4096))
        assert piece, answer
    return b" 200 " in answer


PIECES = {
    "fields": b"a:b\r\n" * 1000,
    "one value": b"x" * 5000,
    "long values": b"a: " + b"y" * 5000 + b"\r\n",
    "blank lines": b"\r\n" * 2000,
}
STARTS = {"line": START, "none": b"", "path": b"GET /nowhere", "value": START + b"a: "}


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(
            STARTS[start],
            PIECES[piece],
            id=f"{start}-{piece}",
            marks=() if start == "line" or piece == "fields" else pytest.mark.exhaustive,
        )
        for start in STARTS
        for piece in PIECES
    ],
)
def test_a_head_that_never_ends_is_a_431_or_400_and_the_end(tiny_tokenizer, start, piece):
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        client.sendall(start)
        assert sent_until_closed(client, piece, 2**27) < 2**25  # what fits into the system's own buffers
        answer = drained(client)
        assert not answer or b"HTTP/1.1 4" in answer
        assert server.http.get("/health").status_code == 200


@pytest.mark.parametrize("extra", [b"a:b\r\n" * HEAD_FIELDS, b"a: " + b"x" * (HEAD_BYTES + 10_000) + b"\r\n"])
def test_a_head_that_is_too_large_is_a_431(tiny_tokenizer, extra):
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        client.sendall(START + extra + b"\r\n")
        answer = drained(client)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "head_too_large"


@pytest.mark.parametrize(
    "extra", [b"a:b\r\n" * (HEAD_FIELDS - 2), b"a: " + b"x" * (HEAD_BYTES - 5000) + b"\r\n"]
)
def test_a_head_that_is_just_small_enough_is_read(tiny_tokenizer, extra):
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        client.sendall(START + extra + b"connection: close\r\n\r\n")
        assert drained(client).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("piece", [b"a:b\r\n" * 1000, b"x" * 5000], ids=["fields", "one name"])
def test_trailers_that_never_end_end_the_connection(tiny_tokenizer, piece):
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        client.sendall(CHUNKED + b"2\r\n{}\r\n0\r\n")
        assert sent_until_closed(client, piece, 2**27) < 2**25
        assert server.http.get("/health").status_code == 200


def test_a_body_in_tiny_chunks_is_refused_after_many(tiny_tokenizer):
    """A chunk of one byte takes as much time as one of a thousand, and there were eight million."""
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        client.sendall(CHUNKED)
        assert sent_until_closed(client, b"1\r\n \r\n" * 1000, 2**26) < 2**25
        answer = drained(client)
        assert not answer or answer.startswith(b"HTTP/1.1 400 ")
        assert server.http.get("/health").status_code == 200


def test_trailers_are_not_header_fields(tiny_tokenizer):
    """They arrive after the key was checked, and could contain any header."""
    raw = json.dumps(HI).encode()
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        head = CHUNKED.replace(
            b"\r\n\r\n", b"\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n"
        )
        client.sendall(head + b"%x\r\n%s\r\n0\r\nx-request-id: forged\r\n\r\n" % (len(raw), raw))
        answer = drained(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"forged" not in answer


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_read_whole(tiny_tokenizer, chunked):
    raw = json.dumps({**HI, "user": "x" * 2**20, "max_tokens": 50}).encode()
    with live(tiny_tokenizer, final("ok")) as server:
        content = iter([raw[i : i + 100_000] for i in range(0, len(raw), 100_000)]) if chunked else raw
        answer = server.http.post(CHAT, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 200


def test_requests_sent_ahead_are_answered_in_order_and_wait_unparsed(tiny_tokenizer):
    with live(tiny_tokenizer, ["<|channel|>final<|message|>a", Pause(0.3), "<|return|>"]) as server:
        with connect(server) as client:
            client.sendall(request_bytes(CHAT) + START + b"\r\n" + START + b"connection: close\r\n\r\n")
            answer = drained(client)
        assert answer.count(b"HTTP/1.1 200 ") == 3
        assert answer.index(b"chat.completion") < answer.index(b"\r\n\r\nok")


def test_thousands_of_requests_sent_ahead_do_not_pile_up(tiny_tokenizer, monkeypatch):
    made = []
    ready = protocol.BoundedProtocol.on_headers_complete
    monkeypatch.setattr(
        BoundedProtocol, "on_headers_complete", lambda self: (made.append(self), ready(self))[1]
    )
    with live(tiny_tokenizer, [Pause(30)]) as server, connect(server) as client:
        client.sendall(request_bytes(CHAT, stream=True))
        assert wait_for(lambda: server.worker.open)
        assert sent_until_closed(client, START + b"\r\n", 2**25) < 2**25
        assert len(made) < 1000
        assert server.worker.wait_until_idle()


def test_a_client_that_sent_requests_ahead_and_leaves_is_noticed(tiny_tokenizer):
    with live(tiny_tokenizer, [Pause(30)]) as server, connect(server) as client:
        client.sendall(request_bytes(CHAT) + START + b"\r\n" + START + b"\r\n")
        assert wait_for(lambda: server.worker.open)
        client.close()
        assert server.worker.wait_until_idle(5)


def test_an_upgrade_that_nobody_knows_is_answered_and_then_the_connection_ends(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        client.sendall(START + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n")
        answer = drained(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


def test_what_is_no_http_is_a_400_of_our_shape(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")  # as TLS begins
        answer = drained(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


@pytest.mark.parametrize("length", [b"0" * 5000 + b"7", b"7" * 5000, b"-1", b"1e3"])
def test_a_content_length_that_is_no_length_is_a_400(tiny_tokenizer, length):
    """It was a 500, because int() refuses more than 4,300 digits, including leading zeros."""
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        head = b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        client.sendall(head + b"content-length: " + length + b'\r\nconnection: close\r\n\r\n{"a":1}')
        assert drained(client).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "fields",
    [
        b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: gzip\r\ntransfer-encoding: chunked",
        b"Transfer-Encoding: identity, chunked",
    ],
)
def test_a_transfer_coding_that_nobody_decodes_is_a_501(tiny_tokenizer, fields):
    """RFC 9112, 6.1.  Its body was read as if it were not coded."""
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        head = b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        client.sendall(head + fields + b'\r\n\r\nc\r\n{"prompt":"a"\r\n1\r\n}\r\n0\r\n\r\n')
        answer = drained(client)
    assert answer.startswith(b"HTTP/1.1 501 Not Implemented\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "unknown_transfer_coding"


def test_the_coding_chunked_may_be_written_in_any_case(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        head = b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        client.sendall(head + b"transfer-encoding:  CHUNKED \r\n\r\n")
        client.sendall(b'e\r\n{"prompt":"a"}\r\n0\r\n\r\n')
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


# Connections


def test_a_connection_whose_body_is_refused_unread_ends(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(middleware, "LINGER_SECONDS", 0.2)
    settings = Settings(api_key=("key",))
    with live(tiny_tokenizer, final("ok"), settings=settings) as server, connect(server) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8000000\r\n\r\n"
        client.sendall(head.encode() + b"x" * 1000)
        answer = drained(client)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_a_client_that_is_still_sending_reads_why_it_was_refused(tiny_tokenizer):
    """If the connection were closed at once, it would be reset, and the response lost."""
    with (
        live(tiny_tokenizer, final("ok"), settings=Settings(api_key=("key",))) as server,
        connect(server) as client,
    ):
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 800000\r\n\r\n"
        client.sendall(head.encode())
        for _ in range(8):
            client.sendall(b"x" * 90_000)
        time.sleep(0.2)
        assert drained(client).startswith(b"HTTP/1.1 401 ")


def test_a_connection_goes_on_after_a_refused_request_whose_body_had_come(tiny_tokenizer):
    with (
        live(tiny_tokenizer, final("ok"), settings=Settings(api_key=("key",))) as server,
        connect(server) as client,
    ):
        client.sendall(request_bytes(CHAT))
        assert b" 401 " in client.recv(4096)
        assert is_healthy(client)


BULK = 16 * 2**20
"""Bytes, more than all buffers on the way hold."""


@contextmanager
def bulky(lost, stuck=0.5):
    """A server with answers longer than all buffers; ended connections are added to `lost`."""

    class Observed(BoundedProtocol):
        stuck_seconds = stuck

        def connection_lost(self, error):
            lost.append(self)
            super().connection_lost(error)

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        length = b"%d" % BULK
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        pieces = 64 if scope["path"] == "/stream" else 1
        for i in range(pieces):
            piece = bytes(BULK // pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": i < pieces - 1})

    with serving(app, Observed) as url:
        yield SimpleNamespace(url=url)


@pytest.mark.parametrize("path", ["/whole", "/stream"])
def test_a_client_that_never_reads_is_cut_off(path):
    """Only the connection can notice this: the application waits to send, or believes that everything was
    sent.
    """
    lost = []
    with bulky(lost) as server, connect(server, 4096) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        assert wait_for(lambda: lost, 60)
        assert len(drained(client)) < BULK


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", ["/whole", "/stream"])
def test_a_client_that_reads_slowly_is_not_cut_off(path):
    lost = []
    with bulky(lost) as server, connect(server, 4096) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        received = 0
        began = time.monotonic()
        while time.monotonic() - began < 2:
            received += len(client.recv(4096))
            time.sleep(0.02)
        assert received < BULK / 4
        assert not lost
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        received += len(drained(client))
    assert received > BULK


def test_what_all_clients_together_have_not_read_is_bounded(monkeypatch):
    """A hundred clients that asked for 8 MiB and did not read took 700 MB."""
    monkeypatch.setattr(protocol, "UNREAD_BYTES", BULK + BULK // 4)  # some of it is in the system's buffers
    lost = []
    with bulky(lost, 60) as server, ExitStack() as opened:
        first, second, reads = (opened.enter_context(connect(server, 4096)) for _ in range(3))
        ask = b"GET /whole HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        first.sendall(ask)
        assert first.recv(10)
        second.sendall(ask)
        assert wait_for(lambda: lost, 30)
        assert len(drained(first)) < BULK
        assert len(lost) == 1
        reads.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        reads.sendall(ask)
        assert len(drained(reads)) > BULK
        assert len(drained(second)) < BULK


def test_blank_lines_do_not_keep_a_connection(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.5)
    with live(tiny_tokenizer, final("ok")) as server, connect(server) as client:
        assert is_healthy(client)
        client.sendall(b"\r\n")
        assert client.recv(100) == b""


@pytest.fixture
def narrow(monkeypatch):
    """Servers that accept two connections."""
    made = BoundedProtocol.__init__
    monkeypatch.setattr(
        BoundedProtocol, "__init__", lambda self, *a, **k: made(self, *a, **k, max_connections=2)
    )


def test_a_connection_that_idles_after_its_answer_ends(tiny_tokenizer, monkeypatch):
    made = BoundedProtocol.__init__

    def hasty(self, *arguments, **options):
        made(self, *arguments, **options)
        assert self.timeout_keep_alive > 0
        self.timeout_keep_alive = 0.3

    monkeypatch.setattr(BoundedProtocol, "__init__", hasty)
    with live(tiny_tokenizer, final("ok"), settings=Settings()) as server, connect(server) as client:
        client.sendall(START + b"\r\n")
        assert b" 200 " in client.recv(4096)
        assert client.recv(100) == b""


def test_a_new_connection_replaces_the_one_that_is_idle_for_longest(tiny_tokenizer, narrow):
    with ExitStack() as opened:
        server = opened.enter_context(live(tiny_tokenizer, [Pause(5), final("ok")], settings=Settings()))
        first, busy = (opened.enter_context(connect(server)) for _ in range(2))
        busy.sendall(request_bytes(CHAT, stream=True))
        assert wait_for(lambda: server.worker.open)
        second = opened.enter_context(connect(server))
        assert is_healthy(second)
        assert first.recv(100) == b""  # it had nothing to say
        assert server.worker.open  # and who is answered stays


def test_when_all_connections_are_answered_a_new_one_is_a_503(tiny_tokenizer, narrow):
    with ExitStack() as opened:
        server = opened.enter_context(live(tiny_tokenizer, [Pause(5), final("ok")], settings=Settings()))
        for _ in range(2):
            opened.enter_context(connect(server)).sendall(request_bytes(CHAT, stream=True))
        assert wait_for(lambda: len(server.worker.open) == 2)
        answer = drained(opened.enter_context(connect(server)))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"too_many_connections" in answer


def test_a_new_connection_replaces_the_one_whose_body_arrives_for_longest(tiny_tokenizer, narrow):
    """A thousand clients that stopped in the middle of their bodies locked out everybody for a minute."""
    with ExitStack() as opened:
        server = opened.enter_context(live(tiny_tokenizer, [Pause(5), final("ok")], settings=Settings()))
        whole = request_bytes(CHAT, stream=True).replace(b"\r\n", b"\r\nexpect: 100-continue\r\n", 1)
        first, second = (opened.enter_context(connect(server)) for _ in range(2))
        for client in (first, second):
            client.sendall(whole[:-1])
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # its body is waited for
        assert is_healthy(opened.enter_context(connect(server)))
        assert drained(first) == b""
        second.sendall(whole[-1:])
        assert wait_for(lambda: server.worker.open)
        assert is_healthy(opened.enter_context(connect(server)))  # in the place of the idle one
        assert server.worker.open


def test_connections_that_are_closing_are_few(tiny_tokenizer, narrow, monkeypatch):
    """Each refused connection waits a second for its client: of thousands, the descriptors would run out."""
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 25)
    monkeypatch.setattr(protocol, "MAX_CLOSING", 3)
    with ExitStack() as opened:
        server = opened.enter_context(live(tiny_tokenizer, [Pause(30)], settings=Settings()))
        for _ in range(2):
            opened.enter_context(connect(server)).sendall(request_bytes(CHAT, stream=True))
        assert wait_for(lambda: len(server.worker.open) == 2)
        refused = [opened.enter_context(connect(server)) for _ in range(10)]
        for client in refused:
            assert client.recv(12) == b"HTTP/1.1 503"
        assert wait_for(lambda: all(is_closed(client) for client in refused[:7]), 20)
        assert not any(is_closed(client) for client in refused[7:])
        assert len(server.worker.open) == 2


def is_closed(client):
    """Whether the server has closed the connection; it may have ended only its own half."""
    try:
        client.send(b"x")
    except ConnectionError:
        return True
    return False
