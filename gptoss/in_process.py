"""Runs requests in this process, without a server: the caller that reads tokens steps the engine.

Not thread-safe.  Several answers may be in flight at once, for example two streams that are read alternately.
Each step advances all of them, and tokens are kept until their caller reads them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from engine.engine import Engine
from engine.request import Failure, Request, Token


class InProcessEngine:
    """An engine that its callers step when they need tokens."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._arrived: dict[str, list[Token | Failure]] = {}

    def run(self, requests: Iterable[Request]) -> Generator[list[Token]]:
        """The tokens of all requests, step by step; an empty list while prompts are computed.

        Takes requests from `requests` whenever the engine has room.  Raises the EngineError of the first that
        fails.  Closing the iterator cancels unfinished requests.
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
                running &= self._arrived.keys()  # without those that have finished or were ended
                if not running:
                    return
                yield list(self._take(running))
        finally:
            for id in running:
                self.end(id)

    def end(self, request_id: str) -> None:
        """Cancel a request in any state.  Safe to call twice."""
        self.engine.cancel(request_id)
        self._arrived.pop(request_id, None)

    def _take(self, running: set[str]) -> Iterator[Token]:
        """New tokens of these requests; runs one step if there are none."""
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
