"""Which module of a source tree imports which, and what is wrong with it.

An import counts wherever it stands, also inside a function.  Two other ways to import are found as well: a
module named by a string, as `import_module("engine.pages")` or `import_module(TABLE[name])` for a table that
is written out in the same file, and a module that is started, as in `[python, "-m", "engine.pages"]`.  A name
that is put together at run time cannot be followed, and is a fault by itself.

An import under `if TYPE_CHECKING:` never runs.  It may not go upwards either, but it closes no circle.
A package's __init__ runs before its modules; that is not counted, or no __init__ could import one of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

PACKAGES = ("gptoss", "server", "language", "engine", "model")
"""From top to bottom: each may import itself and those after it."""

BESIDE = {"demo": set(PACKAGES), "bench": {*PACKAGES, "demo"}, "deploy": set()}
"""What stands beside the packages, and what it may import.  No package imports any of these."""

INSIDE = {"deploy.ray": {"gptoss", "server"}}
"""A folder of them that may import more."""

TESTS = "tests"

LOADERS = {"import_module", "__import__", "find_spec", "run_module", "run_path", "resolve_name"}
"""Functions that import what a string names."""

LOOSE = 16
"""Files in one folder, at most, its __init__ not counted."""

CROWDED: dict[str, int] = {}
"""Folders that may have more."""


@dataclass(frozen=True)
class Import:
    """`module` imports `target`.  only_types: for annotations, under `if TYPE_CHECKING:`."""

    module: str
    target: str
    only_types: bool = False


class Tree:
    """The modules of the packages under `root`."""

    def __init__(self, root: Path):
        self.root = root
        self.paths: dict[str, Path] = {}
        for package in (*PACKAGES, *BESIDE, TESTS):
            for path in sorted((root / package).rglob("*.py")):
                if "node_modules" not in path.parts:
                    self.paths[_module(path.relative_to(root))] = path
        self.hidden: list[str] = []
        self.imports = [each for module in self.paths for each in self._imports(module)]

    def _imports(self, module: str) -> Iterator[Import]:
        tree = ast.parse(self.paths[module].read_text())
        types = {id(inner) for node in ast.walk(tree) if _only_types(node) for inner in ast.walk(node)}
        tables = dict(_tables(tree))
        for node in ast.walk(tree):
            for target in self._targets(module, node, tables):
                if target != module:
                    yield Import(module, target, id(node) in types)

    def _targets(self, module: str, node: ast.AST, tables: dict[str, list[str]]) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (self._longest(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                self.hidden.append(f"{module}, line {node.lineno}: a relative import")
                return
            yield from (self._longest(f"{node.module}.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and node.args
            and _called(node) in LOADERS
            and not self._is_test(module)
        ):
            named = _named(node.args[0], tables)
            if named is None:
                self.hidden.append(f"{module}, line {node.lineno}: imports a name that is not written out")
                return
            yield from (self._longest(name) for name in named)
        elif isinstance(node, ast.List | ast.Tuple):
            words = [each.value if isinstance(each, ast.Constant) else None for each in node.elts]
            for flag, name in pairwise(words):
                if flag == "-m" and isinstance(name, str) and name in self.paths:
                    yield name

    def _is_test(self, module: str) -> bool:
        return module.split(".")[0] == TESTS

    def _longest(self, name: str) -> str:
        """The module of ours that an import of `name` runs, or the name itself if it is not ours."""
        parts = name.split(".")
        for count in range(len(parts), 0, -1):
            if (module := ".".join(parts[:count])) in self.paths:
                return module
        return name

    # What is wrong

    def upward(self) -> list[str]:
        """Imports of what stands above, or beside."""
        wrong = []
        for each in self.imports:
            own, other = each.module.split(".")[0], each.target.split(".")[0]
            known = {*PACKAGES, *BESIDE, TESTS}
            if own == TESTS or other not in known or other == own:
                continue
            below = BESIDE[own] if own in BESIDE else set(PACKAGES[PACKAGES.index(own) :])
            below = below | INSIDE.get(each.module.rpartition(".")[0], set())
            if other not in below:
                wrong.append(f"{each.module} imports {each.target}")
        return sorted(set(wrong))

    def circles(self) -> list[str]:
        """Circles of files, and circles of folders that lie beside each other (but for those of tests)."""
        files = {(each.module, each.target) for each in self.imports if not each.only_types}
        files = {(one, other) for one, other in files if other in self.paths}
        found = ["files " + " → ".join(circle) for circle in _circles(files)]
        for parent in {module[:at] for module in self.paths for at, sign in enumerate(module) if sign == "."}:
            folders = {(_child(parent, one), _child(parent, other)) for one, other in files}
            inner = {f"{parent}.{child}" for pair in folders for child in pair if child}
            packages = {name for name in inner if any(path.startswith(f"{name}.") for path in self.paths)}
            edges = {(f"{parent}.{a}", f"{parent}.{b}") for a, b in folders if a and b and a != b}
            among = {(a, b) for a, b in edges if {a, b} <= packages and not self._is_test(parent)}
            found += ["folders " + " → ".join(circle) for circle in _circles(among)]
        return sorted(set(found))

    def crowded(self) -> list[str]:
        """Folders with too many loose files."""
        counts: dict[str, int] = {}
        for path in self.paths.values():
            if path.name != "__init__.py":
                folder = path.parent.relative_to(self.root).as_posix()
                counts[folder] = counts.get(folder, 0) + 1
        return [f"{folder}: {n} files" for folder, n in counts.items() if n > CROWDED.get(folder, LOOSE)]


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _only_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _called(node: ast.Call) -> str | None:
    """The last name of what is called."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def _tables(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """The dicts of this file whose values are all strings that are written out."""
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
            words = [each.value for each in value.values if isinstance(each, ast.Constant)]
            if len(words) == len(value.values):
                yield target.id, words


def _named(argument: ast.expr, tables: dict[str, list[str]]) -> list[str] | None:
    """What an argument of a loader can name; None if that is not written out."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return [argument.value]
    if isinstance(argument, ast.Subscript) and isinstance(argument.value, ast.Name):
        return tables.get(argument.value.id)
    return None


def _child(parent: str, module: str) -> str | None:
    """The part of a module's name that comes after `parent`, if it lies in there."""
    return module[len(parent) + 1 :].split(".")[0] if module.startswith(f"{parent}.") else None


def _circles(edges: set[tuple[str, str]]) -> Iterator[list[str]]:
    """For each edge on a circle the shortest such circle, from its alphabetically first name on."""
    following: dict[str, list[str]] = {}
    for one, other in sorted(edges):
        following.setdefault(one, []).append(other)
    for one, other in sorted(edges):
        came: dict[str, str] = {other: one}
        queue = [other]
        while queue and one not in came:
            here = queue.pop(0)
            for there in following.get(here, ()):
                if there not in came:
                    came[there] = here
                    queue.append(there)
        if one in came:
            circle, here = [one], came[one]
            while here != one:
                circle.append(here)
                here = came[here]
            circle.reverse()
            first = circle.index(min(circle))
            yield [*circle[first:], *circle[:first]]
