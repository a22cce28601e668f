"""What is scarce is shared fairly between callers: whose turn is next, and how many places one may take.

A caller is whoever a request is for (the server's is a key); "" where nobody is told apart from anybody.
"""

from __future__ import annotations

from collections import Counter


class Rounds:
    """Who waits is served in rounds, one of each caller in a round.

    (Start-time fair queueing, Goyal et al. 1996.)

    Who comes first in a round is served first in it, so with one caller it is first come, first served.
    """

    def __init__(self) -> None:
        self._now = 0
        self._last: dict[str, int] = {}

    def join(self, caller: str) -> int:
        """The round in which one more of `caller` is served: after those of its own that wait already."""
        round = max(self._now, self._last.get(caller, -1) + 1)
        self._last[caller] = round
        return round

    def serve(self, round: int) -> None:
        """One of this round is served.  Who was there before it is forgotten."""
        if round > self._now:
            self._now = round
            self._last = {caller: last for caller, last in self._last.items() if last >= round}


class Shares:
    """How many of `places` each caller has.

    One caller may have all of them; of several possible ones, three quarters, so that there is room for
    another; and while another has any, an equal share.
    """

    def __init__(self, places: int, callers: int = 1):
        """callers  how many there can be"""
        self._places = places
        self._alone = places if callers < 2 else max(1, places - places // 4)
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return self._taken.total()

    def refuses(self, caller: str) -> bool:
        """Whether there is no place for one more of this caller."""
        if self.taken >= self._places:
            return True
        others = len(self._taken) - (caller in self._taken)
        allowed = max(1, self._places // (others + 1)) if others else self._alone
        return self._taken[caller] >= allowed

    def take(self, caller: str) -> None:
        self._taken[caller] += 1

    def give_back(self, caller: str) -> None:
        self._taken[caller] -= 1
        if not self._taken[caller]:
            del self._taken[caller]
