"""How far a long piece of work is, on stderr: one line drawn over and over or, in a log, one now and then."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

REDRAW_SECONDS = 0.2
LOG_STEPS = 10
"""Lines that a log gets, where there is no terminal to draw on."""

WINDOW_SECONDS = 10
"""The speed shown is that of about the last so many seconds."""


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
        self._mark = (time.monotonic(), done)
        self._speed = 0.0

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
            since, before = self._mark
            if now - since >= 1:
                fresh = (self._done - before) / (now - since)
                share = min(1.0, (now - since) / WINDOW_SECONDS) if self._speed else 1.0
                self._speed += share * (fresh - self._speed)
                self._mark = (now, self._done)
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
        if self._speed and self._done < self._total:
            left = (self._total - self._done) / self._speed
            told += f", {gigabytes(self._speed)}/s, {duration(left)} left"
        return told
