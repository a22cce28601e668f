"""Keys, limits of bodies, request ids, CORS, and the log line of a request."""

import asyncio
import json
import logging
import time
from types import SimpleNamespace

import pytest

from server import logs
from server.middleware import RequestMiddleware
from server.settings import Settings
from tests.server.fakes import Pause, final, live
from tests.server.test_endings import connect

BODY = {"messages": [{"role": "user", "content": "my secret question"}]}
CHAT = "/v1/chat/completions"
PATHS = ["/v1/models", "/v1/models/tiny", "/openapi.json", "/page/server", "/nothing", "/metrics"]


@pytest.fixture(scope="module")
def locked(tiny_tokenizer, tmp_path_factory):
    """A server with three keys, two of them in a file."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("# of the team\nsk-file-1\n\n  sk-file-2  \n")
    settings = Settings(
        api_key=("sk-flag",),
        api_key_file=file,
        max_body_bytes=2000,
        cors_origin=("https://good.example",),
        date="2025-06-28",
    )
    with live(tiny_tokenizer, final("a secret answer"), settings=settings) as server:
        yield server


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("key", ["sk-flag", "sk-file-1", "sk-file-2"])
def test_any_of_the_keys_opens(locked, key):
    assert locked.http.get("/v1/models", headers=bearer(key)).status_code == 200
    assert locked.http.post(CHAT, json=BODY, headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("sk-wrong"),
        bearer("sk-fla"),
        bearer("sk-flag2"),
        bearer("# of the team"),
        {"authorization": "sk-flag"},
        {"authorization": "Basic sk-flag"},
        {"authorization": "Bearer"},
        {"authorization": b"Bearer \xff\xfe"},
    ],
)
def test_without_a_key_every_route_is_shut(locked, headers):
    for path in PATHS:
        answer = locked.http.get(path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "invalid_api_key"
    for path in (CHAT, "/v1/completions", "/tokenize", "/detokenize", CHAT + "/render"):
        assert locked.http.post(path, json=BODY, headers=headers).status_code == 401, path


def test_probes_need_no_key(locked):
    assert locked.http.get("/health").status_code == 200
    assert locked.http.get("/ready").status_code == 200


def test_without_keys_any_key_will_do(tiny_tokenizer):
    with live(tiny_tokenizer, final("x")) as server:
        assert server.http.get("/v1/models").status_code == 200
        assert server.http.get("/v1/models", headers=bearer("anything")).status_code == 200


def test_a_body_that_says_it_is_too_long_is_refused_unread(locked):
    with connect(locked) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-flag\r\n"
        client.sendall(f"{head}content-length: 1000000000\r\n\r\n".encode())
        answer = client.recv(4096)
    assert b" 413 " in answer
    assert b"2000 bytes" in answer


def test_a_body_that_grows_too_long_is_refused_while_it_is_read(locked):
    def endless():
        for _ in range(10_000):
            yield b" " * 1000

    try:
        answer = locked.http.post(
            CHAT, content=endless(), headers={**bearer("sk-flag"), "content-type": "application/json"}
        )
    except OSError:
        pytest.skip("the client saw the connection close before it read the answer")
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


def test_a_body_that_is_just_short_enough_is_read(locked):
    raw = json.dumps(BODY).encode().ljust(2000)
    headers = {**bearer("sk-flag"), "content-type": "application/json"}
    assert locked.http.post(CHAT, content=raw, headers=headers).status_code == 200
    assert locked.http.post(CHAT, content=raw + b" ", headers=headers).status_code == 413


def test_every_response_has_an_id(tiny_tokenizer):
    with live(tiny_tokenizer, final("x")) as server:
        answers = [
            server.http.post(CHAT, json=BODY),
            server.http.post(CHAT, json={**BODY, "stream": True}),
            server.http.post(CHAT, content=b"{"),
            server.http.get("/nothing"),
            server.http.get("/health"),
        ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("given", "kept"), [("abc-123.x:y", True), ("a b", False), ("x" * 200, False)])
def test_a_proxy_s_id_is_kept_if_it_is_safe_to_log(tiny_tokenizer, given, kept):
    with live(tiny_tokenizer, final("x")) as server:
        answer = server.http.get("/health", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) == kept


def test_pages_of_a_named_origin_may_call(locked):
    asked = {"origin": "https://good.example", "access-control-request-method": "POST"}
    preflight = locked.http.options(
        CHAT, headers={**asked, "access-control-request-headers": "authorization"}
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://good.example"
    refused = locked.http.options(CHAT, headers={**asked, "origin": "https://evil.example"})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


def test_cors_is_off_unless_asked_for(tiny_tokenizer):
    with live(tiny_tokenizer, final("x")) as server:
        answer = server.http.post(CHAT, json=BODY, headers={"origin": "https://good.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def facts(caplog, path=CHAT):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = [r.facts for r in caplog.records if r.name == "gptoss.requests" and r.facts["path"] == path]
        if found:
            return found
        time.sleep(0.005)
    return []


@pytest.mark.parametrize("stream", [False, True])
def test_the_log_has_one_line_for_a_request_with_its_figures(tiny_tokenizer, caplog, stream):
    caplog.set_level(logging.INFO)
    with live(tiny_tokenizer, final("a secret answer"), cached_tokens=7) as server:
        answer = server.http.post(CHAT, json={**BODY, "stream": stream}, headers=bearer("sk-secret"))
        (said,) = facts(caplog)
        prompt = len(server.worker.requests[0].prompt)
    assert said["request"] == answer.headers["x-request-id"]
    assert (said["method"], said["status"], said["finish"]) == ("POST", 200, "stop")
    assert said["prompt_tokens"] == prompt
    assert said["cached_tokens"] == 7
    assert said["completion_tokens"] == len(tiny_tokenizer.encode_with_specials(final("a secret answer")))
    assert 0 <= said["first_token_seconds"] <= said["seconds"] < 60
    assert "secret" not in caplog.text
    assert "secret" not in str(said)


def test_the_log_says_that_a_client_left(tiny_tokenizer, caplog):
    caplog.set_level(logging.INFO)
    with live(tiny_tokenizer, [Pause(30)]) as server, connect(server) as client:
        raw = json.dumps(BODY).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)
        while not server.worker.open:
            time.sleep(0.002)
        client.close()
        (said,) = facts(caplog)
    assert said["status"] == 499


def test_an_unexpected_failure_is_logged_once_with_its_traceback(tiny_tokenizer, caplog):
    caplog.set_level(logging.INFO)
    with live(tiny_tokenizer, [RuntimeError("boom")]) as server:
        assert server.http.post(CHAT, json=BODY).status_code == 500
        facts(caplog)
    traces = [record for record in caplog.records if record.exc_info]
    assert len(traces) == 1
    assert "boom" in str(traces[0].exc_info[1])


FORGED = "x\n12:00:00 INFO gptoss.requests: request path=/\x1b[2J\x07\x00\u2028\u202e\x85 status=200 \ud800"


def text_line(record):
    return logs.TextFormatter().format(
        logging.makeLogRecord({"name": "gptoss", "levelname": "INFO", **record})
    )


def test_a_client_cannot_write_a_line_of_the_text_log(tiny_tokenizer, caplog):
    """It was possible: a path is unquoted before it is logged, so %0a became a line break."""
    caplog.set_level(logging.INFO)
    path = "/v1/models/%0a12:00:00%20INFO%20x:%20request%20status=200%1b%5b2J%07%00%e2%80%a8%e2%80%ae"
    with live(tiny_tokenizer, final("x")) as server:
        assert server.http.get(path).status_code == 404
    (record,) = [r for r in caplog.records if r.name == "gptoss.requests" and "INFO" in r.facts["path"]]
    line = logs.TextFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert "status=404" in line
    assert 'path="/v1/models/\\n12:00:00 INFO' in line  # quoted, so that its facts are not taken for ours


def test_a_text_line_is_one_line_whatever_is_said():
    for line in (
        text_line({"msg": FORGED}),
        text_line({"msg": "m", "facts": {"path": FORGED}}),
        text_line({"msg": "%s", "args": (FORGED,)}),
    ):
        assert line.isprintable()
        assert line.isascii()
    assert text_line({"msg": "m", "facts": {"path": "/a/b", "seconds": 0.5}}).endswith(
        "m path=/a/b seconds=0.5"
    )


def test_a_traceback_in_the_text_log_is_set_in_and_escaped():
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    first, *others = text_line({"msg": "m", "exc_info": info}).split("\n")
    assert first.endswith("INFO gptoss: m")
    assert len(others) > 2
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_a_long_path_is_logged_in_short(tiny_tokenizer, caplog):
    caplog.set_level(logging.INFO)
    with live(tiny_tokenizer, final("x")) as server:
        server.http.get("/v1/models/" + "a" * 50_000)
    assert max(len(r.facts["path"]) for r in caplog.records if r.name == "gptoss.requests") < 300


def test_lines_of_the_json_log_are_objects():
    record = logging.makeLogRecord(
        {"name": "gptoss", "levelname": "INFO", "msg": 'a "b"\nc', "facts": {"x": 1}}
    )
    line = json.loads(logs.JsonFormatter().format(record))
    assert (line["message"], line["x"], line["level"]) == ('a "b"\nc', 1, "info")


def test_a_length_of_thousands_of_digits_is_a_400_of_the_middleware_too():
    """The parser of our own server refuses it before, but others run this application too (deploy/ray)."""
    sent = []

    async def send(message):
        sent.append(message)

    async def ask():
        wrapped = RequestMiddleware(None, (), 10, SimpleNamespace(finished=lambda outcome: None))
        head = {"type": "http", "method": "POST", "path": "/tokenize", "query_string": b""}
        await wrapped({**head, "headers": [(b"content-length", b"7" * 5000)]}, never, send)

    async def never():
        await asyncio.Event().wait()

    asyncio.run(asyncio.wait_for(ask(), 20))
    assert sent[0]["status"] == 400
