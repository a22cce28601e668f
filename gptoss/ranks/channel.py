"""Messages between rank 0 and one other rank of the same machine: JSON, over a pair of unnamed sockets, to
which no third process can connect.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from engine.errors import EngineError

Message = Mapping[str, Any]

LARGEST = 1 << 20
"""Maximum bytes of a message: enough for a step of 50,000 rows."""

HEARTBEAT_SECONDS = 0.5
"""Time between two heartbeats of a process."""

HUNG_SECONDS = 6.0
"""A process that sends nothing for this long counts as hung."""

HEARTBEAT: Message = {}


class RankLost(EngineError):
    """A rank died, hangs or failed in a step, so no further step can be computed.  The message is one line
    that names the rank.
    """


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets.  Each message arrives completely or not at all."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)  # the system may allow less
    return ends


class Channel:
    """One end of a connection.  Several threads may send; one receives."""

    def __init__(self, end: socket.socket):
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Raises OSError if the other end is gone."""
        self._end.sendall(json.dumps(message).encode())

    def send_heartbeat(self) -> None:
        """Send a heartbeat.  Does nothing if the buffer is full, because the other process may be hung."""
        with suppress(OSError):
            self._end.send(json.dumps(HEARTBEAT).encode(), socket.MSG_DONTWAIT)

    def receive(self) -> Message:
        """Wait for the next message.  Raises EOFError if the other end is gone."""
        try:
            text = self._end.recv(LARGEST)
        except OSError:
            text = b""
        if not text:
            raise EOFError
        message: Message = json.loads(text)
        return message

    def close(self) -> None:
        self._end.close()
