"""HTTP/1.1 that does not wait for ever for a request to begin.

uvicorn closes a connection that is idle after an answer, but one on which nothing, or half a header, has come
it keeps: a few thousand of those and there are no descriptors left.  (The body is the gate's to wait for:
server/gate.py.)
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 20.0
"""From the first byte of a connection, or of a later request on it, to the end of its header."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a clock on each request's header."""

    head_seconds = HEAD_SECONDS
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_clock()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_clock()

    def on_headers_complete(self) -> None:
        self._stop_clock()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
