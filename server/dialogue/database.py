"""A PostgreSQL that may be slow, gone or frozen: threads that wait for it, each with a connection of its own.

Nobody waits for ever: a connection, a statement and the queue of calls are bounded, and whoever asks is told
StoreUnavailable.  A connection that broke is made anew by the next call.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from server.errors import ApiError

log = logging.getLogger("gptoss.server")

CONNECT_SECONDS = 2
STATEMENT_SECONDS = 4
MAX_WAITING = 1000
"""Calls that may wait for a thread; more are refused at once."""

PAUSE_SECONDS = 1.0
"""After a failed connection nobody tries again for so long: whoever asks is told at once."""

IDLE_SECONDS = 1.0
"""A connection that was idle for longer is tried before it is used."""

DEFAULTS: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "gptoss",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * STATEMENT_SECONDS,
}
"""Unless the URL says otherwise."""

T = TypeVar("T")


class StoreUnavailable(ApiError):
    """The database does not answer: HTTP 503."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "the store of responses and conversations does not answer; try again",
            code="store_unavailable",
            headers={"retry-after": "5"},
        )


class Connections:
    """One for each thread that asks.

    name  of the database, for the log: without a user or a password
    """

    def __init__(self, url: str):
        """Raises psycopg.Error if the URL cannot be understood."""
        given: dict[str, Any] = conninfo_to_dict(url)
        self._where = make_conninfo(**(DEFAULTS | given))
        self.name = f"{given.get('host', '')}/{given.get('dbname', '')}"
        self._mine = threading.local()
        self._failed_at = float("-inf")

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """This thread's connection, in a transaction.  Raises StoreUnavailable."""
        with self.statements() as db, db.transaction():
            yield db

    @contextmanager
    def statements(self) -> Iterator[psycopg.Connection]:
        """This thread's connection; each statement is a transaction, and one way to the database and back.

        Raises StoreUnavailable, whose cause is psycopg's error.
        """
        try:
            yield self._connection()
            self._mine.used_at = time.monotonic()
        except psycopg.Error as error:
            log.error("the store at %s: %s", self.name, " ".join(str(error).split()))
            raise StoreUnavailable() from error

    def disconnect(self) -> None:
        """Of this thread."""
        if (db := getattr(self._mine, "db", None)) is not None:
            db.close()

    def _connection(self) -> psycopg.Connection:
        """This thread's, made anew if it is broken."""
        db: psycopg.Connection | None = getattr(self._mine, "db", None)
        if db is not None and not db.closed:
            if time.monotonic() - self._mine.used_at < IDLE_SECONDS and not _was_told_something(db):
                return db
            try:
                db.execute("select 1")
                return db
            except psycopg.Error:
                db.close()
        if time.monotonic() - self._failed_at < PAUSE_SECONDS:
            raise psycopg.OperationalError("it could not be reached a moment ago")
        try:
            db = psycopg.connect(self._where, autocommit=True, prepare_threshold=None)
            db.execute(f"set statement_timeout = {1000 * STATEMENT_SECONDS}")
        except psycopg.Error:
            self._failed_at = time.monotonic()
            raise
        self._mine.db, self._mine.used_at = db, time.monotonic()
        return db


def _was_told_something(db: psycopg.Connection) -> bool:
    """Whether the server sent something to a connection that asked nothing: mostly that it is closed."""
    poll = select.poll()  # select() itself knows descriptors below 1024 only
    poll.register(db.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Threads:
    """They end with the process at the latest, whatever they are waiting for.

    at_end  what each does before it ends
    """

    def __init__(self, number: int, at_end: Callable[[], None]):
        self._jobs: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._number, self._at_end = number, at_end
        for i in range(number):
            threading.Thread(target=self._work, name=f"gptoss-store-{i}", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken yet."""
        return self._jobs.qsize()

    def run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Its result.  Once cancelled, it is not begun any more."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self.waiting >= MAX_WAITING:
            done.set_exception(StoreUnavailable())
        else:
            self._jobs.put((done, function))
        return done

    def close(self) -> None:
        """What is being done ends by itself."""
        for _ in range(self._number):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            done, function = job
            if done.cancelled():
                continue
            result, error = None, None
            try:
                result = function()
            except BaseException as raised:
                error = raised
            try:
                done.get_loop().call_soon_threadsafe(_tell, done, result, error)
            except RuntimeError:  # the loop has ended, and nobody waits
                break
            del job, done, function, result, error
        self._at_end()


def _tell(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.cancelled():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
