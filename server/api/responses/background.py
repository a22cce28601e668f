"""Responses that are made while nobody waits: queued, in progress, and then kept.

A job reads its answer in a task of its own, and remembers its events while it runs and for a little longer,
so that any number of clients can watch it from any event on.  Its end is the answer's, a cancellation, or
the end of the server; however it ends, its token stream is closed, and its watchers hear of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, ShuttingDown
from server.api.responses.answer import ResponseAnswer, encoded
from server.api.responses.writer import Event
from server.dialogue.items import Items
from server.dialogue.records import Group
from server.errors import ApiError, as_api_error
from server.logs import Figures
from server.service import Service
from server.streaming import PING

if TYPE_CHECKING:
    from engine.worker import TokenStream

log = logging.getLogger("gptoss.server")

KEEP_SECONDS = 600.0
"""After its end that a job's events can be watched again; the response itself is kept longer."""

LATE_SECONDS = 60.0
"""After its deadline, that a response of another server may be kept."""

MAX_FINISHED = 256
"""Jobs that have ended and whose events are still held; the oldest are forgotten first."""


class Job:
    """One response that is being made in the background.

    streams  whether its events are wanted, now or later
    events   as they are sent; the place of each is its sequence number
    size     of all of them, bytes
    kept     done when others find it, too
    """

    def __init__(self, answer: ResponseAnswer, streams: bool):
        self.owner, self.streams = answer.owner, streams
        self.response = answer.response
        self._answer: ResponseAnswer | None = answer  # while it is made: it holds all that was asked
        self.events: list[bytes] = []
        self.size = 0
        self.ended_at: float | None = None
        self._end: ApiError | None = None
        self._news = asyncio.Event()
        self.response["status"] = "queued"
        self.kept = answer.save()
        self._task = asyncio.ensure_future(self._run(answer))

    @property
    def id(self) -> str:
        return str(self.response["id"])

    async def _run(self, answer: ResponseAnswer) -> None:
        try:
            async for batch in answer.batches(background=True):
                self._tell(batch)
        except asyncio.CancelledError:
            last = answer.writer.cancel() if self._end is None else answer.writer.fail(self._end)
            await answer.save()
            self._tell([last])
        except Exception as error:
            if not isinstance(error, EngineError):
                log.exception("a background response failed")
            told = as_api_error(error)
            answer.figures.finish = [str(told.code)]
            last = answer.writer.fail(told)
            await answer.save()
            self._tell([last])
        finally:
            for stream in answer.streams:
                stream.close()
            self.ended_at, self._answer = time.monotonic(), None
            self._wake()

    async def cancel(self, error: ApiError | None = None) -> None:
        """Ends it, unless it has ended.

        error  why it failed; None: it is cancelled
        """
        if self.response["status"] in UNFINISHED:
            self._end = error
            self._task.cancel()
        await asyncio.wait({self._task})

    def watch(self, after: int) -> Watch:
        """Its events with a sequence number above `after`: what there are, and what comes."""
        return Watch(self, after)

    def live(self) -> None:
        """Tells its watchers that it goes on, if they heard nothing for a while."""
        if self._answer is not None and self._answer.quiet:
            self._tell(self._answer.alive())

    def _tell(self, events: Sequence[Event]) -> None:
        if self.streams:
            each = [encoded([event]) for event in events]
            self.events += each
            self.size += sum(map(len, each))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def batches(self, after: int) -> AsyncIterator[list[bytes]]:
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
            yield b"".join(batch)

    def ping(self) -> bytes:
        self._job.live()
        return PING

    def failure(self, error: ApiError) -> bytes:
        return b""

    async def gather(self) -> None: ...

    def whole(self) -> dict[str, Any]:
        return self._job.response


class Jobs:
    """All jobs of a server, by the id of their response.

    max_running  of them at once
    max_bytes    of events that are held; those of jobs that have ended give way, and then new jobs
    awaited      responses that are made in the foreground, and will be kept
    """

    def __init__(self, max_running: int, max_bytes: int) -> None:
        self._jobs: dict[str, Job] = {}
        self._max_running, self._max_bytes = max_running, max_bytes
        self.awaited: dict[str, ResponseAnswer] = {}

    def begin(self, answer: ResponseAnswer, streams: bool) -> Job:
        """Makes a response in the background.  Raises ApiError; then its streams are closed."""
        try:
            self.check_room()  # others may have come meanwhile
        except ApiError:
            for stream in answer.streams:
                stream.close()
            raise
        job = self._jobs[answer.response["id"]] = Job(answer, streams)
        return job

    def check_room(self) -> None:
        """Raises ApiError."""
        self._forget_old()
        running = sum(job.ended_at is None for job in self._jobs.values())
        full = ""
        if running >= self._max_running:
            full = f"{running} responses are being made in the background; at most {self._max_running} may be"
        elif self._held() > self._max_bytes:
            full = f"the events of {running} responses in the background are all that can be held"
        if full:
            raise ApiError(429, full, code="rate_limit_exceeded", headers={"retry-after": "5"})

    def get(self, owner: bytes, id: str) -> Job | None:
        self._forget_old()
        job = self._jobs.get(id)
        return job if job is not None and job.owner == owner else None

    def being_made(self, owner: bytes, id: str) -> ResponseAnswer | None:
        """In the foreground."""
        answer = self.awaited.get(id)
        return answer if answer is not None and answer.owner == owner else None

    def forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)

    async def close(self) -> None:
        """Ends all that run."""
        error = as_api_error(ShuttingDown())
        for job in list(self._jobs.values()):
            await job.cancel(error)

    def _held(self) -> int:
        return sum(job.size for job in self._jobs.values())

    def _forget_old(self) -> None:
        ended = sorted((job.ended_at, id) for id, job in self._jobs.items() if job.ended_at is not None)
        too_old, held = time.monotonic() - KEEP_SECONDS, self._held()
        for place, (at, id) in enumerate(ended):
            useless = not self._jobs[id].streams  # the response itself is in the store
            if useless or at < too_old or len(ended) - place > MAX_FINISHED or held > self._max_bytes:
                held -= self._jobs.pop(id).size


UNFINISHED = ("queued", "in_progress")
INTERRUPTED = {
    "status": "failed",
    "error": {"code": "server_error", "message": "the server ended before this response did"},
}


def end_interrupted(items: Items) -> None:
    """Ends the responses that were being made when the server died: nobody goes on with them."""
    for owner, group in items.unfinished():
        ended = replace(group, status="failed", body={**group.body, **INTERRUPTED})
        items.put(owner, ended, items.items(owner, group.id))


def is_interrupted(group: Group, service: Service) -> bool:
    """Whether it was being made by another server of the same store, and cannot be any more."""
    timeout = service.timeout_seconds
    if group.status not in UNFINISHED or timeout is None:
        return False
    latest: float = group.body["created_at"] + timeout + LATE_SECONDS
    return latest < time.time()
