"""HTTP/1.1 from clients that nobody knows yet: bounded in bytes, number and time before any key is read.

uvicorn's protocol over httptools, and what it leaves open:

    head      a request's line and header fields, and the trailers of a chunked body: HEAD_BYTES and
              HEAD_FIELDS at most, then 431.  They must be complete HEAD_SECONDS after they began
    pipeline  what a client sends ahead waits unparsed until the answer before it is complete
    idle      a connection without a request ends, also if blank lines keep coming
    stuck     a client that does not read its answer is cut off, and its descriptor is free then
    number    at most `max_connections`; a new one replaces the one that has been idle for longest

The time that a body may take is the middleware's (server/middleware.py).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios
from http import HTTPStatus
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.errors import ApiError

log = logging.getLogger("gptoss.server")

HEAD_BYTES = 64 * 2**10
"""Of a request's line and header fields together, and of anything else that is not a body."""

HEAD_FIELDS = 256

MAX_CHUNKS = 20_000
"""Of a chunked body: each costs as much, if it has one byte or a thousand."""

HEAD_SECONDS = 20.0
"""From the first byte of a connection, or of a later request on it, to the end of its head."""

SLICE_BYTES = 4 * 2**10
"""The parser is fed in slices of this size, and the limits are looked at in between."""

AHEAD_BYTES = 2**20
"""What a client may send while an answer is under way; more ends the connection."""

STUCK_SECONDS = 60.0
"""A client that takes less than STUCK_BYTES of its answer in this time has stopped reading."""

STUCK_BYTES = 1024

LINGER_SECONDS = 1.0
"""For an error to be read by a client that is still sending: closing at once could destroy it on its way."""

