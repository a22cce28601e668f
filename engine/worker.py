"""The engine on its own thread, and the two crossings between that thread and asyncio.

In:   `submit` and `close` put a command in `_inbox`; the thread takes all of them before each step.
Out:  after each step the thread makes one call to `loop.call_soon_threadsafe`, however many tokens there are.

Nothing else is shared, except a few values that are replaced as a whole: the latest Stats, the time at which
the current step began, and the exception the engine died of.  The engine never waits for a client: tokens
that are not read yet stay in their stream.

Every wait ends.  A stream ends with its last token, its error, or `close`; if the engine dies, or hangs in
one step for longer than the watchdog allows, all streams end with EngineDied.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from engine.engine import Engine, Stats
from engine.errors import EngineDied, EngineError, QueueFull, ShuttingDown
from engine.fairness import Shares
from engine.request import Failure, Request, Token

log = logging.getLogger(__name__)

WATCH_EVERY_SECONDS = 1.0


class StepTimeout(Exception):
    """A step of the engine did not return in time."""


class _Add(NamedTuple):
    request: Request


class _Cancel(NamedTuple):
    request_id: str


class TokenStream(AsyncIterator[list[Token]]):
    """The tokens of one answer, as they come.  For one reader, on the event loop.

    `async for tokens in stream` yields all tokens since the last time, at least one, and ends after a token
    with `finish`.  It raises the EngineError that ended the request, if one did.  The caller closes it.
    """

    def __init__(self, request_id: str, worker: Worker, caller: str = ""):
        self.request_id, self.caller = request_id, caller
        self._worker = worker
        self._arrived: list[Token] = []
        self._error: EngineError | None = None
        self._ended = False
        self._reader: asyncio.Future[None] | None = None

    @property
    def reading(self) -> tuple[int, int] | None:
        """While the prompt is being computed: its computed and total tokens, as of the latest step."""
        return self._worker.stats().reading.get(self.request_id)

    async def __anext__(self) -> list[Token]:
        while not self._arrived:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        tokens, self._arrived = self._arrived, []
        return tokens

    def close(self) -> None:
        """End the request: its pages are free before the next step.  Safe to call twice."""
        self._arrived.clear()
        self._error = None
        self._end(None)
        self._worker._cancel(self.request_id)

    def _put(self, token: Token) -> None:
        self._arrived.append(token)
        if token.finish is not None:
            self._ended = True
        self._wake()

    def _end(self, error: EngineError | None) -> None:
        if not self._ended:
            self._error, self._ended = error, True
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Worker:
    """Runs an engine on a thread of its own, for streams on one event loop."""

    def __init__(self, engine: Engine, step_timeout_seconds: float = 300.0, callers: int = 1):
        """
        step_timeout_seconds  if a step takes longer, the engine counts as dead
        callers               number of different callers that there can be; they share the places in the
                              queue
        """
        self.died: BaseException | None = None  # the exception the engine died of
        self._dying = threading.Lock()  # because two threads may notice at once that the engine died
        self._engine = engine
        self._step_timeout_seconds = step_timeout_seconds
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._inbox: deque[_Add | _Cancel] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._step_began: float | None = None
        self._stats = engine.stats()
        # On the event loop only:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[str, TokenStream] = {}
        self._shares = Shares(engine.limits.max_running + engine.limits.max_queued, callers)
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the thread after its current step; streams that are still open end with ShuttingDown."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    def fail(self, reason: BaseException) -> None:
        """End all streams, because something outside the engine has failed.  Any thread may call."""
        with self._dying:
            if self.died is not None or self._stopping:
                return
            self.died = reason
        log.critical("the engine cannot go on: %s", reason)
        self._wake.set()
        self._call(self._abandon)

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the server is shutting down."""
        return self._draining

    def stats(self) -> Stats:
        """As of the latest step.  Any thread may ask."""
        return self._stats

    # On the event loop

    def submit(self, request: Request) -> TokenStream:
        """Hand a request to the engine.

        Raises EngineDied, ShuttingDown, EmptyPrompt, PromptTooLong, UnknownToken or QueueFull; then nothing
        was changed.
        """
        if self.died is not None:
            raise EngineDied from self.died
        if self._draining or self._stopping:
            raise ShuttingDown
        self._engine.check(request)
        if self._shares.refuses(request.caller):
            # The caller's own count, because its share may be used up while there is room for others.
            raise QueueFull(self._shares.of(request.caller), doing="running or waiting")
        assert request.id not in self._streams, f"request {request.id} is in the engine already"
        self._attach()
        stream = self._streams[request.id] = TokenStream(request.id, self, request.caller)
        self._shares.take(request.caller)
        self._idle.clear()
        self._send(_Add(request))
        return stream

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new requests, let the others finish for a while, then end the rest with ShuttingDown."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), grace_seconds)
        except TimeoutError:
            log.warning(
                "ending %d requests that did not finish within %g s", len(self._streams), grace_seconds
            )
        for stream in list(self._streams.values()):
            stream._end(ShuttingDown())
            self._cancel(stream.request_id)

    def _attach(self) -> None:
        """Take the running event loop for all streams, and start the watchdog on it."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._watch()
        assert self._loop is asyncio.get_running_loop(), "all streams of a worker are on one event loop"

    def _send(self, command: _Add | _Cancel) -> None:
        self._inbox.append(command)
        self._wake.set()

    def _cancel(self, request_id: str) -> None:
        if self._forget(request_id):
            self._send(_Cancel(request_id))

    def _forget(self, request_id: str) -> bool:
        """Drop a stream; returns whether it was still open."""
        stream = self._streams.pop(request_id, None)
        if stream is not None:
            self._shares.give_back(stream.caller)
        if not self._streams:
            self._idle.set()
        return stream is not None

    def _deliver(self, events: list[Token | Failure]) -> None:
        for event in events:
            stream = self._streams.get(event.request_id)
            if stream is None:
                continue  # closed, while the step was running
            if isinstance(event, Failure):
                stream._end(event.error)
                self._forget(event.request_id)
            else:
                stream._put(event)
                if event.finish is not None:
                    self._forget(event.request_id)

    def _abandon(self) -> None:
        """The engine will not step again: end all streams."""
        for stream in list(self._streams.values()):
            stream._end(ShuttingDown() if self.died is None else EngineDied())
            self._forget(stream.request_id)

    def _watch(self) -> None:
        """The watchdog, called periodically, because a step that does not return cannot report itself."""
        assert self._loop is not None
        began = self._step_began
        if began is not None and time.monotonic() - began > self._step_timeout_seconds:
            self.died = StepTimeout(f"a step did not return within {self._step_timeout_seconds:g} s")
            log.critical("the engine hangs: %s", self.died)
            self._abandon()
            return
        if self.died is None and not self._stopping:
            every = min(WATCH_EVERY_SECONDS, self._step_timeout_seconds / 4)
            self._loop.call_later(every, self._watch)

    # On the engine's thread

    def _run(self) -> None:
        try:
            while not self._stopping and self.died is None:
                self._run_once()
        except EngineError as error:  # a known error needs no traceback
            self.fail(error)
        except BaseException as error:
            if self.died is None:
                self.died = error
                log.critical("the engine died", exc_info=True)
        self._call(self._abandon)
        if self.died is None:
            self._engine.close()

    def _run_once(self) -> None:
        """Take the commands, run one step, deliver its events."""
        if not self._engine.busy:
            self._wake.wait()
        self._wake.clear()  # before reading the inbox, so that a later command wakes the thread again
        events: list[Token | Failure] = []
        while self._inbox:
            command = self._inbox.popleft()
            if isinstance(command, _Cancel):
                self._engine.cancel(command.request_id)
                continue
            try:
                self._engine.add(command.request)
            except EngineError as error:
                events.append(Failure(command.request.id, error))
        if self._engine.busy:
            self._step_began = time.monotonic()
            events += self._engine.step()
            self._step_began = None
        self._stats = self._engine.stats()
        if events:
            self._call(self._deliver, events)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        """Have the event loop call `function`; if the loop is closed, the thread ends."""
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not loop.is_closed():
                raise
            self._stopping = True
