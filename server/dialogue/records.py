"""What a store keeps: responses and conversations, their items, and both as rows of a database.

items.py keeps them in SQLite, postgres.py in PostgreSQL.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from server.sse import written

ROW_BYTES = 300
"""What a row costs beside its text."""

MAX_CHAIN = 10_000
"""Responses that one can go on from, directly or through others."""

Item = dict[str, Any]

Row = tuple[str, bytes, str, str, str, bytes]
"""Group, owner, id, kind, body and tokens of an item."""


class StoreError(Exception):
    """The store cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An item, and what was sampled for it; nothing for a client's own.

    kind   input or output
    bytes  that are kept of it; 0 if it has not been kept yet
    json   the body as text, if no more of it is to be held in memory until it is kept; `body` has the id then
    """

    body: Item
    tokens: Sequence[int] = ()
    kind: str = "input"
    bytes: int = 0
    json: str | None = None

    @staticmethod
    def as_text(body: Item) -> Kept:
        """As text: parsed, it takes many times as much memory."""
        return Kept({"id": body.get("id", "")}, json=written(body))


@dataclass(frozen=True, slots=True)
class Group:
    """A response, or a conversation.

    status    of a response
    previous  the response before it
    body      the object itself, without its items
    """

    id: str
    kind: str
    status: str
    previous: str | None
    body: dict[str, Any]


class Link(NamedTuple):
    """A response in a chain of them."""

    id: str
    status: str


class ChainTooLong(Exception):
    """A response goes on from more than MAX_CHAIN others."""


def first_that_fit(rows: Iterable[Sequence[Any]], limit: int, max_bytes: int) -> tuple[list[Kept], bool]:
    """Items of rows of body, tokens and kind, as `Items.page` returns them."""
    found: list[Kept] = []
    left = max_bytes
    for row in rows:
        left -= len(row[0]) + len(row[1])
        if len(found) == limit or (found and left < 0):
            return found, True
        found.append(kept_of(row))
    return found, False


def kept_of(row: Sequence[Any]) -> Kept:
    return Kept(json.loads(row[0]), array("i", bytes(row[1])), row[2], len(row[0]) + len(row[1]))


def rows_of(owner: bytes, group_id: str, items: Sequence[Kept]) -> list[Row]:
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
    """Bytes."""
    return sum(len(row[4]) + len(row[5]) + ROW_BYTES for row in rows)
