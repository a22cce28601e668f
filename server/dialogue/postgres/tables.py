"""The tables of the store in PostgreSQL: how they are created, and how they are kept within their bounds.

store.py has the operations of the store.  Here is what several of them share.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import psycopg

from server.dialogue.postgres.connections import Connections
from server.dialogue.records import Group, Row, StoreError, cost_of

EVICTION_SECONDS = 60.0
EVICTION_SHARE = 64
"""Old responses are deleted after so many seconds at the latest, or sooner, when this server has written
1 / EVICTION_SHARE of the store's maximum size.
"""

VERSION = 1
LOCK = 0x67707430  # key of the advisory locks; unlikely to be the key of any other program
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
"""A group and the groups before it; `most` is the maximum number."""

STALE = f"used < {NOW} - 60"
"""Whether the time of a group's last use must be written again.  It is exact to a minute, so that most reads
write nothing.
"""


def create_tables(database: Connections) -> None:
    """Creates the tables that do not exist yet.  Raises StoreError if they are of another version."""
    with database.transaction() as db:
        db.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        db.execute(SCHEMA % VERSION)
        (found,) = only_row(db.execute("select version from gptoss_store"))
    if found != VERSION:
        raise StoreError(f"its format has version {found}; this program reads version {VERSION}")


class Eviction:
    """Deletes groups that are too old, and the least recently used ones while the store is too large.

    max_bytes    of the whole store, for all servers together
    max_seconds  since the last use of a group
    size         bytes in the store after the last eviction
    count        groups in the store after the last eviction
    """

    def __init__(self, database: Connections, max_bytes: int, max_seconds: float) -> None:
        self._database, self._max_bytes, self._max_seconds = database, max_bytes, max_seconds
        self.size = self.count = 0
        self._run()

    def after_writing(self, size: int) -> None:
        """Evict if it is time to.

        size  bytes that were written
        """
        self._written += size
        overdue = time.monotonic() - self._ran_at > EVICTION_SECONDS
        if overdue or self._written > self._max_bytes // EVICTION_SHARE:
            self._run()

    def _run(self) -> None:
        self._written, self._ran_at = 0, time.monotonic()
        with self._database.transaction() as db:
            (got_lock,) = only_row(db.execute("select pg_try_advisory_xact_lock(%s)", (LOCK,)))
            if got_lock:  # otherwise another server is evicting
                db.execute(f"delete from gptoss_groups where used < {NOW} - %s", (self._max_seconds,))
                db.execute(
                    "delete from gptoss_groups where id in (select id from (select id, sum(bytes) over "
                    "(order by used desc, id) as kept from gptoss_groups) as each where kept > %s)",
                    (self._max_bytes,),
                )
            figures = db.execute("select coalesce(sum(bytes), 0), count(*) from gptoss_groups")
            self.size, self.count = map(int, only_row(figures))


# Statements that several operations have in common


def insert_items(db: psycopg.Connection, group_id: str, rows: Sequence[Row]) -> None:
    """Append items to a group that exists."""
    if not rows:
        return
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into gptoss_items (group_id, owner, id, kind, body, tokens) "
            "values (%s, %s, %s, %s, %s, %s)",
            [(storable(group), owner, storable(id), *rest) for group, owner, id, *rest in rows],
        )
    add_bytes(db, group_id, cost_of(rows))


def mark_used(db: psycopg.Connection, ids: list[str]) -> None:
    """Set the time of last use of these groups to now."""
    db.execute(f"update gptoss_groups set used = {NOW} where id = any(%s)", (ids,))


def add_bytes(db: psycopg.Connection, id: str, size: int) -> None:
    """Add to the recorded size of a group."""
    db.execute("update gptoss_groups set bytes = bytes + %s where id = %s", (size, storable(id)))


def storable(id: Any) -> Any:
    """An id as PostgreSQL can store it: without the null character, which a client's id may contain."""
    return id.replace("\0", "\ufffd") if isinstance(id, str) else id


def only_row(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    """The row of a query that always has one."""
    row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None
    return row


def group_of(row: Sequence[Any]) -> Group:
    """A group from its columns id, kind, status, previous and body."""
    id, kind, status, previous, body = row[:5]
    return Group(id, kind, status, previous, json.loads(body))
