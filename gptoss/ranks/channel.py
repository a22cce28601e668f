"""Messages between rank 0 and one other rank, both of this machine: JSON, over a pair of sockets that no
third process can name."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from engine.errors import EngineError

Message = Mapping[str, Any]

LARGEST = 1 << 20
"""Bytes of a message: enough for what a step of 50,000 rows says."""

BEAT_SECONDS = 0.5
"""A process says so often that it lives."""

HUNG_SECONDS = 6.0
"""A process that says nothing for so long counts as hung."""

BEAT: Message = {}


class RankLost(EngineError):
    """A rank died, hangs or failed in a step: no rank can compute another.  One line that says which."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends; each message arrives whole or not at all."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)  # the system may allow less
    return ends


class Channel:
    """One end.  Several threads may send; one receives."""

    def __init__(self, end: socket.socket):
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Raises OSError if the other end is gone."""
        self._end.sendall(json.dumps(message).encode())

    def beat(self) -> None:
        """Say that this process lives, if there is room: the other one may be hung."""
        with suppress(OSError):
            self._end.send(json.dumps(BEAT).encode(), socket.MSG_DONTWAIT)

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
