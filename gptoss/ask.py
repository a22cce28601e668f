"""Requests answered in this process, without a server: whoever wants tokens steps the engine.

Not for several threads at once.  Several answers may be in flight together (two half-read streams, say): a
step that one of them makes advances all, and what it brings for the others is kept until they ask.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from engine.engine import Engine
from engine.request import Failure, Request, Token


class InProcess:
    """An engine that is stepped by those who wait for its tokens."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._arrived: dict[str, list[Token | Failure]] = {}

    def run(self, requests: Iterable[Request]) -> Generator[list[Token]]:
        """The tokens of all requests, step by step: no tokens while prompts are read.

        Requests are taken from `requests` as the engine has room for them.  Raises the EngineError of the
        first that fails.  What has not ended when the iterator is closed is cancelled.
        """
        waiting, running = iter(requests), set[str]()
        try:
            while True:
                while len(running & self._arrived.keys()) < self.engine.limits.max_running:
                    if (request := next(waiting, None)) is None:
                        break
                    self.engine.add(request)
                    self._arrived[request.id] = []
                    running.add(request.id)
                running &= self._arrived.keys()  # less those that ended, or were ended
                if not running:
                    return
                yield list(self._take(running))
        finally:
            for id in running:
                self.end(id)

    def end(self, request_id: str) -> None:
        """Let a request go, wherever it is.  Safe to call twice."""
        self.engine.cancel(request_id)
        self._arrived.pop(request_id, None)

    def _take(self, running: set[str]) -> Iterator[Token]:
        """What has come for these, after one more step if nothing has."""
        if not any(self._arrived[id] for id in running):
            for event in self.engine.step():
                self._arrived[event.request_id].append(event)
        for id in running:
            events, self._arrived[id] = self._arrived[id], []
            for event in events:
                if isinstance(event, Failure):
                    raise event.error
                if event.finish is not None:
                    self._arrived.pop(id)
                yield event
