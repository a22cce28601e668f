"""Names of tools: as the client declares them, and as the model may write them.

Harmony declares functions as TypeScript, `type get_weather = (_: …) => any;`, and calls them as
`functions.get_weather`.  A name with a dash or a dot is not a TypeScript identifier, and the model misspells
it.  Such names are mapped to identifiers in the prompt and mapped back in the answer, so the client sees only
its own names.  A tool in a namespace is written with the namespace: `github.search`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolName:
    """The name of a tool as the client declared it.  namespace: None for a function without one."""

    name: str
    namespace: str | None = None


RESERVED = frozenset(
    ("functions", "browser", "python", "assistant", "user", "system", "developer", "tool", "all")
)
"""Names that no namespace may have in the prompt, because they mean something else there."""


class FunctionNames:
    """The tool names of one conversation, mapped in both directions.

    builtin  names of tools that the model was trained on, which are never changed: `browser.search`
    """

    def __init__(self, declared: Iterable[str | ToolName], builtin: Collection[str] = ()):
        self._builtin = frozenset(builtin)
        self._counts: dict[str, int] = {}
        self._spaces: dict[str, str] = {}
        self._taken = set(RESERVED)  # names that a new namespace cannot have
        self._to_model: dict[ToolName, str] = {}
        self._to_client: dict[str, ToolName] = {}
        names = dict.fromkeys(ToolName(name) if isinstance(name, str) else name for name in declared)
        for each in sorted(names, key=_is_changed):  # valid identifiers first, so that they stay unchanged
            self.to_model(each.name, each.namespace)

    def to_model(self, name: str, namespace: str | None = None) -> str:
        """The name in the prompt.  An undeclared name (of an old call in the history) gets a mapping too."""
        key = ToolName(name, namespace)
        if key not in self._to_model:
            whole = f"{namespace}.{name}" if namespace else name
            if whole in self._builtin:
                mapped = whole
            else:
                space = f"{self._space(namespace)}." if namespace else ""
                mapped = self._free(space + _identifier(name), self._to_client)
            self._to_model[key] = mapped
            self._to_client.setdefault(mapped, key)
        return self._to_model[key]

    def to_client(self, name: str) -> ToolName:
        """The client's name; a name that the model invented is returned unchanged."""
        return self._to_client.get(name, ToolName(name))

    def namespace(self, name: str) -> str:
        """The name of a namespace in the prompt."""
        return self._space(name)

    def _space(self, name: str) -> str:
        if name not in self._spaces:
            self._spaces[name] = space = self._free(_identifier(name), self._taken)
            self._taken.add(space)
        return self._spaces[name]

    def _free(self, wanted: str, taken: Collection[str]) -> str:
        """`wanted`, or `wanted_N` with the first number that is free.

        Counting continues from the last number: otherwise 1,000 equal names would take a million lookups.
        """
        free = wanted
        while free in taken:
            self._counts[wanted] = self._counts.get(wanted, 1) + 1
            free = f"{wanted}_{self._counts[wanted]}"
        return free


def _is_changed(name: ToolName) -> bool:
    return any(_identifier(part) != part for part in (name.name, name.namespace) if part)


def _identifier(name: str) -> str:
    """The nearest valid TypeScript identifier."""
    identifier = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    return f"_{identifier}" if identifier[0].isdigit() else identifier
