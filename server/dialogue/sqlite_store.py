"""The store of responses and conversations in one SQLite database: in memory, or in a file.

Only one server can use it (postgres/ is for several).  Deleted data are overwritten in the file.

A response has the id of the previous one.  So the history of a response is a chain of responses, and nothing
is copied from one to the next.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from server.dialogue.records import (
    MAX_CHAIN,
    ROW_BYTES,
    ChainTooLong,
    Group,
    Link,
    Row,
    StoredItem,
    StoreError,
    cost_of,
    first_that_fit,
    item_of,
    rows_of,
)
from server.sse import written

log = logging.getLogger("gptoss.server")

P = ParamSpec("P")
T = TypeVar("T")

TOUCH_SECONDS = 60.0
"""The time of a group's last use is written at most this often, because each time is a write to the file."""

VERSION = 1
SCHEMA = """
create table if not exists groups (
    id text primary key, owner blob not null, kind text not null, created real not null, used real not null,
    bytes integer not null, status text not null, previous text, body text not null
);
create index if not exists groups_by_use on groups (used);
create table if not exists items (
    serial integer primary key autoincrement, group_id text not null, owner blob not null, id text not null,
    kind text not null, body text not null, tokens blob not null
);
create index if not exists items_by_id on items (owner, id);
create index if not exists items_by_group on items (group_id, serial);
"""


