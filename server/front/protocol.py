"""HTTP/1.1 with limits on size, number and time, for clients that have not been authenticated yet.

uvicorn's httptools protocol, with limits that it lacks:

    head      request line and header fields, and the trailers of a chunked body: at most HEAD_BYTES and
              HEAD_FIELDS, else 431.  They must be complete within HEAD_SECONDS
    pipeline  requests that a client sends ahead wait unparsed until the previous answer is complete
    idle      a connection without a request is closed, also if blank lines keep arriving
    stuck     the connection of a client that does not read its answer is closed, which frees its descriptor
    unread    all answers together that clients have not read: at most UNREAD_BYTES, else one of them ends
    number    at most `max_connections`; a new one replaces the one that has been idle for longest, or else
              the one whose body has been arriving for longest; and MAX_CLOSING that are being closed

server/middleware.py limits the time for a body.
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
from server.front.places import places_of

log = logging.getLogger("gptoss.server")

HEAD_BYTES = 64 * 2**10
"""Request line and header fields together; also anything else that is not a body."""

HEAD_FIELDS = 256

MAX_CHUNKS = 20_000
"""Maximum chunks of a chunked body: a chunk of one byte costs as much time as one of a thousand."""

HEAD_SECONDS = 20.0
"""From opening the connection, or the first byte of a later request, to the end of the head."""

SLICE_BYTES = 4 * 2**10
"""The parser gets slices of this size, and the limits are checked after each."""

AHEAD_BYTES = 2**20
"""Maximum bytes that a client may send ahead during an answer; after more the connection is closed."""

STUCK_SECONDS = 60.0
"""A client that takes less than STUCK_BYTES of its answer in this time has stopped reading."""

STUCK_BYTES = 1024

UNREAD_BYTES = 256 * 2**20
"""Maximum bytes of all connections' answers that their clients have not read yet."""

LINGER_SECONDS = 1.0
"""After an error, wait for a client that is still sending: closing at once could discard the response."""

MAX_CONNECTIONS = 1000

