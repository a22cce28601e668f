"""Names of tools: as the client declares them, and as the model may write them.

Harmony declares functions as TypeScript, `type get_weather = (_: …) => any;`, and calls them as
`functions.get_weather`: a name with a dash or a dot is no name there, and the model misspells it.  Such names
are mapped on their way into the prompt and back in the answer; the client never sees ours.  A tool of a
namespace is written with it: `github.search`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolName:
    """As the client knows a tool.  namespace: None for a function that stands alone."""

    name: str
    namespace: str | None = None


RESERVED = frozenset(
    ("functions", "browser", "python", "assistant", "user", "system", "developer", "tool", "all")
)
"""What a namespace is not called in the prompt, because it means something else there."""


class FunctionNames:
    """One conversation's names, both ways.

    builtin  names that are written as they are, of tools that the model was trained on: `browser.search`
    """

    def __init__(self, declared: Iterable[str | ToolName], builtin: Collection[str] = ()):
        self._builtin = frozenset(builtin)
        self._counts: dict[str, int] = {}
        self._spaces: dict[str, str] = {}
        self._taken = set(RESERVED)  # what another namespace cannot be called
        self._inside: dict[ToolName, str] = {}
        self._outside: dict[str, ToolName] = {}
        names = dict.fromkeys(ToolName(name) if isinstance(name, str) else name for name in declared)
        for each in sorted(names, key=_is_changed):  # identifiers keep theirs
            self.inside(each.name, each.namespace)

    def inside(self, name: str, namespace: str | None = None) -> str:
        """As the model sees it; a name that was not declared (of an old call) is mapped from now on too."""
        key = ToolName(name, namespace)
        if key not in self._inside:
            whole = f"{namespace}.{name}" if namespace else name
            if whole in self._builtin:
                inside = whole
            else:
                space = f"{self._space(namespace)}." if namespace else ""
                inside = self._free(space + _identifier(name), self._outside)
            self._inside[key] = inside
            self._outside.setdefault(inside, key)
        return self._inside[key]

    def outside(self, name: str) -> ToolName:
        """As the client knows it; what the model made up stays as it is."""
        return self._outside.get(name, ToolName(name))

    def namespace(self, name: str) -> str:
        """As the model sees it."""
        return self._space(name)

    def _space(self, name: str) -> str:
        if name not in self._spaces:
            self._spaces[name] = space = self._free(_identifier(name), self._taken)
            self._taken.add(space)
        return self._spaces[name]

    def _free(self, wanted: str, taken: Collection[str]) -> str:
        """`wanted`, or it with the first number behind it that is free.

        It goes on from the number before: a thousand names with one identifier would take a million looks.
        """
        free = wanted
        while free in taken:
            self._counts[wanted] = self._counts.get(wanted, 1) + 1
            free = f"{wanted}_{self._counts[wanted]}"
        return free


def _is_changed(name: ToolName) -> bool:
    return any(_identifier(part) != part for part in (name.name, name.namespace) if part)


def _identifier(name: str) -> str:
    """The nearest thing that TypeScript takes for a name."""
    identifier = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{identifier}" if identifier[0].isdigit() else identifier
