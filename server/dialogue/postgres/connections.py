"""Connections to PostgreSQL, and the threads that use them.

The database may be slow, unreachable or frozen.  Therefore connecting and each statement have a time limit,
and the queue of calls has a maximum length; beyond these limits, StoreUnavailable is raised.  Each thread has
a connection of its own.  If it breaks, the thread's next call opens a new one.
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
"""Maximum calls that wait for a thread; more are refused at once."""

PAUSE_SECONDS = 1.0
"""After a failed attempt to connect, all calls fail at once for this time, without another attempt."""

IDLE_SECONDS = 1.0
"""A connection that was idle for longer is tested before it is used."""

DEFAULTS: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "gptoss",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * STATEMENT_SECONDS,
}
"""Parameters of a connection; those in the URL override them."""

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
    """The connections to one database, one for each thread that uses it.

    name  host and database, for the log: without user and password
    """

    def __init__(self, url: str):
        """Raises psycopg.Error if the URL is invalid."""
        given: dict[str, Any] = conninfo_to_dict(url)
        self._where = make_conninfo(**(DEFAULTS | given))
        self.name = f"{given.get('host', '')}/{given.get('dbname', '')}"
        self._mine = threading.local()
        self._failed_at = float("-inf")

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """This thread's connection, in one transaction.  Raises StoreUnavailable."""
        with self.statements() as db, db.transaction():
            yield db

    @contextmanager
    def statements(self) -> Iterator[psycopg.Connection]:
        """This thread's connection.  Each statement is a transaction by itself, with one message to the
        database and one back.

        Raises StoreUnavailable, whose cause is psycopg's error.
        """
        try:
            yield self._connection()
            self._mine.used_at = time.monotonic()
        except psycopg.Error as error:
            log.error("the store at %s: %s", self.name, " ".join(str(error).split()))
            raise StoreUnavailable() from error

    def disconnect(self) -> None:
        """Close this thread's connection."""
        if (db := getattr(self._mine, "db", None)) is not None:
            db.close()

    def _connection(self) -> psycopg.Connection:
        """This thread's connection; a new one if it is broken."""
        db: psycopg.Connection | None = getattr(self._mine, "db", None)
        if db is not None and not db.closed:
            if time.monotonic() - self._mine.used_at < IDLE_SECONDS and not _has_message(db):
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


def _has_message(db: psycopg.Connection) -> bool:
    """Whether the database has sent something although nothing was asked: usually, that it closes."""
    poll = select.poll()  # select.select() supports only descriptors below 1024
    poll.register(db.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Threads:
    """Threads that run functions.  As daemons, they do not delay the end of the process.

    at_end  called by each thread before it ends
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
        """Number of calls that no thread has begun."""
        return self._jobs.qsize()

    def run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """The function's result.  If the future is cancelled before a thread has begun, nothing is called."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self.waiting >= MAX_WAITING:
            done.set_exception(StoreUnavailable())
        else:
            self._jobs.put((done, function))
        return done

    def close(self) -> None:
        """End the threads, each after the function that it is running."""
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
                done.get_loop().call_soon_threadsafe(_set_outcome, done, result, error)
            except RuntimeError:  # the event loop is closed
                break
            del job, done, function, result, error
        self._at_end()


def _set_outcome(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.cancelled():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
