"""The connections of one server by what they do, so that the oldest of a kind is found quickly.

A connection is noted when it begins to be of a kind, and stays noted when it goes on to something else:
whoever looks for the oldest asks the connections themselves, and drops those that are of another kind now.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol
from weakref import WeakKeyDictionary


class Connection(Protocol):
    transport: asyncio.Transport

    @property
    def idle(self) -> bool:
        """Whether there is no request."""

    @property
    def arriving(self) -> bool:
        """Whether the request that is being answered has not arrived completely."""


class Places:
    """closing  connections that have no place any more, the one that has been closing for longest first"""

    def __init__(self) -> None:
        self._idle: dict[Connection, None] = {}
        self._arriving: dict[Connection, None] = {}
        self.closing: dict[Connection, None] = {}

    def waits(self, connection: Connection) -> None:
        """It has no request since now."""
        self._idle.pop(connection, None)
        self._idle[connection] = None

    def receives(self, connection: Connection) -> None:
        """It has a request since now, whose body has perhaps not arrived."""
        if connection.arriving:
            self._arriving.pop(connection, None)
            self._arriving[connection] = None

    def close(self, connection: Connection) -> None:
        self.leave(connection)
        self.closing[connection] = None

    def leave(self, connection: Connection) -> None:
        for each in (self._idle, self._arriving, self.closing):
            each.pop(connection, None)

    def oldest_idle(self) -> Connection | None:
        while self._idle:
            connection = next(iter(self._idle))
            if connection.idle:
                return connection
            del self._idle[connection]
        return None

    def oldest_arriving(self) -> Connection | None:
        while self._arriving:
            connection = next(iter(self._arriving))
            if connection.arriving:
                return connection
            del self._arriving[connection]
        return None


_places: WeakKeyDictionary[Any, Places] = WeakKeyDictionary()


def places_of(server_state: Any) -> Places:
    """Those of one server."""
    return _places.setdefault(server_state, Places())
