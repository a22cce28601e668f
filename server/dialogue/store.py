"""Where what was said is kept: in memory or a SQLite file (items.py), or in PostgreSQL (postgres.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from server.dialogue.items import Items
from server.dialogue.records import Group, Kept, Link, StoreError

P = ParamSpec("P")
T = TypeVar("T")


class Store(Protocol):
    """What a store can do; `Items` says what each means.

    A handler asks it in a function that it gives to `run`, since a store may be far away.
    """

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    def save(self, function: Callable[[], None], *, large: bool = False) -> asyncio.Future[None]: ...

    def put(self, owner: bytes, group: Group, items: Sequence[Kept] = ()) -> bool: ...
    def change(self, owner: bytes, id: str, body: Mapping[str, Any]) -> None: ...
    def add(self, owner: bytes, id: str, items: Sequence[Kept]) -> bool: ...
    def get(self, owner: bytes, id: str) -> Group | None: ...
    def delete(self, owner: bytes, id: str) -> bool: ...
    def item(self, owner: bytes, id: str) -> Kept | None: ...
    def items(self, owner: bytes, group_id: str, kind: str | None = None) -> list[Kept]: ...
    def remove(self, owner: bytes, group_id: str, item_id: str) -> bool: ...
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
    ) -> tuple[list[Kept], bool]: ...
    def find(self, owner: bytes, group_id: str, item_id: str) -> Kept | None: ...
    def history_bytes(self, owner: bytes, id: str) -> int: ...
    def chain(self, owner: bytes, response_id: str) -> list[Link] | str: ...

    @property
    def size(self) -> int: ...
    @property
    def count(self) -> int: ...
    def close(self) -> None: ...


def open_store(where: Path | str | None, max_bytes: int, max_seconds: float) -> Store:
    """where: a file, the URL of a database, or None: in memory.  Raises StoreError."""
    if not isinstance(where, str):
        return Items(where, max_bytes, max_seconds)
    try:
        from server.dialogue.postgres import PostgresItems
    except ImportError as error:
        raise StoreError(f"PostgreSQL needs psycopg: pip install 'gptoss[postgres]' ({error})") from None
    return PostgresItems(where, max_bytes, max_seconds)
