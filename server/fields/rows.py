"""One row of the table of request fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Api = Literal["chat", "completions", "responses", "messages"]
Verdict = Literal["honoured", "same", "ignored", "refused"]

BOTH: tuple[Api, ...] = ("chat", "completions")
CHAT: tuple[Api, ...] = ("chat",)
COMPLETIONS: tuple[Api, ...] = ("completions",)


@dataclass(frozen=True, slots=True)
class Row:
    """One field of a request, and what this server does with it.

    name      its path, such as `messages[].content[].text`: `.` before a name in an object, `[]` for the
              items of a list
    verdict   honoured: a validator handles it.  same: it is replaced by other fields before validation.
              ignored: no value changes anything.  refused: 400
    note      text for docs/fields.md
    apis      the APIs whose requests may have it
    target    for `same`: the field that replaces it, such as `max_tokens` or `structured_outputs.json`
    becomes   for `same`: value → the fields that replace it, with their values; None: `target` with the same
              value.  The message of a ValueError says which values are valid
    instead   for `refused`: what to use instead, for the error message.  Empty: a validator refuses it
    neutral   for `refused`: values that are accepted, since they change nothing
    """

    name: str
    verdict: Verdict
    note: str = ""
    apis: tuple[Api, ...] = BOTH
    target: str = ""
    becomes: Callable[[Any], Mapping[str, Any]] | None = None
    instead: str = ""
    neutral: tuple[Any, ...] = ()


def honoured(names: str, apis: tuple[Api, ...] = BOTH) -> list[Row]:
    """A row for each of the names, which are separated by spaces; so do the functions below."""
    return [Row(name, "honoured", "", apis) for name in names.split()]


def refused(
    names: str, instead: str, *neutral: Any, apis: tuple[Api, ...] = BOTH, note: str = ""
) -> list[Row]:
    return [
        Row(name, "refused", note or instead, apis, instead=instead, neutral=neutral)
        for name in names.split()
    ]


def ignored(names: str, note: str = "", apis: tuple[Api, ...] = BOTH) -> list[Row]:
    return [Row(name, "ignored", note, apis) for name in names.split()]


def same(
    names: str,
    target: str,
    becomes: Callable[[Any], Mapping[str, Any]] | None = None,
    *,
    apis: tuple[Api, ...] = BOTH,
    note: str = "",
) -> list[Row]:
    return [Row(name, "same", note, apis, target, becomes) for name in names.split()]