MAX_CLOSING = 100
"""Connections beside these that still send their last bytes, or wait for a client that is still sending."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    head_seconds = HEAD_SECONDS
    stuck_seconds = STUCK_SECONDS

    def __init__(self, *args: Any, max_connections: int = MAX_CONNECTIONS, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._max_connections = max_connections
        self._clock: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._current: RequestResponseCycle | None = None  # the request being answered
        self._ahead = bytearray()
        self._ended = False  # no more input is read
        self._in_head = False
        self._since_body = 0  # bytes parsed since the last byte of a body
        self._fields = self._chunks = 0
        self._coded = False  # the body has a transfer coding other than "chunked"
        self._unread, self._unread_since = 0, self.loop.time()
        self._places = places_of(self.server_state)
        self._full_since = 0.0  # when more was written than is sent at once

    # A connection's life

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._check_stuck()
        if self._has_room():
            self._places.waits(self)
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
        self._places.leave(self)
        if self._watch is not None:
            self._watch.cancel()
        self._disconnect()
        super().connection_lost(exc)

    def _disconnect(self) -> None:
        """Tell the running request that the client has gone: uvicorn tells only the latest request."""
        if self._current is not None and not self._current.response_complete:
            self._current.disconnected = True
            self._current.message_event.set()

    def _has_room(self) -> bool:
        """Whether there is room for this connection.  May close another one to make room."""
        places = self._places
        if len(places.closing) >= MAX_CLOSING:
            oldest: Any = next(iter(places.closing))
            oldest.transport.abort()
            places.leave(oldest)
            self.connections.discard(oldest)  # now: many may come before the loop tells it that it is lost
        if len(self.connections) - len(places.closing) <= self._max_connections:  # this one is among them
            return True
        replaced: Any = places.oldest_idle() or places.oldest_arriving()
        if replaced is None:
            return False
        replaced.transport.close()
        replaced.end()
        return True

    def end(self) -> None:
        """No more input is read, and another connection may have the place."""
        self._ended = True
        self._places.close(self)

    @property
    def idle(self) -> bool:
        """Whether there is no request."""
        return not (self._ended or self._answering)

    @property
    def arriving(self) -> bool:
        """Whether the request that is being answered has not arrived completely."""
        return not self._ended and self._answering and self._current is self.cycle and self.cycle.more_body

    @property
    def _answering(self) -> bool:
        """Whether a request is being answered."""
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
            self._start_clock()  # the input did not begin a request

    def _hold(self) -> None:
        """A request waits for the previous answer; what follows it stays unparsed."""
        if len(self._ahead) > AHEAD_BYTES:
            self._ended = True
            self.transport.abort()
        else:
            self.flow.resume_reading()  # otherwise a disconnect would not be noticed

    def _feed(self, slice: memoryview) -> None:
        self._since_body += len(slice)
        try:
            self.parser.feed_data(slice)
        except HttpParserUpgrade:
            # A server may ignore an upgrade: answer the request as it is, and close the connection.
            self._ended = True
            if self.cycle is not None:
                self.cycle.keep_alive = False
        except HttpParserError:
            if self._coded:
                message = "of all transfer codings, this server knows only chunked"
                self._refuse(ApiError(501, message, code="unknown_transfer_coding"))
            elif self._fields <= HEAD_FIELDS:
                several = f", or its body has more than {MAX_CHUNKS} chunks" if self._chunks else ""
                message = f"this is not a valid HTTP request{several}"
                self._refuse(ApiError(400, message, code="invalid_http"))
        if self._since_body > HEAD_BYTES or self._fields > HEAD_FIELDS:
            limits = f"{HEAD_BYTES} bytes and {HEAD_FIELDS} fields"
            self._refuse(ApiError(431, f"the head of a request may have {limits}", code="head_too_large"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._since_body, self._fields, self._chunks = True, 0, 0, 0
        self._coded = False
        self._start_clock()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._in_head and self._fields <= HEAD_FIELDS:  # a trailer is not a header field
            self._coded |= name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked"
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._fields > HEAD_FIELDS:
            raise ValueError("too many header fields")  # stops the parser: no request begins
        if self._coded:
            raise ValueError("a transfer coding that is not known")
        self._stop_clock()
        self._in_head, self._since_body, self._fields = False, 0, 0
        super().on_headers_complete()
        self._places.receives(self)

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise ValueError("too many chunks")  # stops the parser

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
        super().on_response_complete()
        self._places.waits(self)
        self._places.receives(self)  # if there is a next request, whose body may not have arrived
        if self._ahead and not self.transport.is_closing():
            self.loop.call_soon(self.data_received, b"")

    def _refuse(self, error: ApiError) -> None:
        """Send an error without the application, and close the connection."""
        if self._ended:
            return
        log.info("a connection was refused: %d, %s", error.status, error.message)
        self.end()
        self._stop_clock()
        if self._current is not None and self._answering:
            # The client would take an error now for a part of the running answer.
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

    def pause_writing(self) -> None:
        """Called by the transport when so much waits for the client that no more should be written."""
        super().pause_writing()
        self._full_since = self.loop.time()
        self._limit_unread()

    def _limit_unread(self) -> None:
        """If too much is unread, end connections: those that have more than their share, the oldest first."""
        unread = {each: each.transport.get_write_buffer_size() for each in self.connections}
        total = sum(unread.values())
        if total <= UNREAD_BYTES:
            return
        share = UNREAD_BYTES // len(unread)
        large: list[Any] = [each for each, size in unread.items() if size > share]
        for each in sorted(large, key=lambda each: each._full_since):
            log.info("the clients do not read their answers; the connection of one was closed")
            each._ended = True
            each.transport.abort()
            total -= unread[each]
            if total <= UNREAD_BYTES:
                return

    def _check_stuck(self) -> None:
        """Close the connection if the client has stopped reading."""
        now, unread = self.loop.time(), self._bytes_unread()
        if not unread or not self._unread or unread > self._unread or self._unread - unread >= STUCK_BYTES:
            self._unread, self._unread_since = unread, now
        elif now - self._unread_since >= self.stuck_seconds:
            log.info("a client has stopped reading; its connection was closed")
            self._ended = True
            self.transport.abort()
            return
        self._watch = self.loop.call_later(self.stuck_seconds / 4, self._check_stuck)

    def _bytes_unread(self) -> int:
        """Bytes that were sent and the client has not read; 0 if all fit into the system's buffer."""
        waiting = self.transport.get_write_buffer_size()
        if not waiting:
            return 0
        # The system's own buffer may hold megabytes, from which a slow client reads meanwhile.
        socket = self.transport.get_extra_info("socket")
        try:
            unsent = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, AttributeError):
            return waiting
        return int(waiting + struct.unpack("i", unsent)[0])
