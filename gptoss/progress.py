"""Progress on stderr: one line that is redrawn on a terminal, or a few lines in a log."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import TextIO

from model.byte_sizes import format_bytes

REDRAW_SECONDS = 0.2
LOG_STEPS = 10
"""Number of lines in a log, when stderr is not a terminal."""

SETTLED_SECONDS, WINDOW_SECONDS = 2, 10
"""The speed is measured over the last WINDOW_SECONDS, and shown after SETTLED_SECONDS."""

BAR_WIDTH = 20


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"


class Pace:
    """How much of a task is done, and how fast.

    total  size of the task, in any unit
    """

    def __init__(self, total: int, done: int = 0):
        self.total, self.done = total, done
        self._marks = deque([(time.monotonic(), done)])  # about one for each second of the window

    def reach(self, done: int) -> None:
        """Record that `done` of the total is done."""
        self.done = done
        now = time.monotonic()
        if now - self._marks[-1][0] >= 1:
            self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW_SECONDS:
            self._marks.popleft()

    @property
    def speed(self) -> float | None:
        """Units per second over the window; None if not known yet, or nothing is left."""
        since, before = self._marks[0]
        seconds, fresh = time.monotonic() - since, self.done - before
        if seconds >= SETTLED_SECONDS and fresh > 0 and self.done < self.total:
            return fresh / seconds
        return None


class Progress:
    """A context manager.  `add` may be called from several threads.

    what   the task in a word: "downloading"
    total  size of the whole task, in bytes or in `unit`
    done   what was done before
    unit   the name of the unit, if it is not bytes: "requests"
    """

    def __init__(self, what: str, total: int, done: int = 0, unit: str | None = None):
        self._what, self._unit, self._pace = what, unit, Pace(total, done)
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._drawn_at = float("-inf")
        self._logged = 0

    def __enter__(self) -> Progress:
        with self._lock:
            self._logged = self._step()
            self._show(time.monotonic())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._drawn_at = float("-inf")
            if self._terminal:
                self._show(time.monotonic())
                print(file=sys.stderr)

    def add(self, size: int) -> None:
        with self._lock:
            self._pace.reach(self._pace.done + size)
            if self._terminal or self._step() > self._logged:
                self._logged = self._step()
                self._show(time.monotonic())

    def _step(self) -> int:
        return LOG_STEPS * self._pace.done // max(self._pace.total, 1)

    def _show(self, now: float) -> None:
        if self._terminal and now - self._drawn_at < REDRAW_SECONDS:
            return
        self._drawn_at = now
        line = f"{self._what}: {self}"
        if self._terminal:
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def __str__(self) -> str:
        done, total = self._pace.done, self._pace.total
        if self._unit is None:
            told = f"{format_bytes(done)} of {format_bytes(total)}"
        else:
            told = f"{done} of {total} {self._unit}"
        told += f", {100 * done // max(total, 1)} %"
        if (speed := self._pace.speed) is not None:
            pace = format_bytes(speed) if self._unit is None else f"{speed:.1f}"
            told += f", {pace}/s, {duration((total - done) / speed)} left"
        return told


class PromptBar:
    """On a terminal: one line about the progress of a prompt, removed when the prompt is complete."""

    def __init__(self, out: TextIO):
        self._out = out
        self._terminal = out.isatty()
        self._pace: Pace | None = None

    def show(self, computed: int, tokens: int) -> None:
        """Draw the bar: `computed` of `tokens` tokens are done."""
        if not self._terminal:
            return
        if self._pace is None:
            self._pace = Pace(tokens, computed)
        self._pace.reach(computed)
        line = f"prompt {bar(computed / max(tokens, 1))} {computed}/{tokens} tokens"
        if (speed := self._pace.speed) is not None:
            line += f", {speed:.0f}/s, {duration((tokens - computed) / speed)} left"
        self._out.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        self._out.flush()

    def clear(self) -> None:
        """Remove the bar.  Safe to call twice."""
        if self._pace is not None:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._pace = None


def bar(share: float) -> str:
    """A bar of characters; share is from 0 to 1."""
    full = round(BAR_WIDTH * min(max(share, 0.0), 1.0))
    return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}]"
