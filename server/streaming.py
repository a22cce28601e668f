"""Sends answers: as a stream of events, or as one object.  Both close their token streams, however they end.

The response object owns the token streams and closes them in a `finally` around sending, because a generator
that was never started never runs its own `finally`.  If the client disconnects, Starlette cancels a streaming
response, but not one that waits for a whole answer, so `WholeAnswer` watches for the disconnect itself.
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
from server.sse import event, json_response

if TYPE_CHECKING:
    from engine.worker import TokenStream

log = logging.getLogger("gptoss.server")

PING_SECONDS = 10.0
PROGRESS_SECONDS = 1.0
"""How often a stream reports, before its first token, how much of the prompt has been computed."""

SMALL_ANSWER = 1000
"""Tokens, of the prompt and all choices together, up to which an answer is put together on the event loop."""

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


class Answer(Protocol):
    """What an endpoint makes from its token streams."""

    streams: Sequence[TokenStream]
    figures: Figures

    def events(self) -> AsyncIterator[bytes]:
        """Server-sent events, without the end marker."""

    def ping(self) -> bytes:
        """Sent every few seconds so that proxies and clients do not time out: a comment (PING), or an event
        if the API has one for it.
        """

    def failure(self, error: ApiError) -> bytes:
        """The last event of a stream that failed, because the status has been sent already."""

    @property
    def end(self) -> bytes:
        """The end marker, also after a failure: DONE, or nothing if the API has none."""

    async def gather(self) -> None:
        """Waits for the last token, instead of `events`."""

    def whole(self) -> dict[str, Any]:
        """After `gather`: the whole answer as one object.  Any thread may ask."""


class OpenAIStream:
    """The pings, failures and end marker of chat and completion streams."""

    end = DONE

    def ping(self) -> bytes:
        return PING

    def failure(self, error: ApiError) -> bytes:
        return event(error.body)


def respond(answer: Answer, stream: bool | None, headers: Mapping[str, str] | None = None) -> Response:
    return AnswerStream(answer, headers) if stream else WholeAnswer(answer, headers)


class AnswerStream(EventSourceResponse):
    """An answer as server-sent events.

    Also sends a ping every few seconds, and `: prompt 4096/7511` whenever more of a long prompt has been
    computed.
    """

    def __init__(self, answer: Answer, headers: Mapping[str, str] | None = None):
        super().__init__(_with_failure_event(answer), headers=headers, ping=PING_SECONDS)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _close(self._answer)  # also when the client left before the first event

    async def _stream_response(self, send: Send) -> None:
        """As in EventSourceResponse, but without its timer for each send, which takes as much time as
        everything else that the server does for a token.  server/front/protocol.py detects clients that stop
        reading.
        """
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self.body_iterator:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        async with self._send_lock:
            self.active = False
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ping(self, send: Send) -> None:
        """As in EventSourceResponse, but also reports how much of the prompt has been computed."""
        reported, since_ping = None, 0.0
        while self.active:
            waiting = self._answer.figures.first_token_at is None
            pause = min(PROGRESS_SECONDS, self._ping_interval) if waiting else self._ping_interval
            await asyncio.sleep(pause)
            since_ping += pause
            body = b""
            if (reading := self._reading()) is not None and reading != reported:
                reported = reading
                body = ": prompt {}/{}\n\n".format(*reading).encode()
            if since_ping >= self._ping_interval:  # some clients do not count comments as activity
                since_ping = 0.0
                body += self._answer.ping()
            if not body:
                continue
            async with self._send_lock:
                if self.active:
                    await send({"type": "http.response.body", "body": body, "more_body": True})

    def _reading(self) -> tuple[int, int] | None:
        """Computed and total tokens of the prompt; None once it is complete."""
        found = (stream.reading for stream in self._answer.streams)
        return next((reading for reading in found if reading is not None), None)

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        """Do not end streams on a signal: running answers may finish (gptoss/serve.py)."""
        await asyncio.Event().wait()


async def _with_failure_event(answer: Answer) -> AsyncIterator[bytes]:
    """The events; an exception becomes a last event, because the status has been sent already."""
    try:
        async for chunk in answer.events():
            yield chunk
    except Exception as error:
        if not isinstance(error, EngineError):
            log.exception("a stream failed")
        api_error = as_api_error(error)
        answer.figures.finish = [str(api_error.code)]
        yield answer.failure(api_error)
    if answer.end:
        yield answer.end


class WholeAnswer(Response):
    """An answer as one object.  Waits for it in `__call__`, when the request's body has been freed."""

    def __init__(self, answer: Answer, headers: Mapping[str, str] | None = None):
        super().__init__()
        self._answer, self._extra = answer, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = asyncio.ensure_future(self._respond())
        leaving = asyncio.ensure_future(left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                return  # the client has disconnected
            response = answering.result()
        finally:
            answering.cancel()
            leaving.cancel()
            _close(self._answer)
        await response(scope, receive, send)

    async def _respond(self) -> Response:
        await self._answer.gather()
        figures = self._answer.figures
        if figures.prompt_tokens + figures.completion_tokens <= SMALL_ANSWER:
            return await json_response(self._answer.whole(), self._extra)
        return await json_response(await asyncio.to_thread(self._answer.whole), self._extra)


def _close(answer: Answer) -> None:
    for stream in answer.streams:
        stream.close()
