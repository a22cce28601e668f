"""Function names: as the client declares them, and as the model may write them.

Harmony declares functions as TypeScript, `type get_weather = (_: …) => any;`, and calls them as
`functions.get_weather`: a name with a dash or a dot is no name there, and the model misspells it.  Such names
are mapped on their way into the prompt and back in the answer; the client never sees ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


class FunctionNames:
    """One conversation's names, both ways."""

    def __init__(self, declared: Iterable[str]):
        self._inside: dict[str, str] = {}
        self._outside: dict[str, str] = {}
        names = list(dict.fromkeys(declared))
        for name in sorted(names, key=lambda name: _identifier(name) != name):  # identifiers keep theirs
            self.inside(name)

    def inside(self, name: str) -> str:
        """As the model sees it; a name that was not declared (of an old call) is mapped from now on too."""
        if name not in self._inside:
            wanted = inside = _identifier(name)
            count = 2
            while inside in self._outside:
                inside, count = f"{wanted}_{count}", count + 1
            self._inside[name], self._outside[inside] = inside, name
        return self._inside[name]

    def outside(self, name: str) -> str:
        """As the client knows it; what the model made up stays as it is."""
        return self._outside.get(name, name)


def _identifier(name: str) -> str:
    """The nearest thing that TypeScript takes for a name."""
    identifier = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{identifier}" if identifier[0].isdigit() else identifier
