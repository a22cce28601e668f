"""What one row of the table of request fields says."""

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
    """One field of a request, and what it does here.

    name      as `messages[].content[].text`: a dot before a name in an object, `[]` for the items of a list
    verdict   honoured: a validator knows it.  same: it becomes other fields before validation.  ignored: any
              value changes nothing.  refused: 400
    note      for docs/fields.md
    apis      whose requests have it
    target    of `same`: the field it becomes, as `max_tokens` or `structured_outputs.json`
    becomes   of `same`: value → the fields it becomes, with their values; None: `target` with the same value.
              ValueError says what would have been right
    instead   of `refused`: what would do instead.  Empty: a validator refuses it, and says so
    neutral   of `refused`: values that change nothing and are accepted
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
    """A row for each of the names, which stand apart by spaces; likewise below."""
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
