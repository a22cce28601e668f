"""Fair sharing between callers (the order in which they are served, and how many places each may take), and
between requests, because one request may ask for many answers.

A caller is identified by the server's API key; "" if callers are not distinguished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

SHARES = 4
"""While other requests run or wait, the answers to one request take at most 1 / SHARES of the places."""


def first_within_share(
    waiting: Iterable[str], running: Iterable[str], places: int, equal: bool
) -> int | None:
    """The place in the queue of the first answer that may begin; None if none may.

    waiting  the group of each waiting answer: the answers to one request are a group
    running  the group of each running answer
    places   answers that may run at once
    equal    whether each of many requests may take only an equal part of the places, instead of 1 / SHARES
    """
    waiting, taken = list(waiting), Counter(running)
    requests = len(taken.keys() | set(waiting))
    if requests == 1:
        return 0
    share = max(1, places // (max(SHARES, requests) if equal else SHARES))
    return next((place for place, group in enumerate(waiting) if taken[group] < share), None)


class Rounds:
    """Serves waiting requests in rounds: in each round, one request of each caller (start-time fair queueing,
    Goyal et al. 1996).

    Within a round, requests are served in order of arrival.  With a single caller, all are.
    """

    def __init__(self) -> None:
        self._now = 0
        self._last: dict[str, int] = {}

    def join(self, caller: str) -> int:
        """The round for a new request of `caller`: after those of its waiting requests."""
        round = max(self._now, self._last.get(caller, -1) + 1)
        self._last[caller] = round
        return round

    def serve(self, round: int) -> None:
        """A request of this round is served.  Earlier rounds are forgotten."""
        if round > self._now:
            self._now = round
            self._last = {caller: last for caller, last in self._last.items() if last >= round}


class Shares:
    """Counts how many of `places` each caller has taken.

    If there can be only one caller, it may take all of them.  If there can be several, one may take at most
    three quarters, so that there is room for another; while others have places, each may take an equal share.
    """

    def __init__(self, places: int, callers: int = 1):
        """callers  number of different callers that there can be"""
        self._places = places
        self._alone = places if callers < 2 else max(1, places - places // 4)
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return self._taken.total()

    def of(self, caller: str) -> int:
        """Number of places that `caller` has taken."""
        return self._taken[caller]

    def refuses(self, caller: str) -> bool:
        """Whether there is no place for another request of this caller."""
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
