"""The connections of one server by their state, so that the oldest in a state is found quickly.

A connection is added when it enters a state, and is not removed when it leaves it.  The search for the oldest
asks each connection whether it is still in that state, and removes those that are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
    """closing  connections that are being closed and no longer count, the oldest first"""

    def __init__(self) -> None:
        self._idle: dict[Connection, None] = {}
        self._arriving: dict[Connection, None] = {}
        self.closing: dict[Connection, None] = {}

    def waits(self, connection: Connection) -> None:
        """It has no request from now on."""
        self._idle.pop(connection, None)
        self._idle[connection] = None

    def receives(self, connection: Connection) -> None:
        """It has a request from now on, whose body may not have arrived yet."""
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
        return _oldest(self._idle, lambda connection: connection.idle)

    def oldest_arriving(self) -> Connection | None:
        return _oldest(self._arriving, lambda connection: connection.arriving)


def _oldest(
    connections: dict[Connection, None], still_in_state: Callable[[Connection], bool]
) -> Connection | None:
    while connections:
        connection = next(iter(connections))
        if still_in_state(connection):
            return connection
        del connections[connection]
    return None


_places: WeakKeyDictionary[Any, Places] = WeakKeyDictionary()


def places_of(server_state: Any) -> Places:
    """Those of one server."""
    return _places.setdefault(server_state, Places())
