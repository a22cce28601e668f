"""Stop strings: the visible answer ends where the first of them begins."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on in pieces, but holds back what could be the beginning of a stop string.

    keep     whether the stop string itself is passed on too
    stopped  whether one was found; it (unless it is kept) and the text after it are dropped
    found    the stop string that was found
    """

    def __init__(self, strings: Sequence[str], *, keep: bool = False):
        self._strings = tuple(strings)
        self._longest = max(map(len, self._strings), default=0)
        self._keep = keep
        self._held = ""
        self.stopped = False
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """The text that can be shown now."""
        if not self._strings:
            return text
        text = self._held + text
        found = [(at, string) for string in self._strings if (at := text.find(string)) >= 0]
        if found:
            at, self.found = min(found)
            self.stopped, self._held = True, ""
            return text[: at + len(self.found)] if self._keep else text[:at]
        safe = self._safe(text)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """The text that was held back, when no more text follows."""
        held, self._held = self._held, ""
        return held

    def _safe(self, text: str) -> int:
        """The index of the first possible beginning of a stop string; the length of the text if none."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if any(string.startswith(text[start:]) for string in self._strings):
                return start
        return len(text)
