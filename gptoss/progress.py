"""How far a long piece of work is, on stderr: one line drawn over and over or, in a log, one now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from types import TracebackType

REDRAW_SECONDS = 0.2
LOG_STEPS = 10
"""Lines that a log gets, where there is no terminal to draw on."""

SETTLED_SECONDS, WINDOW_SECONDS = 2, 10
"""The speed is that of the last so many seconds; with less than the first to go by, none is shown."""


def gigabytes(size: float) -> str:
    """In units of 1000, as disks and hubs count."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} B"


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"


class Progress:
    """A context.  `add` may be called from several threads.

    what   is being done, as a word: "downloading"
    total  bytes of all of it
    done   of those that were done before
    """

    def __init__(self, what: str, total: int, done: int = 0):
        self._what, self._total, self._done = what, total, done
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._drawn_at = float("-inf")
        self._logged = 0
        self._marks = deque([(time.monotonic(), done)])  # about one for each of the last seconds

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
            self._done += size
            now = time.monotonic()
            if now - self._marks[-1][0] >= 1:
                self._marks.append((now, self._done))
            while len(self._marks) > 1 and now - self._marks[0][0] > WINDOW_SECONDS:
                self._marks.popleft()
            if self._terminal or self._step() > self._logged:
                self._logged = self._step()
                self._show(now)

    def _step(self) -> int:
        return LOG_STEPS * self._done // max(self._total, 1)

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
        percent = 100 * self._done // max(self._total, 1)
        told = f"{gigabytes(self._done)} of {gigabytes(self._total)}, {percent} %"
        since, before = self._marks[0]
        seconds, fresh = time.monotonic() - since, self._done - before
        if seconds >= SETTLED_SECONDS and fresh and self._done < self._total:
            left = (self._total - self._done) * seconds / fresh
            told += f", {gigabytes(fresh / seconds)}/s, {duration(left)} left"
        return told
