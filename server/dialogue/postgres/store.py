"""The operations of the store.

The event loop must not wait for the database, so all queries run in threads (connections.py).  After
DEADLINE_SECONDS without an answer, the client gets status 503.

    run    runs a function that reads the store, in one of several threads; the request waits for the result
    save   writes in a single thread, so that writes keep their order; a failure is logged, and the request's
           answer is sent all the same
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import psycopg

from server.dialogue.postgres.connections import Connections, StoreUnavailable, Threads
from server.dialogue.postgres.tables import (
    CHAIN,
    NOW,
    STALE,
    Eviction,
    add_bytes,
    create_tables,
    group_of,
    insert_items,
    mark_used,
    only_row,
    storable,
)
from server.dialogue.records import (
    MAX_CHAIN,
    ROW_BYTES,
    ChainTooLong,
    Group,
    Link,
    StoredItem,
    StoreError,
    cost_of,
    first_that_fit,
    item_of,
    rows_of,
)
from server.sse import written

log = logging.getLogger("gptoss.server")

THREADS = 8
DEADLINE_SECONDS = 6.0
"""Time for all queries of one request."""

P = ParamSpec("P")
T = TypeVar("T")


class PostgresStore:
    """Implements `Store` (store.py), where each operation is described.

    url          such as postgresql://user@host/database; the password may be in PGPASSWORD or ~/.pgpass
    max_bytes    maximum size of everything stored, by all servers together
    max_seconds  time after its last use in which a group is kept
    """

    def __init__(self, url: str, max_bytes: int, max_seconds: float) -> None:
        """Raises StoreError."""
        self._max_bytes = max_bytes
        try:
            self._database = Connections(url)
            create_tables(self._database)
            self._eviction = Eviction(self._database, max_bytes, max_seconds)
            self._database.disconnect()
        except (psycopg.Error, StoreUnavailable) as error:
            reason = str(error.__cause__ or error)
            raise StoreError(" ".join(reason.split()) or type(error).__name__) from None
        self._threads = [Threads(number, self._database.disconnect) for number in (THREADS, 1)]

    # -- in threads -----------------------------------------------------------------------------------------

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await self._threads[0].run(lambda: function(*args, **kwargs))
        except TimeoutError:
            log.error("the store at %s did not answer within %g s", self._database.name, DEADLINE_SECONDS)
            raise StoreUnavailable() from None

    def save(self, function: Callable[[], None], *, large: bool = False) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._save(self._threads[1].run(function)))

    async def _save(self, saving: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.shield(saving)
        except TimeoutError:
            log.error("a response is not stored yet: the store at %s does not answer", self._database.name)
            saving.add_done_callback(lambda done: done.cancelled() or done.exception())
        except StoreUnavailable:
            log.error("a response could not be stored: the store at %s does not answer", self._database.name)
        except Exception:
            log.exception("a response could not be stored")

    # -- groups ----------------------------------------------------------------------------------------------

    def put(self, owner: bytes, group: Group, items: Sequence[StoredItem] = ()) -> bool:
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
                    storable(group.previous),
                    body,
                ),
            )
            insert_items(db, group.id, rows)
        self._eviction.after_writing(len(body) + cost_of(rows))
        return True

    def change(self, owner: bytes, id: str, body: Mapping[str, Any]) -> None:
        text = written(body)
        with self._database.transaction() as db:
            db.execute(
                "update gptoss_groups set body = %s, bytes = bytes + %s - length(body) "
                "where id = %s and owner = %s",
                (text, len(text), storable(id), owner),
            )

    def add(self, owner: bytes, id: str, items: Sequence[StoredItem]) -> bool:
        rows = rows_of(owner, id, items)
        with self._database.transaction() as db:
            found = db.execute(
                f"update gptoss_groups set used = {NOW} where id = %s and owner = %s and bytes + %s <= %s",
                (storable(id), owner, cost_of(rows), self._max_bytes),
            )
            if not found.rowcount:
                return False
            insert_items(db, id, rows)
        self._eviction.after_writing(cost_of(rows))
        return True

    def get(self, owner: bytes, id: str) -> Group | None:
        with self._database.statements() as db:
            row = db.execute(
                f"select id, kind, status, previous, body, {STALE} from gptoss_groups "
                "where id = %s and owner = %s",
                (storable(id), owner),
            ).fetchone()
            if row is None:
                return None
            if row[5]:
                mark_used(db, [row[0]])
        return group_of(row)

    def delete(self, owner: bytes, id: str) -> bool:
        with self._database.transaction() as db:
            gone = db.execute("delete from gptoss_groups where id = %s and owner = %s", (storable(id), owner))
        return bool(gone.rowcount)

    # -- items -----------------------------------------------------------------------------------------------

    def item(self, owner: bytes, id: str) -> StoredItem | None:
        with self._database.statements() as db:
            row = db.execute(
                f"select i.body, i.tokens, i.kind, g.id, {STALE} "
                "from gptoss_items i join gptoss_groups g on g.id = i.group_id "
                "where i.owner = %s and i.id = %s order by i.kind = 'output' desc, i.serial desc limit 1",
                (owner, storable(id)),
            ).fetchone()
            if row is None:
                return None
            if row[4]:
                mark_used(db, [row[3]])
        return item_of(row)

    def items(self, owner: bytes, group_id: str, kind: str | None = None) -> list[StoredItem]:
        with self._database.statements() as db:
            rows = db.execute(
                "select body, tokens, kind from gptoss_items where owner = %s and group_id = %s "
                "order by serial",
                (owner, storable(group_id)),
            ).fetchall()
        return [item_of(row) for row in rows if kind in (None, row[2])]

    def remove(self, owner: bytes, group_id: str, item_id: str) -> bool:
        with self._database.transaction() as db:
            freed = db.execute(
                "delete from gptoss_items where owner = %s and group_id = %s and id = %s "
                f"returning length(body) + length(tokens) + {ROW_BYTES}",
                (owner, storable(group_id), storable(item_id)),
            ).fetchall()
            add_bytes(db, group_id, -sum(row[0] for row in freed))
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
        asked = {"owner": owner, "group": storable(group_id), "kind": kind, "after": storable(after)}
        of_group = "from gptoss_items where owner = %(owner)s and group_id = %(group)s"
        first: int | None = None
        with self._database.transaction() as db:
            if after is not None:
                found = db.execute(f"select max(serial) {of_group} and id = %(after)s", asked).fetchone()
                if found is None or found[0] is None:
                    return [], False
                first = found[0]
            with db.cursor(name="page") as rows:  # a cursor of the server, which sends only the rows that fit
                rows.itersize = 10
                rows.execute(
                    f"select body, tokens, kind {of_group} and (%(kind)s::text is null or kind = %(kind)s) "
                    f"and (%(first)s::bigint is null or serial {than} %(first)s) "
                    f"and serial in (select max(serial) {of_group} group by id) order by serial {order}",
                    {**asked, "first": first},
                )
                return first_that_fit(rows, limit, max_bytes)

    def find(self, owner: bytes, group_id: str, item_id: str) -> StoredItem | None:
        with self._database.statements() as db:
            row = db.execute(
                "select body, tokens, kind from gptoss_items where owner = %s and group_id = %s and id = %s "
                "order by serial desc limit 1",
                (owner, storable(group_id), storable(item_id)),
            ).fetchone()
        return None if row is None else item_of(row)

    def history_bytes(self, owner: bytes, id: str) -> int:
        with self._database.statements() as db:
            row = db.execute(
                f"{CHAIN} select coalesce(sum(length(i.body) + length(i.tokens)), 0) "
                "from chain join gptoss_items i on i.group_id = chain.id",
                {"id": storable(id), "owner": owner, "most": MAX_CHAIN},
            )
            return int(only_row(row)[0])

    def chain(self, owner: bytes, response_id: str) -> list[Link] | str:
        with self._database.statements() as db:
            rows = db.execute(
                f"{CHAIN} select id, status, previous, kind, {STALE} from chain order by place desc",
                {"id": storable(response_id), "owner": owner, "most": MAX_CHAIN + 1},
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
                mark_used(db, stale)
        return [Link(row[0], row[1]) for row in rows]

    # -- figures, as of the last eviction --------------------------------------------------------------------

    @property
    def size(self) -> int:
        return self._eviction.size

    @property
    def count(self) -> int:
        return self._eviction.count

    def close(self) -> None:
        for threads in self._threads:
            threads.close()
