"""Middleware in Ray's HTTP proxies that sends all requests of a session to one replica.

That replica has cached the prefix of the session's conversation.  Ray's ConsistentHashRouter sends requests
with the same `x-session-id` to one replica.  This middleware gives each request such a header, made from the
first of these that the request has:

    its header `session-id` or `x-session-id`
    `prompt_cache_key` in its body, or the id of its `conversation`
    the id of a response or conversation in its path
    the beginning of its conversation, before the first answer, which each later turn repeats
    `previous_response_id`

A request with none of them goes to any replica.

Ray also gives each request an id of its own, and its response a second header.  This middleware leaves only
ours.

Ray loads it if RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH is deploy.ray.sticky:middlewares in the environment
of its nodes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any
from uuid import uuid4

from pydantic_core import from_json
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-session-id"
REQUEST_ID = b"x-request-id"
HEADERS = frozenset({"session-id", "x-session-id"})

ASKING = re.compile(r"/v1/(chat/completions|completions|responses|messages)(/count_tokens|/input_tokens)?")
KEPT = re.compile(r"/v1/(?:responses|conversations)/([\w-]{1,200})(?:/|$)", re.ASCII)

MAX_BODY = 4 * 2**20
"""Maximum bytes of a body that is read for a key: reading longer ones would delay all requests of
this proxy.
"""


class Sticky:
    """Gives each request of `app` its `x-session-id`."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        key = key_of_headers(scope["headers"]) or key_of_path(scope["path"])
        if key is None and scope["method"] == "POST" and ASKING.fullmatch(scope["path"]):
            read, body = await _read(receive)
            receive = _again(read, receive)
            key = None if body is None else key_of_body(body)
        others = [(name, value) for name, value in scope["headers"] if _plain(name) not in HEADERS]
        if key is not None:
            # A hash, because a client's text may be of any length, and must not appear in a header.
            others.append((HEADER, hashlib.sha256(key.encode(errors="replace")).hexdigest()[:32].encode()))
        if not any(name.lower() == REQUEST_ID for name, _ in others):
            others.append((REQUEST_ID, f"req_{uuid4().hex}".encode()))

        async def send_with_one_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _one_id(message["headers"])}
            await send(message)

        await self._app({**scope, "headers": others}, receive, send_with_one_id)


def _one_id(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The first x-request-id, which is the application's, and all other headers."""
    found: list[tuple[bytes, bytes]] = []
    told = False
    for name, value in headers:
        is_id = name.lower() == REQUEST_ID
        if not (is_id and told):
            found.append((name, value))
        told = told or is_id
    return found


def middlewares() -> list[Middleware]:
    """For Ray."""
    return [Middleware(Sticky)]


def key_of_headers(headers: list[tuple[bytes, bytes]]) -> str | None:
    found = (value for name, value in headers if _plain(name) in HEADERS and value.strip())
    return next((value.decode("latin-1") for value in found), None)


def _plain(name: bytes) -> str:
    """The name with - for _, because proxies exchange the two; Codex sends session_id."""
    return name.decode("latin-1").lower().replace("_", "-")


def key_of_path(path: str) -> str | None:
    found = KEPT.match(path)
    return found[1] if found is not None and found[1] != "input_tokens" else None


def key_of_body(body: bytes) -> str | None:
    """None if the body is not JSON, which the replica will report."""
    try:
        asked = from_json(body)
    except ValueError:
        return None
    if not isinstance(asked, dict):
        return None
    named = asked.get("conversation")
    named = named.get("id") if isinstance(named, dict) else named
    for key in asked.get("prompt_cache_key"), named, _beginning(asked), asked.get("previous_response_id"):
        if isinstance(key, str) and key:
            return key
    return None


def _beginning(asked: MutableMapping[str, Any]) -> str | None:
    """The conversation before the first answer, with the system prompt."""
    said = asked.get("messages", asked.get("input"))
    if isinstance(said, str) or (asked.get("previous_response_id") and not asked.get("messages")):
        # A single text, or the continuation of a response: the next turn does not repeat it.
        return None
    if not isinstance(said, list):
        return None
    first = list(_before_the_answer(said))
    told = [asked.get("system"), asked.get("instructions"), first]
    return json.dumps(told) if first else None


def _before_the_answer(said: list[Any]) -> Iterator[Any]:
    for each in said:
        if isinstance(each, dict) and each.get("role") in ("system", "developer", "user"):
            yield each.get("content")
            if each["role"] == "user":
                return
        else:
            return


async def _read(receive: Receive) -> tuple[list[Message], bytes | None]:
    """The messages that have arrived, and the body; None if it is too long, or the client has left."""
    read: list[Message] = []
    size = 0
    while True:
        message = await receive()
        read.append(message)
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or size > MAX_BODY:
            return read, None
        if not message.get("more_body", False):
            return read, b"".join(each.get("body", b"") for each in read)


def _again(read: list[Message], receive: Receive) -> Receive:
    """A `receive` that returns the messages that were read, then the following ones."""
    left = iter(read)

    async def receive_again() -> Message:
        return next(left, None) or await receive()

    return receive_again
