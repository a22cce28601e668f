"""How many requests a minute one caller may make.

A bucket for each caller fills at a steady rate, and has room for one minute's requests: after a pause they
may all come at once.  Callers are keys of the server's own list, so there are never many of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Rates:
    """per_minute  requests of one caller; None: no limit"""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic):
        self._per_minute, self._clock = per_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # caller → requests left, and when that was so

    def take(self, caller: str) -> int:
        """Count one request; 0.  Or the seconds until there is room for it, and it was not counted."""
        if self._per_minute is None:
            return 0
        now = self._clock()
        left, then = self._buckets.get(caller, (float(self._per_minute), now))
        left = min(left + (now - then) * self._per_minute / 60, self._per_minute)
        if left < 1:
            self._buckets[caller] = left, now
            return math.ceil((1 - left) * 60 / self._per_minute)
        self._buckets[caller] = left - 1, now
        return 0
