"""Background responses: queued, in progress, and then stored.

A job reads its answer in a task of its own.  It keeps its events while it runs and for some minutes after, so
that any number of clients can watch it from any event on.  It ends when the answer ends, when it is
cancelled, or when the server stops; in each case its token stream is closed, and its watchers get the last
event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from engine.errors import EngineError, ShuttingDown
from server.api.responses.answer import ResponseAnswer, encoded
from server.api.responses.writer import UNFINISHED, Event
from server.dialogue.records import Group
from server.dialogue.sqlite_store import SqliteStore
from server.errors import ApiError, as_api_error
from server.logs import Figures
from server.service import Service
from server.streaming import PING

if TYPE_CHECKING:
    from engine.worker import TokenStream

log = logging.getLogger("gptoss.server")

KEEP_SECONDS = 600.0
"""Time after the end of a job in which its events can be watched again; the response is stored longer."""

LATE_SECONDS = 60.0
"""A response of another server that is unfinished this long after its deadline counts as interrupted."""

MAX_WATCHERS = 16
"""Maximum clients that stream one job again: each event is sent to all of them."""

MAX_FINISHED = 256
"""Maximum ended jobs whose events are kept; the oldest are dropped first."""


class Job:
    """One background response.

    streams  whether clients may stream its events, now or later
    events   encoded; the index of each is its sequence number
    size     of all events, bytes
    saved    done when the store has it, so that other servers find it
    """

    def __init__(self, answer: ResponseAnswer, streams: bool):
        self.owner, self.streams = answer.owner, streams
        self.response = answer.response
        self._answer: ResponseAnswer | None = answer  # dropped at the end, with the whole request
        self.events: list[bytes] = []
        self.size = 0
        self.ended_at: float | None = None
        self._cancel_error: ApiError | None = None
        self._watchers: WeakSet[Watch] = WeakSet()  # also without those that never began
        self._news = asyncio.Event()
        self.response["status"] = "queued"
        self.saved = answer.save()
        self._task = asyncio.ensure_future(self._run(answer))

    @property
    def id(self) -> str:
        return str(self.response["id"])

    async def _run(self, answer: ResponseAnswer) -> None:
        try:
            await asyncio.wait({self.saved})  # else this state could overwrite a later one
            async for batch in answer.batches(background=True):
                self._publish(batch)
        except asyncio.CancelledError:
            last = (
                answer.writer.cancel()
                if self._cancel_error is None
                else answer.writer.fail(self._cancel_error)
            )
            await answer.save()
            self._publish([last])
        except Exception as error:
            if not isinstance(error, EngineError):
                log.exception("a background response failed")
            api_error = as_api_error(error)
            answer.figures.finish = [str(api_error.code)]
            last = answer.writer.fail(api_error)
            await answer.save()
            self._publish([last])
        finally:
            for stream in answer.streams:
                stream.close()
            self.ended_at, self._answer = time.monotonic(), None
            self._wake()

    async def cancel(self, error: ApiError | None = None) -> None:
        """Ends the job, unless it has ended.

        error  the reason, for the status `failed`; None: the status is `cancelled`
        """
        if self.response["status"] in UNFINISHED:
            self._cancel_error = error
            self._task.cancel()
        await asyncio.wait({self._task})

    def watch(self, after: int) -> Watch:
        """The events with a sequence number above `after`: those so far, and those to come.

        Raises ApiError, 429, if too many watch it.
        """
        if len(self._watchers) >= MAX_WATCHERS:
            message = f"{MAX_WATCHERS} clients stream this response; more are not allowed"
            raise ApiError(429, message, code="rate_limit_exceeded", headers={"retry-after": "5"})
        self._watchers.add(watch := Watch(self, after))
        return watch

    def leave(self, watch: Watch) -> None:
        self._watchers.discard(watch)

    def heartbeat(self) -> None:
        """Sends the watchers an event without news, if they got none for a while."""
        if self._answer is not None and self._answer.idle:
            self._publish(self._answer.heartbeat())

    def _publish(self, events: Sequence[Event]) -> None:
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
    """A client that reads a job's events.  If it leaves, or its stream fails, the job continues."""

    end = b""

    def __init__(self, job: Job, after: int):
        self._job, self._sent = job, after
        self.streams: Sequence[TokenStream] = ()
        self.figures = Figures()

    async def events(self) -> AsyncIterator[bytes]:
        async for batch in self._job.batches(self._sent):
            self._sent += len(batch)
            yield b"".join(batch)

    def ping(self) -> bytes:
        self._job.heartbeat()
        return PING

    def failure(self, error: ApiError) -> bytes:
        """The event `error`, not `response.failed`, because the response itself has not failed."""
        told = {"code": error.code, "message": error.message, "param": None}
        return encoded([{"type": "error", "sequence_number": self._sent + 1, **told}])

    async def gather(self) -> None: ...

    def whole(self) -> dict[str, Any]:
        return self._job.response


class Jobs:
    """All jobs of a server, by the id of their response.

    max_running  maximum jobs that run at once
    max_bytes    maximum bytes of all events.  Beyond it, those of ended jobs are dropped, then new jobs
                 refused
    foreground   responses that are being generated in the foreground, and will be stored
    """

    def __init__(self, max_running: int, max_bytes: int) -> None:
        self._jobs: dict[str, Job] = {}
        self._max_running, self._max_bytes = max_running, max_bytes
        self.foreground: dict[str, ResponseAnswer] = {}

    def begin(self, answer: ResponseAnswer, streams: bool) -> Job:
        """Runs an answer in the background.  Raises ApiError; then its streams are closed."""
        try:
            self.check_room()  # again, because other jobs may have begun since the first check
        except ApiError:
            for stream in answer.streams:
                stream.close()
            raise
        job = self._jobs[answer.response["id"]] = Job(answer, streams)
        return job

    def check_room(self) -> None:
        """Raises ApiError, 429, if no job can begin now."""
        self._forget_old()
        running = sum(job.ended_at is None for job in self._jobs.values())
        full = ""
        if running >= self._max_running:
            full = f"{running} background responses are running; at most {self._max_running} are allowed"
        elif self._held() > self._max_bytes:
            full = f"the events of {running} background responses take all the memory that they may have"
        if full:
            raise ApiError(429, full, code="rate_limit_exceeded", headers={"retry-after": "5"})

    def get(self, owner: bytes, id: str) -> Job | None:
        self._forget_old()
        job = self._jobs.get(id)
        return job if job is not None and job.owner == owner else None

    def in_foreground(self, owner: bytes, id: str) -> ResponseAnswer | None:
        """The answer with this id, if it is running in the foreground."""
        answer = self.foreground.get(id)
        return answer if answer is not None and answer.owner == owner else None

    def forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)

    async def close(self) -> None:
        """Ends all running jobs."""
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


INTERRUPTED = {
    "status": "failed",
    "error": {"code": "server_error", "message": "the server stopped before this response was complete"},
}


def end_interrupted(store: SqliteStore) -> None:
    """Sets the status of the responses that were running when the server died to `failed`."""
    for owner, group in store.unfinished():
        ended = replace(group, status="failed", body={**group.body, **INTERRUPTED})
        store.put(owner, ended, store.items(owner, group.id))


def is_interrupted(group: Group, service: Service) -> bool:
    """Whether another server of the same store was running this response, and can no longer be."""
    timeout = service.timeout_seconds
    if group.status not in UNFINISHED or timeout is None:
        return False
    latest: float = group.body["created_at"] + timeout + LATE_SECONDS
    return latest < time.time()
