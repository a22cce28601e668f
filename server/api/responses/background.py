"""Responses that are made while nobody waits: queued, in progress, and then kept.

A job reads its answer in a task of its own, and remembers its events while it runs and for a little longer,
so that any number of clients can watch it from any event on.  Its end is the answer's, a cancellation, or
the end of the server; however it ends, its token stream is closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from server.api.responses.answer import ResponseAnswer, encoded
from server.api.responses.writer import Event
from server.errors import ApiError, as_api_error
from server.logs import Figures
from server.streaming import PING

if TYPE_CHECKING:
    from engine.worker import TokenStream

log = logging.getLogger("gptoss.server")

KEEP_SECONDS = 600.0
"""After its end that a job's events can be watched again; the response itself is kept longer."""

MAX_FINISHED = 256
"""Jobs that have ended and whose events are still held; the oldest are forgotten first."""


class Job:
    """One response that is being made in the background.

    streams  whether its events are wanted later
    kept     done when others find it, too
    """

    def __init__(self, answer: ResponseAnswer, owner: bytes, streams: bool):
        self.owner, self.answer = owner, answer
        self.response = answer.response
        self.events: list[Event] = []
        self.ended_at: float | None = None
        self._streams = streams
        self._news = asyncio.Event()
        self.response["status"] = "queued"
        self.kept = answer.save()
        self._task = asyncio.ensure_future(self._run())

    @property
    def id(self) -> str:
        return str(self.response["id"])

    async def _run(self) -> None:
        answer = self.answer
        try:
            async for batch in answer.batches(background=True):
                self._tell(batch)
        except asyncio.CancelledError:
            answer.writer.cancel()
            await answer.save()
        except Exception as error:
            if not isinstance(error, EngineError):
                log.exception("a background response failed")
            told = as_api_error(error)
            answer.figures.finish = [str(told.code)]
            failed = answer.writer.fail(told)
            await answer.save()
            self._tell([failed])
        finally:
            for stream in answer.streams:
                stream.close()
            self.ended_at = time.monotonic()
            self._wake()

    async def cancel(self) -> None:
        """Ends it, unless it has ended."""
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    def watch(self, after: int) -> Watch:
        """Its events with a sequence number above `after`: what there are, and what comes."""
        return Watch(self, after)

    def _tell(self, events: Sequence[Event]) -> None:
        if self._streams:
            self.events += events
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def batches(self, after: int) -> AsyncIterator[list[Event]]:
        sent = after + 1
        while True:
            news, ended = self._news, self.ended_at is not None
            if batch := self.events[sent:]:
                sent += len(batch)
                yield batch
            elif ended:
                return
            else:
                await news.wait()


class Watch:
    """A client that reads a job's events; it may leave, and the job goes on."""

    end = b""

    def __init__(self, job: Job, after: int):
        self._job, self._after = job, after
        self.streams: Sequence[TokenStream] = ()
        self.figures = Figures()

    async def events(self) -> AsyncIterator[bytes]:
        async for batch in self._job.batches(self._after):
            yield encoded(batch)

    def ping(self) -> bytes:
        return PING

    def failure(self, error: ApiError) -> bytes:
        return b""

    async def gather(self) -> None: ...

    def whole(self) -> dict[str, Any]:
        return self._job.response


class Jobs:
    """All jobs of a server, by the id of their response."""

    def __init__(self, max_running: int) -> None:
        self._jobs: dict[str, Job] = {}
        self._max_running = max_running

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job

    def check_room(self) -> None:
        """Raises ApiError."""
        self._forget_old()
        running = sum(job.ended_at is None for job in self._jobs.values())
        if running >= self._max_running:
            raise ApiError(
                429,
                f"{running} responses are being made in the background; at most {self._max_running} may be",
                code="rate_limit_exceeded",
                headers={"retry-after": "5"},
            )

    def get(self, owner: bytes, id: str) -> Job | None:
        self._forget_old()
        job = self._jobs.get(id)
        return job if job is not None and job.owner == owner else None

    def forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)

    async def close(self) -> None:
        """Ends all that run."""
        for job in list(self._jobs.values()):
            await job.cancel()

    def _forget_old(self) -> None:
        ended = [(job.ended_at, id) for id, job in self._jobs.items() if job.ended_at is not None]
        too_old = time.monotonic() - KEEP_SECONDS
        for place, (at, id) in enumerate(sorted(ended, reverse=True)):
            if place >= MAX_FINISHED or at < too_old:
                del self._jobs[id]
