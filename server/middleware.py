"""The middleware around every request: request id, Host check, API key, rate limit, limits on the body, and
one log line.

Plain ASGI, because Starlette's BaseHTTPMiddleware buffers streams and hides that a client has disconnected.
It wraps everything else, so that the response to an internal error has the request id too.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import logs
from server.api.messages import errors as anthropic
from server.error_responses import error_response
from server.errors import ApiError, BodyRefused, BodyTooLarge, BodyTooSlow, bad_request
from server.fields.reading import HEADER as IGNORED
from server.front.allowed_hosts import AllowedHosts
from server.front.body_memory import ArrivingBody, BodyMemory, too_much_at_once
from server.front.heap import Heap
from server.front.rate_limiter import RateLimiter
from server.metrics import Metrics

if TYPE_CHECKING:
    from server.traces import Traces

log = logging.getLogger("gptoss.server")

CLIENT_LEFT = 499

LENGTH_DIGITS = 18
"""Maximum digits of a Content-Length, not counting leading zeros."""

BODY_SECONDS = 60.0
"""Time within which the whole body of a request must arrive."""

LINGER_SECONDS = 1.0
"""After refusing a request, wait this long for a client that is still sending its body; then close."""

LINGER_BYTES = 2**20
"""At most this much of such a body is read and discarded meanwhile."""

KEYLESS_PATHS = frozenset({"/health", "/ready"})
"""Paths that need no key: the supervisor that checks them and restarts the server has none."""

UNLIMITED_PATHS = frozenset({"/metrics", "/page/markdown"})
"""Paths without a rate limit: monitoring and the chat page request them every few seconds."""


class RequestMiddleware:
    """Wraps `app`.

    keys            API keys, any of which is accepted; none: no key is needed
    max_body_bytes  longer bodies are refused while they are read
    metrics         counts every response
    allowed_hosts   names this server may be called by; checked only where no key is needed
    rate_limiter    limits the requests of each key; without keys, all callers share one limit
    pages           paths of static files, which need no key
    heap            notified at the end of every request
    traces          notified of every request
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        max_body_bytes: int,
        metrics: Metrics,
        allowed_hosts: AllowedHosts | None = None,
        rate_limiter: RateLimiter | None = None,
        pages: Collection[str] = (),
        heap: Heap | None = None,
        traces: Traces | None = None,
    ):
        self._app = app
        self._digests = [_digest(key) for key in keys]
        self._max_body_bytes, self._body_memory = max_body_bytes, BodyMemory(max_body_bytes)
        self._metrics, self._traces = metrics, traces
        self._allowed_hosts = allowed_hosts or AllowedHosts(())
        self._rate_limiter = rate_limiter or RateLimiter(None)
        self._pages = frozenset(pages)
        self._heap = heap or Heap()
        self._unlimited = self._pages | UNLIMITED_PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if scope["method"] == "HEAD":  # handled as GET; the protocol sends only the head of the response
            scope = {**scope, "method": "GET"}
        started_at = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        body = _RequestBody(receive, headers, self._max_body_bytes, self._body_memory)
        state["body_parsed"] = body.parsed
        status = 0
        unread = False

        async def tagged(message: Message) -> None:
            nonlocal status, unread
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [(b"x-request-id", request_id.encode())]
                if anthropic.asked_by(scope):
                    more.append((b"request-id", request_id.encode()))
                if ignored := state.get("ignored"):
                    more.append((IGNORED.encode(), ", ".join(ignored).encode("ascii", "backslashreplace")))
                if unread := not await body.has_come():
                    more.append((b"connection", b"close"))
                message["headers"] = [*message["headers"], *more]
            elif unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            state["caller"] = self._admit(scope, headers)
            await self._app(scope, body.receive, tagged)
        except Exception as error:
            if not isinstance(error, ApiError | BodyRefused):
                log.exception("request %s failed", request_id)
            if status:  # the status has been sent already: the server closes the connection
                raise
            await error_response(error, scope)(scope, receive, tagged)
        finally:
            body.parsed()
            outcome = logs.Outcome(status or CLIENT_LEFT, started_at, state.get("figures"))
            self._metrics.finished(outcome)
            logs.finished(request_id, scope["method"], scope["path"], outcome)
            self._heap.was_used()
            if self._traces is not None:
                self._traces.finished(scope, request_id, outcome)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Check the headers.  Returns the caller's id, "" without keys.  Raises ApiError or BodyTooLarge."""
        length = headers.get(b"content-length", b"0").lstrip(b"0")
        if len(length) > LENGTH_DIGITS:
            raise bad_request("content-length: it is not a length", None)
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise BodyTooLarge(self._max_body_bytes)
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:  # RFC 9112, section 3.2
            raise bad_request("host: there is more than one", None)
        if scope["path"] in KEYLESS_PATHS:
            return ""
        caller = ""
        if self._digests:
            caller = "" if scope["path"] in self._pages else self._authenticate(headers)
        elif not self._allowed_hosts.allows(host := headers.get(b"host", b"").decode("latin-1")):
            message = f"{host!r} is not a name of this server; --allowed-host adds one"
            raise ApiError(421, message, code="unknown_host")
        if scope["path"] not in self._unlimited and (seconds := self._rate_limiter.take(caller)):
            message = f"too many requests a minute; try again in {seconds} s"
            headers_back = {"retry-after": str(seconds)}
            raise ApiError(429, message, code="rate_limit_exceeded", headers=headers_back)
        return caller

    def _authenticate(self, headers: dict[bytes, bytes]) -> str:
        """The caller's id: the first 16 digits of its key's digest.  Raises ApiError without a valid key."""
        kind, _, key = headers.get(b"authorization", b"").partition(b" ")
        keys = [key if kind.lower() == b"bearer" else b"", headers.get(b"x-api-key", b"")]
        given = [_digest(key.strip()) for key in keys if key.strip()]
        # All digests are compared, each in constant time: the duration reveals nothing about the keys.
        right = [each for each in given for known in self._digests if hmac.compare_digest(each, known)]
        if not right:
            raise ApiError(
                401,
                "a valid key is needed, as `Authorization: Bearer KEY` or `x-api-key: KEY`",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return right[0].hex()[:16]


class _RequestBody(ArrivingBody):
    """Receives the body of a request, within limits of size, time, and memory of all bodies together."""

    def __init__(self, receive: Receive, headers: dict[bytes, bytes], max_bytes: int, memory: BodyMemory):
        self._receive = receive
        self._max_bytes, self._memory = max_bytes, memory
        self._refused = False
        self._waiting: asyncio.Timeout | None = None
        self._length = 0
        given = headers.get(b"content-length", b"").strip(b"0") or b"transfer-encoding" in headers
        self._complete = not given
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def receive(self) -> Message:
        """The next message.  Raises BodyTooLarge (the length of a chunked body is not known before),
        BodyTooSlow, or BodyUnfit.
        """
        if self._complete:
            return await self._receive()  # no time limit: the next message only says that the client left
        try:
            async with asyncio.timeout_at(self._deadline) as self._waiting:
                message = await self._take()
        except TimeoutError:
            if not self._refused:
                raise BodyTooSlow(BODY_SECONDS) from None
        finally:
            self._waiting = None
        if self._refused:
            raise too_much_at_once()
        if self._length > self._max_bytes:
            raise BodyTooLarge(self._max_bytes)
        self._memory.add(self, len(message.get("body", b"")))
        return message

    @property
    def arriving(self) -> bool:
        return not self._complete

    def refuse(self) -> None:
        self._refused, self._deadline = True, 0.0
        if self._waiting is not None:
            self._waiting.reschedule(0)

    def parsed(self) -> None:
        """Call this when the bytes of the body are no longer in memory."""
        self._memory.release(self)

    async def has_come(self) -> bool:
        """Whether the whole body has arrived.  Discards what has arrived and was not read."""
        before = self._length
        with suppress(TimeoutError):
            async with asyncio.timeout(0):  # takes what has arrived, without waiting for more
                while not self._complete and self._length - before <= LINGER_BYTES:
                    await self._take()
        return self._complete

    async def discard(self) -> None:
        """Read and discard the rest, for at most LINGER_SECONDS."""
        before = self._length
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self._complete and self._length - before <= LINGER_BYTES:
                    await self._take()

    async def _take(self) -> Message:
        message = await self._receive()
        self._complete = not message.get("more_body", False)  # also false once the client has disconnected
        self._length += len(message.get("body", b""))
        return message


def _digest(key: str | bytes) -> bytes:
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def _request_id(headers: dict[bytes, bytes]) -> str:
    """The id that a proxy sent, if it is safe to log, so that both logs have the same id; otherwise a new
    one.
    """
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if re.fullmatch(r"[\w.:-]{1,128}", given, re.ASCII) else f"req_{uuid4().hex}"
