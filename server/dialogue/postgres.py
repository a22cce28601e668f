"""What was said, kept in PostgreSQL: as in items.py, for several servers at once.

All servers share the same store, so any of them goes on with any conversation.  The event loop must not wait
for a database: whatever asks it runs in a thread (database.py), and after DEADLINE_SECONDS the client is told
503.

    run    some threads, each request's work in one of them; the client waits for it
    save   one thread, so that saves are done in their order; a failure is logged, and the answer no worse
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import psycopg

from server.dialogue.database import Connections, StoreUnavailable, Threads
from server.dialogue.records import (
    MAX_CHAIN,
    ROW_BYTES,
    ChainTooLong,
    Group,
    Kept,
    Link,
    Row,
    StoreError,
    cost_of,
    first_that_fit,
    kept_of,
    rows_of,
)
from server.sse import written

log = logging.getLogger("gptoss.server")

THREADS = 8
DEADLINE_SECONDS = 6.0
"""For everything that one request asks of the store."""

ROOM_SECONDS = 60.0
ROOM_SHARE = 64
"""Room is made at the latest after so long, or when 1 / ROOM_SHARE of the store's size was written here."""

VERSION = 1
LOCK = 0x67707430  # for advisory locks: nobody else's, as far as one can tell
SCHEMA = """
create table if not exists gptoss_store (version integer not null);
insert into gptoss_store select %d where not exists (select 1 from gptoss_store);
create table if not exists gptoss_groups (
    id text primary key, owner bytea not null, kind text not null, used double precision not null,
    bytes bigint not null, status text not null, previous text, body text not null
);
create index if not exists gptoss_groups_by_use on gptoss_groups (used);
create table if not exists gptoss_items (
    serial bigint generated always as identity primary key,
    group_id text not null references gptoss_groups on delete cascade,
    owner bytea not null, id text not null, kind text not null, body text not null, tokens bytea not null
);
create index if not exists gptoss_items_by_id on gptoss_items (owner, id);
create index if not exists gptoss_items_by_group on gptoss_items (group_id, serial);
"""

NOW = "extract(epoch from now())::double precision"
"""The database's clock, which is the same for all servers."""

CHAIN = """
with recursive chain as (
    select id, kind, status, previous, used, 1 as place from gptoss_groups
        where id = %(id)s and owner = %(owner)s
    union all
    select g.id, g.kind, g.status, g.previous, g.used, place + 1
        from gptoss_groups g join chain on g.id = chain.previous
        where g.owner = %(owner)s and place < %(most)s
)
"""
"""A group and those before it, `most` at most."""

STALE = f"used < {NOW} - 60"
"""When a group was used is kept to the minute: reading need not write each time."""

P = ParamSpec("P")
T = TypeVar("T")


