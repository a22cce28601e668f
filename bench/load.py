"""A load generator for streamed completions: many connections, almost no work per byte.

It shares the machine with the server it measures, so it counts events instead of parsing them: one asyncio
protocol per stream, one `bytes.count` per read.  The answers themselves are checked by the tests; here a
stream counts as good when its status is 200 and it ends in `[DONE]` without an error event.
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
    """What one streamed answer looked like from outside; times in seconds of `time.perf_counter`."""

    status: int = 0
    started: float = 0.0
    ended: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    """When each event arrived."""
    end: str = "cut"
    """done; error: an event said so; late: not over in time; cut: the connection ended before [DONE]."""

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
        seen = self.tail + data  # a marker may be cut in two by the network
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
    """One streamed answer, from connect to the last byte; `failed` if it did not end within `patience` s."""
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
    """All of `bodies` at once."""
    return list(await asyncio.gather(*(stream_once(host, port, path, body, patience) for body in bodies)))


def summary(streams: list[Stream]) -> dict[str, float]:
    """Tokens/s over the whole run; time to first event and gaps between events in milliseconds."""
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
