"""Chains of thought that led to a function call, kept until the request that brings the call's result.

Most clients never send the chain of thought back, and without it the model forgets why it made the call.  So
the sampled tokens of each call are kept under the call's id, and the renderer replays them when that call
appears in a history.  Replayed tokens also hit the prefix cache, which a new rendering of the same text may
miss.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

ENTRY_BYTES = 500
"""Memory of an entry beside its tokens: its key, the array object, its slot in the table."""


class ReasoningCache:
    """Caller and call id → tokens: an LRU cache of at most `max_bytes`.  To be used on the event loop only.

    A caller finds only its own: whoever has seen the id of another one's call does not learn the chain of
    thought before it.
    """

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._bytes = 0
        self._actions: OrderedDict[tuple[str, str], array[int]] = OrderedDict()

    def keep(self, caller: str, call_id: str, tokens: Sequence[int]) -> None:
        """
        caller  id of its API key; "" without keys
        tokens  those sampled after `<|start|>assistant`, up to and with `<|call|>`
        """
        action = array("i", tokens)
        self._actions[caller, call_id] = action
        self._bytes += _cost(action)
        while self._bytes > self._max_bytes:
            _, oldest = self._actions.popitem(last=False)
            self._bytes -= _cost(oldest)

    def find(self, caller: str, call_ids: Iterable[str]) -> dict[str, Sequence[int]]:
        """The kept tokens of these calls, by call id; ids that are not kept are left out."""
        found: dict[str, Sequence[int]] = {}
        for call_id in call_ids:
            if (action := self._actions.get((caller, call_id))) is not None:
                self._actions.move_to_end((caller, call_id))
                found[call_id] = action
        return found


def _cost(action: array[int]) -> int:
    return len(action) * action.itemsize + ENTRY_BYTES
