"""What every request passes on its way in and out: an id, a key, a limit on its body, and one line in the
log.

Plain ASGI, since Starlette's BaseHTTPMiddleware gathers streams and hides hang-ups.  The gate is the
outermost layer, so that the id is on every response, also on the one that says that we failed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Sequence
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import logs
from server.errors import ApiError, BodyRefused, BodyTooLarge, BodyTooSlow, as_api_error
from server.metrics import Metrics

log = logging.getLogger("gptoss.server")

CLIENT_LEFT = 499

BODY_SECONDS = 60.0
"""For a request's whole body to arrive."""

OPEN = frozenset({"/health", "/ready"})
"""Paths that need no key: whoever restarts us has none."""


class Gate:
    """Wraps `app`.

    keys            any of them opens; none: no key is needed
    max_body_bytes  longer bodies are refused while they are read
    metrics         told of every response
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], max_body_bytes: int, metrics: Metrics):
        self._app = app
        self._digests = [_digest(key) for key in keys]
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started_at = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        state = scope.setdefault("state", {})
        status = 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            self._check(scope, headers)
            await self._app(scope, self._limited(receive), tagged)
        except Exception as error:
            if not isinstance(error, ApiError | BodyRefused):
                log.exception("request %s failed", request_id)
            if status:  # too late to say it: the server closes the connection
                raise
            await as_api_error(error).response()(scope, receive, tagged)
        finally:
            outcome = logs.Outcome(status or CLIENT_LEFT, started_at, state.get("figures"))
            self._metrics.finished(outcome)
            logs.finished(request_id, scope["method"], scope["path"], outcome)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Refuse what needs no look into the body.  Raises ApiError or BodyTooLarge."""
        if self._digests and scope["path"] not in OPEN:
            kind, _, key = headers.get(b"authorization", b"").partition(b" ")
            given = _digest(key.strip()) if kind.lower() == b"bearer" else b""
            # All are compared, and digests rather than keys: the time tells nothing about any of them.
            if not sum(hmac.compare_digest(given, known) for known in self._digests):
                raise ApiError(
                    401,
                    "a valid key is needed, as `Authorization: Bearer KEY`",
                    code="invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise BodyTooLarge(self._max_body_bytes)

    def _limited(self, receive: Receive) -> Receive:
        """`receive`, raising BodyTooLarge (a chunked body does not say beforehand how long it is) or
        BodyTooSlow.
        """
        length, complete = 0, False
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS

        async def counted() -> Message:
            nonlocal length, complete
            if complete:
                return await receive()  # for the client to leave: that may take as long as it likes
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow(BODY_SECONDS) from None
            complete = not message.get("more_body", False)
            length += len(message.get("body", b""))
            if length > self._max_body_bytes:
                raise BodyTooLarge(self._max_body_bytes)
            return message

        return counted


def _digest(key: str | bytes) -> bytes:
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def _request_id(headers: dict[bytes, bytes]) -> str:
    """The proxy's own id if it has sent one that is safe to log, so that both logs agree; otherwise a new
    one.
    """
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if re.fullmatch(r"[\w.:-]{1,128}", given, re.ASCII) else f"req_{uuid4().hex}"
