"""What the model thought before it called a function, kept for the turn in which the result comes back.

Most clients never send the chain of thought back, and without it the model forgets why it called.  So the
tokens of each such action, as they were sampled, are kept under the id of its call; the renderer replays them
when that call turns up in a history.  Sampled tokens also hit the prefix cache, which a fresh rendering of
the same words may miss.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

ENTRY_BYTES = 500
"""What an entry costs beside its tokens: its key, the array's head, its place in the table."""


class Recall:
    """call id → tokens, in at most `max_bytes`; the least recently used give way.  For the event loop alone.

    Ids are random and long (server/api/chat_answer.py), so nobody finds another's thoughts by guessing.
    """

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._bytes = 0
        self._actions: OrderedDict[str, array[int]] = OrderedDict()

    def keep(self, call_id: str, tokens: Sequence[int]) -> None:
        """Remember what was sampled from after `<|start|>assistant` to `<|call|>`."""
        action = array("i", tokens)
        self._actions[call_id] = action
        self._bytes += _cost(action)
        while self._bytes > self._max_bytes:
            _, oldest = self._actions.popitem(last=False)
            self._bytes -= _cost(oldest)

    def of(self, call_ids: Iterable[str]) -> dict[str, Sequence[int]]:
        """What is known of these calls."""
        found: dict[str, Sequence[int]] = {}
        for call_id in call_ids:
            if (action := self._actions.get(call_id)) is not None:
                self._actions.move_to_end(call_id)
                found[call_id] = action
        return found


def _cost(action: array[int]) -> int:
    return len(action) * action.itemsize + ENTRY_BYTES
