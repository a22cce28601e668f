"""Sends a request until it has a result.

The bodies are sent unchanged to the application in this process, or to a server at a URL, so they are checked
as always.

    an answer, or an error of the request       is the result
    429, 503, no connection                     retried, until there was no answer at all for PATIENCE_SECONDS
    500 and other failures, a cut connection    retried at most TRIES times, then the failure is the result
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from gptoss.application import application
from gptoss.batch.lines import Task
from gptoss.start import StartError
from server.settings import Settings

CONNECT_SECONDS = 10.0
READ_SECONDS = 3600.0
"""Time for a whole answer: longer than a server's own limit."""

PATIENCE_SECONDS = 300.0
TRIES = 3
MAX_PAUSE_SECONDS = 30.0

LATER = (429, 502, 503)
"""Statuses of a server that cannot answer now."""


class Unavailable(Exception):
    """The server has stopped answering; another run can do the rest."""


class GaveUp(Exception):
    """This request has failed finally."""


@dataclass(frozen=True, slots=True)
class Reply:
    """status: the HTTP status.  body: the parsed JSON"""

    status: int
    request_id: str
    body: Any


class Client:
    """
    http      a client with a base URL
    at_once   a good number of concurrent requests
    died      returns whether retries are useless
    """

    def __init__(self, http: httpx2.AsyncClient, at_once: int, died: Callable[[], bool] = lambda: False):
        self.at_once = at_once
        self._http, self._died = http, died
        self._heard_at = time.monotonic()

    async def ask(self, task: Task) -> Reply:
        """Raises Unavailable or GaveUp."""
        failures, pauses = 0, 0
        while True:
            try:
                response = await self._http.post(
                    task.url, content=task.body, headers={"content-type": "application/json"}
                )
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                what, wait = f"no connection: {error}", 0.0
            except httpx2.HTTPError as error:
                failures += 1
                what, wait = f"the connection broke: {str(error) or type(error).__name__}", 0.0
                if failures >= TRIES:
                    raise GaveUp(what) from None
            else:
                failures += response.status_code >= 500 and response.status_code not in LATER
                reply = _reply(response)
                again = response.status_code >= 500 and failures < TRIES
                if response.status_code not in LATER and not again:
                    self._heard_at = time.monotonic()
                    return reply
                what, wait = f"{response.status_code}: {_message(reply.body)}", _asked_to_wait(response)
            if self._died() or time.monotonic() - self._heard_at > PATIENCE_SECONDS:
                raise Unavailable(what)
            await asyncio.sleep(min(max(wait, 0.5 * 2**pauses), MAX_PAUSE_SECONDS))
            pauses = min(pauses + 1, 6)


@asynccontextmanager
async def in_process(settings: Settings) -> AsyncIterator[Client]:
    """The application of `gptoss serve` in this process, without a port.  Raises StartError."""
    settings = replace(
        settings,
        max_queued=max(settings.max_queued, 4 * settings.max_running),
        request_timeout=0,
        page=False,
        api_key=(),
        api_key_file=None,
        key_requests_per_minute=None,
    )
    made = application(settings)
    transport = httpx2.ASGITransport(made.app)
    try:
        async with (
            made.app.router.lifespan_context(made.app),
            httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=None) as http,
        ):
            # Twice what is computed together: the next prompts are ready when an answer ends.
            yield Client(http, 2 * settings.max_running, died=lambda: made.worker.died is not None)
    finally:
        if (others := made.assembled.others) is not None:
            others.close()


@asynccontextmanager
async def at_url(url: str, key: str | None, at_once: int = 64) -> AsyncIterator[Client]:
    """Raises StartError."""
    try:
        parsed = httpx2.URL(url if "://" in url else f"http://{url}")
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise StartError(f"{url!r} is not the URL of a server, such as http://127.0.0.1:8000")
    base = parsed.copy_with(path=parsed.path.rstrip("/").removesuffix("/v1"), query=None, fragment=None)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=None)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=timeout, limits=limits) as http:
        yield Client(http, at_once)


def _reply(response: httpx2.Response) -> Reply:
    try:
        body = response.json()
    except ValueError:
        text = response.text
        body = {"error": {"message": text[:1000], "type": "server_error", "param": None, "code": "no_json"}}
    return Reply(response.status_code, response.headers.get("x-request-id", ""), body)


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else "no reason given"


def _asked_to_wait(response: httpx2.Response) -> float:
    """Retry-After in seconds; 0 if there is none."""
    told = response.headers.get("retry-after", "")
    return float(told) if told.isdecimal() and len(told) < 6 else 0.0
