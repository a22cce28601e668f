"""The output of a conversation: reasoning dimmed, notes in brackets, control characters removed.

If stdout is not a terminal, there are no colours and no reasoning, and notes go to stderr.
"""

from __future__ import annotations

import os
import re
from typing import TextIO

from gptoss.progress import PromptBar
from gptoss.terminal.answers import Piece, PromptProgress

DIM, PLAIN = "\x1b[2m", "\x1b[0m"

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters except tab and line feed; with others a model could move the cursor or set the title."""


def harmless(text: str) -> str:
    return STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


class Screen:
    """
    reasoning  whether reasoning is shown
    """

    def __init__(self, out: TextIO, notes: TextIO, reasoning: bool | None = None):
        self._out, self._notes = out, notes
        self._terminal = out.isatty()
        self._colours = self._terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.reasoning = self._terminal if reasoning is None else reasoning
        self._showing: str | None = None  # the kind of the last piece of this answer
        self._ends_line = True
        self._bar = PromptBar(out)

    def reading(self, reading: PromptProgress) -> None:
        """On a terminal: show the progress of the prompt, until something else is shown."""
        self._bar.show(reading.computed, reading.tokens)

    def show(self, piece: Piece) -> None:
        if piece.kind == "note":
            self.end()
            self.note(piece.text)
        elif piece.kind == "content" or self.reasoning:
            text = harmless(piece.text)
            if self._showing not in (None, piece.kind):
                text = self._between() + text
            self._showing = piece.kind
            self._ends_line = text.endswith("\n")
            self._write(text, dim=piece.kind == "reasoning")

    def _between(self) -> str:
        return "\n" if self._ends_line else "\n\n"

    def end(self) -> None:
        """Finish the output of an answer, however it ended.  Safe to call twice."""
        self._bar.clear()
        if self._showing is not None and not self._ends_line:
            self._write("\n")
        self._showing, self._ends_line = None, True

    def say(self, text: str) -> None:
        """Print the output of a command."""
        self._write(f"{harmless(text)}\n")

    def note(self, text: str) -> None:
        """Print a remark about the conversation."""
        if self._terminal:
            self._write(f"({harmless(text)})\n", dim=True)
        else:
            print(f"({harmless(text)})", file=self._notes, flush=True)

    def _write(self, text: str, dim: bool = False) -> None:
        self._bar.clear()
        self._out.write(f"{DIM}{text}{PLAIN}" if dim and self._colours else text)
        self._out.flush()
