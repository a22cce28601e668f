"""How responses end: a stream of events, or one object.  Both close their token streams, however they end.

The response object owns the streams, and closes them in a `finally` around sending: a generator that was
never started never runs its own.  A client that hangs up cancels a streaming response, but not one that waits
for a whole answer: so `WholeAnswer` waits for both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import Response
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from engine.errors import EngineError
from server.errors import ApiError, as_api_error
from server.front.bodies import left
from server.logs import Figures
from server.sse import dumps, event

if TYPE_CHECKING:
    from engine.worker import TokenStream

log = logging.getLogger("gptoss.server")

PING_SECONDS = 10.0
PROGRESS_SECONDS = 1.0
"""How often a stream looks, before its first token, how much of the prompt has been computed."""

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


class Answer(Protocol):
    """What an endpoint makes of its token streams."""

    streams: Sequence[TokenStream]
    figures: Figures

    def events(self) -> AsyncIterator[bytes]:
        """Server-sent events, without the end of the stream."""

    def ping(self) -> bytes:
        """What is sent every few seconds so that neither proxies nor clients give up: a comment (PING), or an
        event where the API's clients know one for it.  It is sent at once, behind all events so far.
        """

    def failure(self, error: ApiError) -> bytes:
        """The last event of a stream that failed: the status has been sent already."""

    @property
    def end(self) -> bytes:
        """What ends the stream, also after a failure: DONE, or nothing where the API has no such mark."""

    async def whole(self) -> dict[str, Any]:
        """The same as one object."""


class OpenAIStream:
    """How streams of chats and completions are kept alive, fail, and end."""

    end = DONE

    def ping(self) -> bytes:
        return PING

    def failure(self, error: ApiError) -> bytes:
        return event(error.body)


def respond(answer: Answer, stream: bool | None, headers: Mapping[str, str] | None = None) -> Response:
    return AnswerStream(answer, headers) if stream else WholeAnswer(answer, headers)


class AnswerStream(EventSourceResponse):
    """An answer as server-sent events, with something in between while nothing is said.

    A ping every few seconds, so that neither proxies nor clients give up; `: prompt 4096/7511` whenever more
    of a long prompt has been computed.
    """

    def __init__(self, answer: Answer, headers: Mapping[str, str] | None = None):
        super().__init__(_told(answer), headers=headers, ping=PING_SECONDS)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _close(self._answer)  # also when the client left before the first event

    async def _stream_response(self, send: Send) -> None:
        """As in EventSourceResponse, less what it does for each chunk: its timer around each send costs as
        much as the rest of a token's way through the server.  A client that is stuck is found by the
        connection (server/protocol.py).
        """
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self.body_iterator:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        async with self._send_lock:
            self.active = False
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ping(self, send: Send) -> None:
        """As in EventSourceResponse, but it also tells how much of the prompt has been computed."""
        told, since_ping = None, 0.0
        while self.active:
            waiting = self._answer.figures.first_token_at is None
            pause = min(PROGRESS_SECONDS, self._ping_interval) if waiting else self._ping_interval
            await asyncio.sleep(pause)
            since_ping += pause
            body = b""
            if (reading := self._reading()) is not None and reading != told:
                told = reading
                body = ": prompt {}/{}\n\n".format(*reading).encode()
            if since_ping >= self._ping_interval:  # a comment is no sign of life to all clients
                since_ping = 0.0
                body += self._answer.ping()
            if not body:
                continue
            async with self._send_lock:
                if self.active:
                    await send({"type": "http.response.body", "body": body, "more_body": True})

    def _reading(self) -> tuple[int, int] | None:
        """Tokens of the prompt that have been computed, and all, until that is done."""
        found = (stream.reading for stream in self._answer.streams)
        return next((reading for reading in found if reading is not None), None)

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        """Never cut a stream because a signal came: running answers are drained (gptoss/__main__.py)."""
        await asyncio.Event().wait()


async def _told(answer: Answer) -> AsyncIterator[bytes]:
    """The events, and whatever goes wrong as one more: the status has been sent already."""
    try:
        async for chunk in answer.events():
            yield chunk
    except Exception as error:
        if not isinstance(error, EngineError):
            log.exception("a stream failed")
        told = as_api_error(error)
        answer.figures.finish = [str(told.code)]
        yield answer.failure(told)
    if answer.end:
        yield answer.end


class WholeAnswer(Response):
    """An answer as one object.  It is waited for when nothing is left of the request's body any more."""

    def __init__(self, answer: Answer, headers: Mapping[str, str] | None = None):
        super().__init__()
        self._answer, self._extra = answer, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = asyncio.ensure_future(self._answer.whole())
        leaving = asyncio.ensure_future(left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                return  # the client has left: nobody is there to be told
            response = Response(dumps(answering.result()), headers=self._extra, media_type="application/json")
        finally:
            answering.cancel()
            leaving.cancel()
            _close(self._answer)
        await response(scope, receive, send)


def _close(answer: Answer) -> None:
    for stream in answer.streams:
        stream.close()
