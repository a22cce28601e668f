"""What a store contains: responses, conversations and their items; and how these are rows of a database.

Both stores use this: sqlite_store.py (SQLite) and postgres/ (PostgreSQL).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from server.sse import written

ROW_BYTES = 300
"""Size of a row of a database beside its texts, approximately."""

MAX_CHAIN = 10_000
"""Maximum responses before a response."""

Item = dict[str, Any]

Row = tuple[str, bytes, str, str, str, bytes]
"""An item as a row: id of its group, owner, id, kind, body, tokens."""


class StoreError(Exception):
    """The store cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item, and the tokens that were sampled for it; none for an item that a client sent.

    kind   input or output
    bytes  its size in the store; 0 if it is not stored yet
    json   the body as text, for an item that is not stored yet; `body` has only the id then
    """

    body: Item
    tokens: Sequence[int] = ()
    kind: str = "input"
    bytes: int = 0
    json: str | None = None

    @staticmethod
    def as_text(body: Item) -> StoredItem:
        """The item with its body as text, because a parsed body takes many times as much memory."""
        return StoredItem({"id": body.get("id", "")}, json=written(body))


@dataclass(frozen=True, slots=True)
class Group:
    """A response or a conversation.

    kind      response or conversation
    status    of a response
    previous  id of the response before it
    body      the object that clients get, without its items
    """

    id: str
    kind: str
    status: str
    previous: str | None
    body: dict[str, Any]


class Link(NamedTuple):
    """A response in a chain of responses."""

    id: str
    status: str


class ChainTooLong(Exception):
    """There are more than MAX_CHAIN responses before this one."""


def first_that_fit(
    rows: Iterable[Sequence[Any]], limit: int, max_bytes: int
) -> tuple[list[StoredItem], bool]:
    """The items of the first rows, within both limits, and whether there are more rows: see `Store.page`.

    rows  each with the columns body, tokens and kind
    """
    found: list[StoredItem] = []
    left = max_bytes
    for row in rows:
        left -= len(row[0]) + len(row[1])
        if len(found) == limit or (found and left < 0):
            return found, True
        found.append(item_of(row))
    return found, False


def item_of(row: Sequence[Any]) -> StoredItem:
    """An item from its columns body, tokens and kind."""
    return StoredItem(json.loads(row[0]), array("i", bytes(row[1])), row[2], len(row[0]) + len(row[1]))


def rows_of(owner: bytes, group_id: str, items: Sequence[StoredItem]) -> list[Row]:
    """Items as rows."""
    return [
        (
            group_id,
            owner,
            str(kept.body.get("id", "")),
            kept.kind,
            kept.json or written(kept.body),
            array("i", kept.tokens).tobytes(),
        )
        for kept in items
    ]


def cost_of(rows: Sequence[Row]) -> int:
    """Size of these rows in the store, in bytes."""
    return sum(len(row[4]) + len(row[5]) + ROW_BYTES for row in rows)
