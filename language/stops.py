"""Stop strings: the visible answer ends where one of them would begin."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Takes text in pieces and gives it on, less what could still turn out to be a stop string.

    stopped  one was found; it and what follows are gone
    found    which
    """

    def __init__(self, strings: Sequence[str]):
        self._strings = tuple(strings)
        self._longest = max(map(len, self._strings), default=0)
        self._held = ""
        self.stopped = False
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """What of the text so far may be shown now."""
        if not self._strings:
            return text
        text = self._held + text
        found = [(at, string) for string in self._strings if (at := text.find(string)) >= 0]
        if found:
            at, self.found = min(found)
            self.stopped, self._held = True, ""
            return text[:at]
        safe = self._safe(text)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """No more text comes: what was held back was no stop string."""
        held, self._held = self._held, ""
        return held

    def _safe(self, text: str) -> int:
        """Where the first stop string could begin that the text has not yet all of; its length if nowhere."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if any(string.startswith(text[start:]) for string in self._strings):
                return start
        return len(text)