class SqliteStore:
    """Implements `Store` (store.py), where each operation is described.

    Safe to use from several threads: a lock lets one at a time use the database.

    file         None: in memory
    max_bytes    maximum size of everything stored
    max_seconds  time after its last use in which a group is kept
    """

    def __init__(self, file: Path | None, max_bytes: int, max_seconds: float) -> None:
        """Raises StoreError."""
        self._max_bytes, self._max_seconds = max_bytes, max_seconds
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(file or ":memory:", check_same_thread=False, isolation_level=None)
            (version,) = self._db.execute("pragma user_version").fetchone()
            if version not in (0, VERSION):
                raise StoreError(f"its format has version {version}; this program reads version {VERSION}")
            if file is not None:
                self._db.execute("pragma journal_mode = wal")
                self._db.execute("pragma synchronous = normal")
                self._db.execute("pragma secure_delete = on")
                file.chmod(0o600)
            self._db.executescript(f"{SCHEMA} pragma user_version = {VERSION};")
            (self._bytes,) = self._db.execute("select coalesce(sum(bytes), 0) from groups").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(str(error)) from None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(function, *args, **kwargs)

    def save(self, function: Callable[[], None], *, large: bool = False) -> asyncio.Future[None]:
        def do() -> None:
            try:
                function()
            except sqlite3.Error:  # for example, the disk is full
                log.exception("a response could not be stored")

        loop = asyncio.get_running_loop()
        if large:
            return loop.run_in_executor(None, do)
        do()
        done: asyncio.Future[None] = loop.create_future()
        done.set_result(None)
        return done

    # -- groups ----------------------------------------------------------------------------------------------

    def put(self, owner: bytes, group: Group, items: Sequence[StoredItem] = ()) -> bool:
        now = time.time()
        body = written(group.body)
        rows = rows_of(owner, group.id, items)
        with self._transaction():
            self._drop(group.id)
            if len(body) + ROW_BYTES + cost_of(rows) > self._max_bytes:
                return False
            self._db.execute(
                "insert into groups values (?, ?, ?, ?, ?, 0, ?, ?, ?)",
                (group.id, owner, group.kind, now, now, group.status, group.previous, body),
            )
            self._grow(group.id, len(body) + ROW_BYTES)
            self._insert(group.id, rows)
        self._evict()
        return True

    def change(self, owner: bytes, id: str, body: Mapping[str, Any]) -> None:
        text = written(body)
        with self._transaction():
            where = "where id = ? and owner = ?"
            found = self._db.execute(f"select body from groups {where}", (id, owner)).fetchone()
            if found is not None:
                self._db.execute(f"update groups set body = ? {where}", (text, id, owner))
                self._grow(id, len(text) - len(found[0]))

    def add(self, owner: bytes, id: str, items: Sequence[StoredItem]) -> bool:
        rows = rows_of(owner, id, items)
        with self._transaction():
            where = "where id = ? and owner = ?"
            found = self._db.execute(f"select bytes from groups {where}", (id, owner)).fetchone()
            if found is None or found[0] + cost_of(rows) > self._max_bytes:
                return False
            self._insert(id, rows)
            self._touch(id)
        self._evict()
        return True

    def get(self, owner: bytes, id: str) -> Group | None:
        with self._lock:
            row = self._db.execute(
                "select id, kind, status, previous, body from groups where id = ? and owner = ?", (id, owner)
            ).fetchone()
            if row is None:
                return None
            self._touch(id)
        id, kind, status, previous, body = row
        return Group(id, kind, status, previous, json.loads(body))

    def delete(self, owner: bytes, id: str) -> bool:
        with self._transaction():
            if self.get(owner, id) is None:
                return False
            self._drop(id)
        return True

    # -- items -----------------------------------------------------------------------------------------------

    def item(self, owner: bytes, id: str) -> StoredItem | None:
        with self._lock:
            row = self._db.execute(
                "select body, tokens, kind, group_id from items where owner = ? and id = ? "
                "order by kind = 'output' desc, serial desc limit 1",
                (owner, id),
            ).fetchone()
            if row is None:
                return None
            self._touch(row[3])
        return item_of(row)

    def items(self, owner: bytes, group_id: str, kind: str | None = None) -> list[StoredItem]:
        with self._lock:
            rows = self._db.execute(
                "select body, tokens, kind from items where owner = ? and group_id = ? order by serial",
                (owner, group_id),
            ).fetchall()
        return [item_of(row) for row in rows if kind in (None, row[2])]

    def remove(self, owner: bytes, group_id: str, item_id: str) -> bool:
        with self._transaction():
            where = "where owner = ? and group_id = ? and id = ?"
            values = (owner, group_id, item_id)
            (freed,) = self._db.execute(
                f"select coalesce(sum(length(body) + length(tokens) + {ROW_BYTES}), 0) from items {where}",
                values,
            ).fetchone()
            self._db.execute(f"delete from items {where}", values)
            self._grow(group_id, -freed)
        return bool(freed)

    def page(
        self,
        owner: bytes,
        group_id: str,
        limit: int,
        max_bytes: int,
        *,
        kind: str | None = None,
        after: str | None = None,
        ascending: bool = True,
    ) -> tuple[list[StoredItem], bool]:
        than, order = (">", "asc") if ascending else ("<", "desc")
        with self._lock:
            first = None if after is None else self._serial(owner, group_id, after)
            if after is not None and first is None:
                return [], False
            rows = self._db.execute(
                "select body, tokens, kind from items where owner = ? and group_id = ? "
                f"and (? is null or kind = ?) and (? is null or serial {than} ?) and serial in "
                "(select max(serial) from items where owner = ? and group_id = ? group by id) "
                f"order by serial {order}",
                (owner, group_id, kind, kind, first, first, owner, group_id),
            )
            return first_that_fit(rows, limit, max_bytes)

    def find(self, owner: bytes, group_id: str, item_id: str) -> StoredItem | None:
        with self._lock:
            row = self._db.execute(
                "select body, tokens, kind from items where owner = ? and group_id = ? and id = ? "
                "order by serial desc limit 1",
                (owner, group_id, item_id),
            ).fetchone()
        return None if row is None else item_of(row)

    def _serial(self, owner: bytes, group_id: str, item_id: str) -> int | None:
        (serial,) = self._db.execute(
            "select max(serial) from items where owner = ? and group_id = ? and id = ?",
            (owner, group_id, item_id),
        ).fetchone()
        return None if serial is None else int(serial)

    def history_bytes(self, owner: bytes, id: str) -> int:
        with self._lock:
            row = self._db.execute(
                "with recursive chain (id, previous) as ("
                "  select id, previous from groups where id = ? and owner = ? union all"
                "  select groups.id, groups.previous from groups, chain"
                "  where groups.id = chain.previous and groups.owner = ? limit ?) "
                "select coalesce(sum(length(items.body) + length(items.tokens)), 0) "
                "from chain, items where items.group_id = chain.id",
                (id, owner, owner, MAX_CHAIN),
            ).fetchone()
        return int(row[0])

    def chain(self, owner: bytes, response_id: str) -> list[Link] | str:
        found: list[Link] = []
        id: str | None = response_id
        with self._lock:
            while id is not None:
                row = self._db.execute(
                    "select kind, status, previous from groups where id = ? and owner = ?", (id, owner)
                ).fetchone()
                if row is None or row[0] != "response":
                    return id
                if len(found) == MAX_CHAIN:
                    raise ChainTooLong
                self._touch(id)
                found.append(Link(id, row[1]))
                id = row[2]
        return found[::-1]

    def unfinished(self) -> list[tuple[bytes, Group]]:
        """Responses with the status queued or in_progress, each with its owner."""
        with self._lock:
            rows = self._db.execute(
                "select owner, id, status, previous, body from groups "
                "where status in ('queued', 'in_progress')"
            ).fetchall()
        return [
            (owner, Group(id, "response", status, previous, json.loads(body)))
            for owner, id, status, previous, body in rows
        ]

    # -- statistics ------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return int(self._bytes)

    @property
    def count(self) -> int:
        with self._lock:
            return int(self._db.execute("select count(*) from groups").fetchone()[0])

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # -- details ---------------------------------------------------------------------------------------------

    def _touch(self, id: str) -> None:
        """Set the time of a group's last use to now."""
        now = time.time()
        long_ago = now - min(TOUCH_SECONDS, self._max_seconds / 10)
        self._db.execute("update groups set used = ? where id = ? and used < ?", (now, id, long_ago))

    def _insert(self, group_id: str, rows: Sequence[Row]) -> None:
        self._db.executemany(
            "insert into items (group_id, owner, id, kind, body, tokens) values (?, ?, ?, ?, ?, ?)", rows
        )
        self._grow(group_id, cost_of(rows))

    def _grow(self, id: str, by: int) -> None:
        self._db.execute("update groups set bytes = bytes + ? where id = ?", (by, id))
        self._bytes += by

    def _drop(self, id: str) -> None:
        row = self._db.execute("select bytes from groups where id = ?", (id,)).fetchone()
        if row is not None:
            self._bytes -= row[0]
            self._db.execute("delete from groups where id = ?", (id,))
            self._db.execute("delete from items where group_id = ?", (id,))

    def _evict(self) -> None:
        """Delete groups that are too old, and the least recently used ones while the store is too large."""
        with self._transaction():
            too_old = time.time() - self._max_seconds
            while row := self._db.execute(
                "select used, id from groups order by used, rowid limit 1"
            ).fetchone():
                used, id = row
                if used >= too_old and self._bytes <= self._max_bytes:
                    break
                self._drop(id)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db, self._lock)


class _Transaction:
    """Holds the lock and a transaction.  Inside of another one it does nothing by itself."""

    def __init__(self, db: sqlite3.Connection, lock: Any) -> None:
        self._db, self._lock = db, lock

    def __enter__(self) -> None:
        self._lock.acquire()
        self._outermost = not self._db.in_transaction
        if self._outermost:
            self._db.execute("begin immediate")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._outermost:
                self._db.execute("commit" if kind is None else "rollback")
        finally:
            self._lock.release()
