"""Which requests belong to one session in Ray's proxies: deploy/ray/sticky.py, tested without Ray."""

import asyncio
import json

import pytest

from deploy.ray import sticky
from deploy.ray.sticky import Sticky

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SYSTEM = {"role": "system", "content": "Be brief."}
HI = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello!"}
MORE = {"role": "user", "content": "More"}


class Replica:
    """What reaches it."""

    async def __call__(self, scope, receive, send):
        self.scope, self.body, self.events = scope, b"", []
        while True:
            message = await receive()
            self.events.append(message["type"])
            self.body += message.get("body", b"")
            if not message.get("more_body", False):
                return


def sent(body=None, path=CHAT, headers=None, method="POST", pieces=None, kind="http"):
    """Send one request.  Returns the replica."""
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    parts = pieces or [raw]
    waiting = [
        {"type": "http.request", "body": part, "more_body": i < len(parts) - 1}
        for i, part in enumerate(parts)
    ]

    async def receive():
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
    }
    replica = Replica()
    asyncio.run(Sticky(replica)(scope, receive, None))
    assert replica.body == b"".join(parts)
    return replica


def session(*args, **more):
    """The session id that the router gets; None: there is none."""
    given = [value for name, value in sent(*args, **more).scope["headers"] if name == sticky.HEADER]
    assert len(given) <= 1
    return given[0].decode() if given else None


@pytest.mark.parametrize("name", ["session-id", "x-session-id", "session_id", "X-Session-Id"])
def test_a_session_named_in_a_header_is_one_whatever_is_asked(name):
    one = session({"messages": [HI]}, headers={name: "a"})
    assert one == session({"input": "x"}, path=RESPONSES, headers={name: "a"})
    assert one == session(path="/v1/models", method="GET", headers={name: "a"})
    assert one == session({"messages": [HI], "prompt_cache_key": "k"}, headers={name: "a"})
    assert one != session({"messages": [HI]}, headers={name: "b"})


@pytest.mark.parametrize("value", ["a" * 5000, "\xff\x80", "; drop", "💥".encode().decode("latin-1")])
def test_what_a_client_names_goes_no_further_than_its_hash(value):
    assert len(session({"messages": [HI]}, headers={"x-session-id": value})) == 32


def test_the_turns_of_a_conversation_are_one_session():
    first = session({"messages": [SYSTEM, HI]})
    assert first == session({"messages": [SYSTEM, HI, HELLO, MORE], "temperature": 0})
    assert first != session({"messages": [SYSTEM, MORE]})
    assert first != session({"messages": [HI]})
    items = session({"input": [HI], "instructions": "Be brief."}, path=RESPONSES)
    later = {"input": [HI, {"type": "reasoning"}, HELLO, MORE], "instructions": "Be brief."}
    assert items == session(later, path=RESPONSES)
    claude = session({"system": "Be brief.", "messages": [HI]}, path="/v1/messages")
    assert claude == session({"system": "Be brief.", "messages": [HI, HELLO, MORE]}, path="/v1/messages")


def test_a_key_in_the_body_is_the_session():
    assert session({"messages": [HI], "prompt_cache_key": "k"}) == session(
        {"input": "x", "prompt_cache_key": "k", "previous_response_id": "resp_1"}, path=RESPONSES
    )


def test_a_conversation_is_one_session_in_body_and_path():
    by_id = session({"input": "x", "conversation": "conv_1"}, path=RESPONSES)
    assert by_id == session({"input": "y", "conversation": {"id": "conv_1"}}, path=RESPONSES)
    assert by_id == session(path="/v1/conversations/conv_1/items", method="GET")
    response = session({"input": "x", "previous_response_id": "resp_1"}, path=RESPONSES)
    assert response == session(path="/v1/responses/resp_1", method="DELETE")


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"{",
        b"[1]",
        b'"text"',
        b"\xff",
        b"[" * 100_000,
        {},
        {"prompt": "x"},
        {"input": "x"},
        {"messages": []},
        {"messages": [HELLO]},
        {"messages": 5, "prompt_cache_key": 7, "conversation": {"id": 8}, "previous_response_id": []},
        {"messages": [None, 3]},
        {"conversation": None},
    ],
)
def test_a_request_of_no_session_goes_anywhere(body):
    assert session(body) is None


def test_a_request_has_one_id_in_our_form_and_it_is_told_once():
    ids = [value for name, value in sent({"messages": [HI]}).scope["headers"] if name == b"x-request-id"]
    assert len(ids) == 1
    assert ids[0].startswith(b"req_")
    given = sent({"messages": [HI]}, headers={"x-request-id": "mine"}).scope["headers"]
    assert [value for name, value in given if name == b"x-request-id"] == [b"mine"]

    async def through_ray(scope, receive, send):
        ids = [(b"x-request-id", b"the application's"), (b"a", b"1"), (b"X-Request-ID", b"Ray's")]
        await send({"type": "http.response.start", "status": 200, "headers": ids})
        await send({"type": "http.response.body", "body": b"x"})

    came = []

    async def send(message):
        came.append(message)

    scope = {"type": "http", "method": "GET", "path": "/health", "headers": []}
    asyncio.run(Sticky(through_ray)(scope, None, send))
    assert came[0]["headers"] == [(b"x-request-id", b"the application's"), (b"a", b"1")]
    assert came[1] == {"type": "http.response.body", "body": b"x"}


def test_what_is_no_question_is_not_read():
    replica = sent({"prompt_cache_key": "k"}, path="/tokenize")
    assert not [name for name, _ in replica.scope["headers"] if name == sticky.HEADER]
    sent(kind="lifespan")


def test_a_body_in_pieces_and_a_body_that_is_too_long_arrive_whole(monkeypatch):
    whole = json.dumps({"messages": [HI], "prompt_cache_key": "k"}).encode()
    pieces = [whole[:5], whole[5:9], b"", whole[9:]]
    assert session(pieces=pieces) == session({"messages": [HI], "prompt_cache_key": "k"})
    monkeypatch.setattr(sticky, "MAX_BODY", 20)
    assert session(pieces=pieces) is None


def test_a_client_that_leaves_while_it_sends_is_told_to_the_replica():
    async def left():
        waiting = [
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive():
            return waiting.pop(0)

        replica = Replica()
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
        await Sticky(replica)(scope, receive, None)
        return replica.events

    assert asyncio.run(left()) == ["http.request", "http.disconnect"]
