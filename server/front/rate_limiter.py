"""Limits the number of requests that one caller may send in a minute, with a token bucket for each caller.

A bucket fills at a steady rate and holds at most one minute's requests, so after a pause they may all come at
once.  Callers are the keys of the server's own list, so there are never many buckets.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class RateLimiter:
    """per_minute  requests allowed for one caller; None: no limit"""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic):
        self._per_minute, self._clock = per_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # caller → requests left, at which time

    def take(self, caller: str) -> int:
        """Take one request from the bucket and return 0; if it is empty, return the seconds to wait."""
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
