"""Holds back log-probabilities until the text of their tokens is shown."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class HeldUntilShown(Generic[T]):
    """Holds an item for each token until the token's text is shown; items of text that is cut off are lost.

    A token may end in the middle of a character, and a stop string may hold text back or cut it off.  So each
    item is stored with the position in the visible text, in characters, at which its token begins.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, T]] = []

    def add(self, begins_at: int, item: T) -> None:
        self._held.append((begins_at, item))

    def take(self, shown: float) -> list[T]:
        """Remove and return the items of the first `shown` characters."""
        taken = [item for begins_at, item in self._held if begins_at < shown]
        self._held = [(begins_at, item) for begins_at, item in self._held if begins_at >= shown]
        return taken
