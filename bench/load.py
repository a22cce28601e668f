"""Requests many streams at once from a server, and measures when their events arrive.

It runs on the same machine as the server, so it must take little CPU time: it counts events, and does not
parse them.  A stream is good if its status is 200 and it ends with `[DONE]`, without an error event.  The
contents of answers are checked by the tests, not here.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

EVENT, DONE, ERROR = b"data: {", b"data: [DONE]", b'data: {"error"'


@dataclass(slots=True)
class Stream:
    """Measurements of one streamed answer.  Times are in seconds of `time.perf_counter`."""

    status: int = 0
    started: float = 0.0
    ended: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    """Time of arrival of each event."""
    end: str = "cut"
    """done; error: there was an error event; late: it did not end in time; cut: the connection ended before
    [DONE].
    """

    @property
    def failed(self) -> bool:
        return self.end != "done"


class _Reader(asyncio.Protocol):
    """Sends one request and counts the events of its answer."""

    def __init__(self, request: bytes, stream: Stream, finished: asyncio.Future[None]):
        self.request, self.stream, self.finished = request, stream, finished
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.stream.started = time.perf_counter()
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now, stream = time.perf_counter(), self.stream
        if not stream.status:
            stream.status = int(data[9:12])
        seen = self.tail + data  # a marker may be divided between two reads
        stream.arrivals += [now] * (seen.count(EVENT) - self.tail.count(EVENT))
        if ERROR in seen:
            stream.end = "error"
        if DONE in seen:
            stream.end = "error" if stream.end == "error" else "done"
            self.transport.close()
        self.tail = seen[-len(ERROR) :]

    def connection_lost(self, exc: Exception | None) -> None:
        self.stream.ended = time.perf_counter()
        if not self.finished.done():
            self.finished.set_result(None)


def post(host: str, port: int, path: str, body: dict[str, Any]) -> bytes:
    """One HTTP/1.1 request as bytes."""
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + payload


async def stream_once(host: str, port: int, path: str, body: dict[str, Any], patience: float) -> Stream:
    """Request one stream, and read it to its end, for at most `patience` seconds."""
    stream = Stream()
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[None] = loop.create_future()
    try:
        transport, _ = await loop.create_connection(
            lambda: _Reader(post(host, port, path, body), stream, finished), host, port
        )
    except OSError:
        return stream
    try:
        await asyncio.wait_for(finished, patience)
    except TimeoutError:
        stream.end = "late"
    finally:
        transport.abort()
    return stream


async def run(
    host: str, port: int, path: str, bodies: Sequence[dict[str, Any]], patience: float
) -> list[Stream]:
    """Request the answers to all bodies at once."""
    return list(await asyncio.gather(*(stream_once(host, port, path, body, patience) for body in bodies)))


def summary(streams: list[Stream]) -> dict[str, float]:
    """Tokens per second over the whole run; time to the first event, and gaps between events, in
    milliseconds.
    """
    good = [s for s in streams if s.status == 200 and not s.failed and s.arrivals]
    events = sum(len(s.arrivals) for s in good)
    wall = max(s.ended for s in good) - min(s.started for s in good)
    first = sorted(s.arrivals[0] - s.started for s in good)
    gaps = sorted(b - a for s in good for a, b in zip(s.arrivals, s.arrivals[1:], strict=False))
    return {
        "streams": len(streams),
        "good": len(good),
        "events": events,
        "events_per_second": events / wall,
        "ttft_p50_ms": 1e3 * statistics.median(first),
        "ttft_p99_ms": 1e3 * first[min(len(first) - 1, int(0.99 * len(first)))],
        "gap_p50_ms": 1e3 * statistics.median(gaps),
        "gap_p99_ms": 1e3 * gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))],
    }