MAX_CONNECTIONS = 1000


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    head_seconds = HEAD_SECONDS
    stuck_seconds = STUCK_SECONDS

    def __init__(self, *args: Any, max_connections: int = MAX_CONNECTIONS, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._max_connections = max_connections
        self._clock: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._current: RequestResponseCycle | None = None  # the request that is being answered
        self._ahead = bytearray()
        self._ended = False  # nothing more is read
        self._in_head = False
        self._since_body = 0  # bytes that were parsed, and are not of a body
        self._fields = self._chunks = 0
        self._idle_since = self.loop.time()
        self._unread, self._unread_since = 0, self._idle_since

    # A connection's life

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._check_stuck()
        if self._has_room():
            self._start_clock()
        else:
            error = ApiError(
                503,
                f"all {self._max_connections} connections are in use; try again",
                code="too_many_connections",
                headers={"retry-after": "1"},
            )
            self._refuse(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._ended, self._ahead = True, bytearray()
        if self._watch is not None:
            self._watch.cancel()
        self._disconnect()
        super().connection_lost(exc)

    def _disconnect(self) -> None:
        """Tell whoever answers here that nobody listens: uvicorn tells only the latest request."""
        if self._current is not None and not self._current.response_complete:
            self._current.disconnected = True
            self._current.message_event.set()

    def _has_room(self) -> bool:
        """Whether this connection may stay.  One without a request makes room for it."""
        others = [each for each in self.connections if each is not self and not each._ended]  # type: ignore[union-attr]
        if len(others) < self._max_connections:
            return True
        idle = [each for each in others if not each._answering]  # type: ignore[union-attr]
        if not idle:
            return False
        oldest = min(idle, key=lambda each: each._idle_since)  # type: ignore[union-attr]
        oldest._ended = True  # type: ignore[union-attr]
        oldest.transport.close()
        return True

    @property
    def _answering(self) -> bool:
        """Whether a request has been read and is not answered yet."""
        return self._current is not None and not self._current.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    # What comes in

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._unset_keepalive_if_required()
        self._ahead += data
        if not self.pipeline:
            rest, self._ahead = memoryview(bytes(self._ahead)), bytearray()
            while rest and not self._ended:
                if self.pipeline:
                    self._ahead = bytearray(rest)
                    break
                self._feed(rest[:SLICE_BYTES])
                rest = rest[SLICE_BYTES:]
        if self.pipeline:
            self._hold()
        elif not (self._answering or self._ended) and self._clock is None:
            self._start_clock()  # what came has not begun a request

    def _hold(self) -> None:
        """A request waits for its turn, and what follows it waits unparsed."""
        if len(self._ahead) > AHEAD_BYTES:
            self._ended = True
            self.transport.abort()
        else:
            self.flow.resume_reading()  # or nobody would hear that this client has left

    def _feed(self, slice: memoryview) -> None:
        self._since_body += len(slice)
        try:
            self.parser.feed_data(slice)
        except HttpParserUpgrade:
            # Nobody has to agree to an upgrade: the request is answered as it is, and the connection ends.
            self._ended = True
            if self.cycle is not None:
                self.cycle.keep_alive = False
        except HttpParserError:
            if self._fields <= HEAD_FIELDS:
                several = f", or its body has more than {MAX_CHUNKS} chunks" if self._chunks else ""
                message = f"this is no valid HTTP request{several}"
                self._refuse(ApiError(400, message, code="invalid_http"))
        if self._since_body > HEAD_BYTES or self._fields > HEAD_FIELDS:
            limits = f"{HEAD_BYTES} bytes and {HEAD_FIELDS} fields"
            self._refuse(ApiError(431, f"the head of a request may have {limits}", code="head_too_large"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._since_body, self._fields, self._chunks = True, 0, 0, 0
        self._start_clock()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._in_head and self._fields <= HEAD_FIELDS:  # a trailer is none of the request's header fields
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._fields > HEAD_FIELDS:
            raise ValueError("too many header fields")  # to the parser, which stops: no request comes of it
        self._stop_clock()
        self._in_head, self._since_body, self._fields = False, 0, 0
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise ValueError("too many chunks")  # to the parser, which stops

    def on_body(self, body: bytes) -> None:
        self._since_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._since_body = 0
        super().on_message_complete()

    def _start_clock(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    # What goes out

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()
        if self._ahead and not self.transport.is_closing():
            self.loop.call_soon(self.data_received, b"")

    def _refuse(self, error: ApiError) -> None:
        """Answer without asking the application, and end the connection."""
        if self._ended:
            return
        log.info("a connection was refused: %d, %s", error.status, error.message)
        self._ended = True
        self._stop_clock()
        if self._current is not None and self._answering:
            # An error in the middle of an answer, or before it, would be taken for a part of it.
            between = self._current.response_started or self._current is not self.cycle
            self._disconnect()
            if between or not self._current.more_body:
                self.transport.close()
                return
        response = error.response()
        head = [b"HTTP/1.1 %d %s" % (error.status, HTTPStatus(error.status).phrase.encode())]
        head += [name + b": " + value for name, value in response.raw_headers]
        head += [b"connection: close", b"", bytes(response.body)]
        self.transport.write(b"\r\n".join(head))
        self.transport.write_eof()
        self.flow.pause_reading()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _check_stuck(self) -> None:
        """Cut off a client that does not read what was sent to it."""
        now, unread = self.loop.time(), self._bytes_unread()
        if not unread or not self._unread or unread > self._unread or self._unread - unread >= STUCK_BYTES:
            self._unread, self._unread_since = unread, now
        elif now - self._unread_since >= self.stuck_seconds:
            log.info("a client has stopped reading, and was cut off")
            self._ended = True
            self.transport.abort()
            return
        self._watch = self.loop.call_later(self.stuck_seconds / 4, self._check_stuck)

    def _bytes_unread(self) -> int:
        """What waits here for the client to take what was sent before; 0 if all was handed to the system."""
        waiting = self.transport.get_write_buffer_size()
        if not waiting:
            return 0
        # The system's own buffer may hold megabytes: a slow client is taking from there meanwhile.
        socket = self.transport.get_extra_info("socket")
        try:
            unsent = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, AttributeError):
            return waiting
        return int(waiting + struct.unpack("i", unsent)[0])
