"""The store of responses and conversations, with which clients continue by id.

sqlite_store.py  in memory or in a SQLite file
postgres/        in PostgreSQL, for several servers
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from server.dialogue.records import Group, Link, StoredItem, StoreError
from server.dialogue.sqlite_store import SqliteStore

P = ParamSpec("P")
T = TypeVar("T")


class Store(Protocol):
    """Stored responses and conversations.  Both are called groups here: groups of items.

    Its size and the age of what it has are limited: the groups that were used least recently are deleted
    first.  A group can be found only by its owner.

    All operations but `run`, `save`, `size`, `count` and `close` may wait for the disk or for a database.  A
    handler therefore calls them in a function that it passes to `run`.
    """

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that uses the store, on another thread, and return its result.

        Raises StoreUnavailable if a database does not answer.
        """

    def save(self, function: Callable[[], None], *, large: bool = False) -> asyncio.Future[None]:
        """Call a function that writes to the store; on another thread if that may take long.

        The future is done when the function has returned.  It never raises: a failure is logged, and the
        client gets its answer all the same.

        large  whether the function writes much
        """

    def put(self, owner: bytes, group: Group, items: Sequence[StoredItem] = ()) -> bool:
        """Store a group with its items, in place of the group that had its id.

        returns  False if it is larger than the whole store may be; then it is not stored
        """

    def change(self, owner: bytes, id: str, body: Mapping[str, Any]) -> None:
        """Replace the body of a group, but not its items.  Does nothing if there is no such group."""

    def add(self, owner: bytes, id: str, items: Sequence[StoredItem]) -> bool:
        """Append items to a group.

        returns  False if there is no such group, or it would be larger than the whole store may be
        """

    def get(self, owner: bytes, id: str) -> Group | None:
        """The group with this id."""

    def delete(self, owner: bytes, id: str) -> bool:
        """Delete a group with its items.  Returns whether there was one."""

    def item(self, owner: bytes, id: str) -> StoredItem | None:
        """The item with this id, from any group.  If this server has generated an item with the id, that one;
        otherwise the one that a client sent last.
        """

    def items(self, owner: bytes, group_id: str, kind: str | None = None) -> list[StoredItem]:
        """All items of a group, or those of one kind, in order."""

    def remove(self, owner: bytes, group_id: str, item_id: str) -> bool:
        """Delete an item of a group.  Returns whether there was one."""

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
        """Some items of a group, and whether there are more.

        Of items with one id only the last is listed: otherwise `after` would not say where the next page
        begins.

        limit      maximum number of items
        max_bytes  maximum size of all of them together; but a single item may be larger
        after      id of the item after which to begin; None: begin with the first
        ascending  False: in reverse order
        """

    def find(self, owner: bytes, group_id: str, item_id: str) -> StoredItem | None:
        """The last item with this id in a group."""

    def history_bytes(self, owner: bytes, id: str) -> int:
        """Size of all items of a conversation, or of a response and those before it (at most MAX_CHAIN)."""

    def chain(self, owner: bytes, response_id: str) -> list[Link] | str:
        """The response and all before it, the first one first; or the id of one that is missing.

        Raises ChainTooLong.
        """

    @property
    def size(self) -> int:
        """Size of everything stored, in bytes."""

    @property
    def count(self) -> int:
        """Number of groups."""

    def close(self) -> None:
        """Close the store.  Functions that are running may finish."""


def open_store(where: Path | str | None, max_bytes: int, max_seconds: float) -> Store:
    """Raises StoreError if the store cannot be used.

    where        a SQLite file, the URL of a PostgreSQL database, or None: in memory
    max_bytes    maximum size of everything stored
    max_seconds  time after its last use in which a group is kept
    """
    if not isinstance(where, str):
        return SqliteStore(where, max_bytes, max_seconds)
    try:
        from server.dialogue.postgres.store import PostgresStore
    except ImportError as error:
        raise StoreError(f"PostgreSQL needs psycopg: pip install 'gptoss[postgres]' ({error})") from None
    return PostgresStore(where, max_bytes, max_seconds)
