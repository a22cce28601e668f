"""Applies the table of fields to a body before it is validated: other servers' names are replaced by ours,
fields that cannot be honoured are refused, and unknown names are reported.

It walks the body once, no deeper than the table.  `null` is the same as absent.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from server.errors import bad_request, unsupported
from server.fields.elsewhere import ELSEWHERE_ROWS
from server.fields.extensions import EXTENSION_ROWS
from server.fields.openai import CHAT_ROWS, COMPLETION_ROWS
from server.fields.others import OTHER_ROWS
from server.fields.rows import Api, Row

log = logging.getLogger("gptoss.server")

TABLE: tuple[Row, ...] = (*CHAT_ROWS, *COMPLETION_ROWS, *EXTENSION_ROWS, *ELSEWHERE_ROWS, *OTHER_ROWS)

APIS: dict[str, Api] = {
    "/v1/chat/completions": "chat",
    "/v1/chat/completions/render": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
}
"""Path → whose fields its bodies have.  Bodies of other paths are not read here."""

HEADER = "x-gptoss-ignored"

MAX_NAMED = 8
"""Maximum names in one header; of the others it has only the number."""

MOST_LOGGED = 1000
"""Maximum names that are logged while the server runs, each once."""

LONGEST_NAME = 64


class Translated(dict[str, Any]):
    """A body with our names of fields.

    written  our name of a field → the client's
    ignored  names of ignored fields, each with the most similar known name
    """

    def __init__(self, body: Mapping[str, Any]):
        super().__init__(body)
        self.written: dict[str, str] = {}
        self.ignored: list[str] = []


@dataclass(slots=True)
class _Node:
    """A field of the table, and the fields inside it.

    inside  fields of its object, or of the objects in its list; empty if the table lists none
    acts    whether its value must be examined
    """

    row: Row | None = None
    inside: dict[str, _Node] = field(default_factory=dict)
    acts: bool = False


@cache
def _tree(api: Api) -> _Node:
    root = _Node()
    for row in TABLE:
        if api in row.apis:
            node = root
            for name in row.name.replace("[]", "").split("."):
                node = node.inside.setdefault(name, _Node())
            if node.row is None:  # TABLE has honoured rows first, so they win
                node.row = row
    _find_acting(root)
    return root


def _find_acting(node: _Node) -> None:
    for each in node.inside.values():
        _find_acting(each)
    row = node.row
    enforced = row is not None and (row.verdict == "same" or bool(row.instead))
    node.acts = enforced or bool(node.inside)


def read(body: Mapping[str, Any], api: Api, strict: bool = False) -> Translated:
    """The body with our names of fields.

    strict  unknown names are refused

    Raises ApiError.
    """
    translated = Translated(body)
    moved: list[tuple[Row, str, Any]] = []
    more = 0
    for path, name, node, known in _found(translated, _tree(api)):
        if node is None:
            if strict:
                raise bad_request(
                    f"{_shown(path)}: there is no such field{_suggestion(name, known)}", _shown(path)
                )
            if len(translated.ignored) < MAX_NAMED:
                translated.ignored.append(_shown(path) + _suggestion(name, known))
            else:
                more += 1
            continue
        row, value = node.row, name
        assert row is not None
        if row.verdict == "same":
            moved.append((row, path, value))
        elif value not in row.neutral and value not in ([], ""):
            raise unsupported(f"{path}: {row.instead}", path)
    for row, path, value in moved:
        _move(translated, row, path, value)
    if more:
        translated.ignored.append(f"and {more} more")
    return translated


def _found(
    body: Mapping[str, Any], tree: _Node
) -> Iterator[tuple[str, Any, _Node | None, Mapping[str, _Node]]]:
    """The fields that must be replaced, refused or reported.

    yields  (path, value, node, …) of a field whose row acts;
            (path, name, None, the known names beside it) of an unknown field
    """
    stack: list[tuple[str, Any, _Node]] = [("", body, tree)]
    while stack:
        path, value, node = stack.pop()
        if isinstance(value, list):
            stack += [(f"{path}[{i}]", item, node) for i, item in enumerate(value) if type(item) is dict]
            continue
        for name, inner in value.items():
            known = node.inside.get(name)
            if known is None:
                if inner is not None:
                    yield (f"{path}.{name}" if path else name), name, None, node.inside
            elif known.acts and inner is not None:
                here = f"{path}.{name}" if path else name
                row = known.row
                if row is not None and (row.verdict == "same" or row.instead):
                    yield here, inner, known, node.inside
                elif type(inner) is dict or type(inner) is list:
                    stack.append((here, inner, known))


def _move(body: Translated, row: Row, path: str, value: Any) -> None:
    """Put the value at `path` under our own name, unless the client has given that too."""
    try:
        becomes = {row.target: value} if row.becomes is None else row.becomes(value)
    except ValueError as error:
        raise bad_request(f"{path}: {error}", path) from None
    for target, new in becomes.items():
        outer, _, inner = target.rpartition(".")
        where = body
        if outer:
            if body.get(outer) is None:
                body[outer] = {}
            where = body[outer]
            if not isinstance(where, dict):
                continue  # validation will refuse it
        if where.get(inner) is None:
            where[inner] = new
            body.written[target] = path
        elif where[inner] != new:
            body.ignored.append(f"{path} (it says otherwise than {body.written.get(target, target)})")


def _suggestion(name: str, known: Mapping[str, _Node]) -> str:
    near = difflib.get_close_matches(name[:LONGEST_NAME], known, n=1, cutoff=0.75)
    return f" (did you mean {near[0]}?)" if near else ""


def _shown(path: str) -> str:
    """A path that a client wrote, in printable ASCII and no longer than a line."""
    path = path if len(path) <= LONGEST_NAME else path[:LONGEST_NAME] + "..."
    return path if re.fullmatch(r"[\w.\[\]$@-]+", path, re.ASCII) else json.dumps(path)


class LoggedOnce:
    """Logs each ignored name once, until there are too many."""

    def __init__(self) -> None:
        self._logged: set[tuple[Api, str]] = set()

    def log(self, api: Api, ignored: list[str]) -> None:
        for each in ignored:
            name = api, re.sub(r"\[\d+\]", "[]", each)
            if name not in self._logged and len(self._logged) < MOST_LOGGED:
                self._logged.add(name)
                log.warning("a request to %s has a field that changes nothing: %s", api, name[1])