class PostgresItems:
    """As `Items`.  All but `run`, `save`, `size`, `count` and `close` ask the database, and wait for it.

    url          as postgresql://user@host/database; the password may be in PGPASSWORD or ~/.pgpass
    max_bytes    of all that is kept, by all servers
    max_seconds  since it was last used
    """

    def __init__(self, url: str, max_bytes: int, max_seconds: float) -> None:
        """Raises StoreError."""
        self._max_bytes, self._max_seconds = max_bytes, max_seconds
        self._written, self._room_at = 0, float("-inf")
        self._bytes = self._count = 0
        try:
            self._database = Connections(url)
            with self._database.transaction() as db:
                db.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
                db.execute(SCHEMA % VERSION)
                (found,) = _row(db.execute("select version from gptoss_store"))
            if found != VERSION:
                raise StoreError(f"it is of version {found}, and this program reads version {VERSION}")
            self._make_room()
            self._database.disconnect()
        except (psycopg.Error, StoreUnavailable) as error:
            reason = str(error.__cause__ or error)
            raise StoreError(" ".join(reason.split()) or type(error).__name__) from None
        self._threads = [Threads(number, self._database.disconnect) for number in (THREADS, 1)]

    # -- in threads -----------------------------------------------------------------------------------------

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result; it asks the store.  Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await self._threads[0].run(lambda: function(*args, **kwargs))
        except TimeoutError:
            log.error("the store at %s did not answer within %g s", self._database.name, DEADLINE_SECONDS)
            raise StoreUnavailable() from None

    def save(self, function: Callable[[], None], *, large: bool = False) -> asyncio.Future[None]:
        """Begins to do what the function does.  What comes of it may be waited for, and never raises."""
        return asyncio.ensure_future(self._save(self._threads[1].run(function)))

    async def _save(self, saving: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.shield(saving)
        except TimeoutError:
            log.error("a response is not kept yet: the store at %s does not answer", self._database.name)
            saving.add_done_callback(lambda done: done.cancelled() or done.exception())
        except StoreUnavailable:  # the answer is no worse for it
            log.error("a response could not be kept: the store at %s does not answer", self._database.name)
        except Exception:
            log.exception("a response could not be kept")

    # -- groups ----------------------------------------------------------------------------------------------

    def put(self, owner: bytes, group: Group, items: Sequence[Kept] = ()) -> bool:
        """Keeps a response or a conversation with its items, instead of what was kept under its id.

        returns  False: it is larger than the whole store may be, and not kept
        """
        body = written(group.body)
        rows = rows_of(owner, group.id, items)
        with self._database.transaction() as db:
            db.execute("delete from gptoss_groups where id = %s", (group.id,))
            if len(body) + ROW_BYTES + cost_of(rows) > self._max_bytes:
                return False
            db.execute(
                f"insert into gptoss_groups values (%s, %s, %s, {NOW}, %s, %s, %s, %s)",
                (
                    group.id,
                    owner,
                    group.kind,
                    len(body) + ROW_BYTES,
                    group.status,
                    _plain(group.previous),
                    body,
                ),
            )
            self._insert(db, group.id, rows)
        self._written += len(body)
        self._make_room_sometimes()
        return True

    def change(self, owner: bytes, id: str, body: Mapping[str, Any]) -> None:
        """Another object in a group's place, whose items stay; nothing happens if there is none."""
        text = written(body)
        with self._database.transaction() as db:
            db.execute(
                "update gptoss_groups set body = %s, bytes = bytes + %s - length(body) "
                "where id = %s and owner = %s",
                (text, len(text), _plain(id), owner),
            )

    def add(self, owner: bytes, id: str, items: Sequence[Kept]) -> bool:
        """Appends items to a group.

        returns  False: there is no such group, or it would be larger than the whole store may be
        """
        rows = rows_of(owner, id, items)
        with self._database.transaction() as db:
            found = db.execute(
                f"update gptoss_groups set used = {NOW} where id = %s and owner = %s and bytes + %s <= %s",
                (_plain(id), owner, cost_of(rows), self._max_bytes),
            )
            if not found.rowcount:
                return False
            self._insert(db, id, rows)
        self._make_room_sometimes()
        return True

    def get(self, owner: bytes, id: str) -> Group | None:
        with self._database.statements() as db:
            row = db.execute(
                f"select id, kind, status, previous, body, {STALE} from gptoss_groups "
                "where id = %s and owner = %s",
                (_plain(id), owner),
            ).fetchone()
            if row is None:
                return None
            if row[5]:
                _used(db, [row[0]])
        return _group(row)

    def delete(self, owner: bytes, id: str) -> bool:
        """Whether there was such a group."""
        with self._database.transaction() as db:
            gone = db.execute("delete from gptoss_groups where id = %s and owner = %s", (_plain(id), owner))
        return bool(gone.rowcount)

    # -- items -----------------------------------------------------------------------------------------------

    def item(self, owner: bytes, id: str) -> Kept | None:
        """The item of this id: as it was made here, or else as a client sent it last."""
        with self._database.statements() as db:
            row = db.execute(
                f"select i.body, i.tokens, i.kind, g.id, {STALE} "
                "from gptoss_items i join gptoss_groups g on g.id = i.group_id "
                "where i.owner = %s and i.id = %s order by i.kind = 'output' desc, i.serial desc limit 1",
                (owner, _plain(id)),
            ).fetchone()
            if row is None:
                return None
            if row[4]:
                _used(db, [row[3]])
        return kept_of(row)

    def items(self, owner: bytes, group_id: str, kind: str | None = None) -> list[Kept]:
        """Those of a group, in order."""
        with self._database.statements() as db:
            rows = db.execute(
                "select body, tokens, kind from gptoss_items where owner = %s and group_id = %s "
                "order by serial",
                (owner, _plain(group_id)),
            ).fetchall()
        return [kept_of(row) for row in rows if kind in (None, row[2])]

    def remove(self, owner: bytes, group_id: str, item_id: str) -> bool:
        """Whether there was such an item in the group."""
        with self._database.transaction() as db:
            freed = db.execute(
                "delete from gptoss_items where owner = %s and group_id = %s and id = %s "
                f"returning length(body) + length(tokens) + {ROW_BYTES}",
                (owner, _plain(group_id), _plain(item_id)),
            ).fetchall()
            _grow(db, group_id, -sum(row[0] for row in freed))
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
    ) -> tuple[list[Kept], bool]:
        """Some of a group's items, from behind the item `after` on, and whether there are more.

        At most `limit`, and no more than fit into `max_bytes` unless one alone does not.  Of items with one
        id only the last is listed: otherwise `after` would not say where the next page begins.
        """
        than, order = (">", "asc") if ascending else ("<", "desc")
        asked = {"owner": owner, "group": _plain(group_id), "kind": kind, "after": _plain(after)}
        of_group = "from gptoss_items where owner = %(owner)s and group_id = %(group)s"
        first: int | None = None
        with self._database.transaction() as db:
            if after is not None:
                found = db.execute(f"select max(serial) {of_group} and id = %(after)s", asked).fetchone()
                if found is None or found[0] is None:
                    return [], False
                first = found[0]
            with db.cursor(name="page") as rows:  # on the server: what does not fit is not sent
                rows.itersize = 10
                rows.execute(
                    f"select body, tokens, kind {of_group} and (%(kind)s::text is null or kind = %(kind)s) "
                    f"and (%(first)s::bigint is null or serial {than} %(first)s) "
                    f"and serial in (select max(serial) {of_group} group by id) order by serial {order}",
                    {**asked, "first": first},
                )
                return first_that_fit(rows, limit, max_bytes)

    def find(self, owner: bytes, group_id: str, item_id: str) -> Kept | None:
        """The last item of this id in a group."""
        with self._database.statements() as db:
            row = db.execute(
                "select body, tokens, kind from gptoss_items where owner = %s and group_id = %s and id = %s "
                "order by serial desc limit 1",
                (owner, _plain(group_id), _plain(item_id)),
            ).fetchone()
        return None if row is None else kept_of(row)

    def history_bytes(self, owner: bytes, id: str) -> int:
        """Of the items of a conversation, or of a response and of those before it (MAX_CHAIN at most)."""
        with self._database.statements() as db:
            row = db.execute(
                f"{CHAIN} select coalesce(sum(length(i.body) + length(i.tokens)), 0) "
                "from chain join gptoss_items i on i.group_id = chain.id",
                {"id": _plain(id), "owner": owner, "most": MAX_CHAIN},
            )
            return int(_row(row)[0])

    def chain(self, owner: bytes, response_id: str) -> list[Link] | str:
        """The responses up to this one, the first one first; or the id of one that is not there.

        Raises ChainTooLong.
        """
        with self._database.statements() as db:
            rows = db.execute(
                f"{CHAIN} select id, status, previous, kind, {STALE} from chain order by place desc",
                {"id": _plain(response_id), "owner": owner, "most": MAX_CHAIN + 1},
            ).fetchall()
            for row in reversed(rows):
                if row[3] != "response":
                    return str(row[0])
            if not rows:
                return response_id
            if len(rows) > MAX_CHAIN:
                raise ChainTooLong
            if (missing := rows[0][2]) is not None:
                return str(missing)
            if stale := [row[0] for row in rows if row[4]]:
                _used(db, stale)
        return [Link(row[0], row[1]) for row in rows]

    # -- figures, as of when room was made last --------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes."""
        return self._bytes

    @property
    def count(self) -> int:
        """Responses and conversations."""
        return self._count

    def close(self) -> None:
        """What is being asked ends by itself."""
        for threads in self._threads:
            threads.close()

    # -- room ------------------------------------------------------------------------------------------------

    def _insert(self, db: psycopg.Connection, group_id: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        with db.cursor() as cursor:
            cursor.executemany(
                "insert into gptoss_items (group_id, owner, id, kind, body, tokens) "
                "values (%s, %s, %s, %s, %s, %s)",
                [(_plain(group), owner, _plain(id), *rest) for group, owner, id, *rest in rows],
            )
        size = cost_of(rows)
        _grow(db, group_id, size)
        self._written += size

    def _make_room_sometimes(self) -> None:
        due = time.monotonic() - self._room_at > ROOM_SECONDS
        if due or self._written > self._max_bytes // ROOM_SHARE:
            self._make_room()

    def _make_room(self) -> None:
        """Drops what is too old, and the least recently used while there is too much."""
        self._written, self._room_at = 0, time.monotonic()
        with self._database.transaction() as db:
            (alone,) = _row(db.execute("select pg_try_advisory_xact_lock(%s)", (LOCK,)))
            if alone:
                db.execute(f"delete from gptoss_groups where used < {NOW} - %s", (self._max_seconds,))
                db.execute(
                    "delete from gptoss_groups where id in (select id from (select id, sum(bytes) over "
                    "(order by used desc, id) as kept from gptoss_groups) as each where kept > %s)",
                    (self._max_bytes,),
                )
            figures = db.execute("select coalesce(sum(bytes), 0), count(*) from gptoss_groups")
            self._bytes, self._count = map(int, _row(figures))


def _used(db: psycopg.Connection, ids: list[str]) -> None:
    db.execute(f"update gptoss_groups set used = {NOW} where id = any(%s)", (ids,))


def _grow(db: psycopg.Connection, id: str, by: int) -> None:
    db.execute("update gptoss_groups set bytes = bytes + %s where id = %s", (by, _plain(id)))


def _plain(id: Any) -> Any:
    """An id as PostgreSQL can have it: a client's may have the one character that its texts cannot."""
    return id.replace("\0", "\ufffd") if isinstance(id, str) else id


def _row(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None
    return row


def _group(row: Sequence[Any]) -> Group:
    id, kind, status, previous, body = row[:5]
    return Group(id, kind, status, previous, json.loads(body))
