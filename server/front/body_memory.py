"""Limits the memory of all request bodies together, from the first byte of each until it has been parsed.

`--max-body-bytes` limits one body, but a thousand connections could each send that much and stop before the
end.  If all together become too large, the body that has been arriving for longest is refused, so that a
client that sends without a pause is not refused because others have stopped in the middle.  If none is
arriving (all wait to be parsed), the newest is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from server.errors import ApiError, BodyUnfit

ALL_BODIES_BYTES = 256 * 2**20

MIN_BODIES = 4
"""There is always room for at least this many bodies of maximum size."""

SMALL_BYTES = 16 * 2**10
"""A body of at most this size is never refused: a thousand of them have 16 MiB."""


class ArrivingBody(ABC):
    """A body that is being received.

    held      bytes that have arrived and are in memory
    arriving  whether more bytes are expected
    """

    held = 0

    @property
    @abstractmethod
    def arriving(self) -> bool: ...

    @abstractmethod
    def refuse(self) -> None:
        """Raise `too_much_at_once()` where this body is being read."""


class BodyMemory:
    """The memory of all bodies.  For one event loop."""

    def __init__(self, max_body_bytes: int):
        self._limit = max(ALL_BODIES_BYTES, MIN_BODIES * max_body_bytes)
        self._bodies: dict[ArrivingBody, None] = {}  # in the order of their first bytes
        self.bytes = 0

    def add(self, body: ArrivingBody, size: int) -> None:
        """Count `size` more bytes of a body.  Raises BodyUnfit if there is no room for them."""
        self._bodies[body] = None
        body.held += size
        self.bytes += size
        while self.bytes > self._limit and body.held > SMALL_BYTES:
            large = (each for each in self._bodies if each.arriving and each.held > SMALL_BYTES)
            refused = next(large, body)
            self.release(refused)
            if refused is body:
                raise too_much_at_once()
            refused.refuse()

    def release(self, body: ArrivingBody) -> None:
        """Stop counting a body, because it is no longer in memory."""
        self._bodies.pop(body, None)
        self.bytes -= body.held
        body.held = 0


def too_much_at_once() -> BodyUnfit:
    message = "too many large bodies arrive at the same time; try again"
    return BodyUnfit(ApiError(429, message, code="rate_limit_exceeded", headers={"retry-after": "1"}))
