"""Kinds of values that settings may have, and how each is parsed from text.

Wherever a setting comes from (a flag, the environment, a file), its value is text until one of these parses
it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """
    place  the placeholder in `--help`: --port N
    parse  text → value; raises ValueError with a description of valid values
    """

    place: str
    parse: Callable[[str], Any]

    def __call__(self, text: str) -> Any:
        return self.parse(text)


def setting(
    default: Any, group: str, kind: Kind, meaning: str, *, unset: str = "", many: bool = False
) -> Any:
    """A field of `Settings`.

    group  its heading in `--help`
    kind   how its text is parsed
    unset  what happens without it, where the default does not say
    many   the flag may be repeated, the variable is a list with commas, and the file has a list
    """
    about = {"group": group, "kind": kind, "meaning": meaning, "unset": unset, "many": many}
    return field(default=default, metadata=about)


def whole_number(low: int, high: int = 2**63 - 1) -> Kind:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low}" + (f" to {high}" if high < 2**63 - 1 else ""))
        return int(text)

    return Kind("N", parse)


def number(low: float, high: float, place: str = "X") -> Kind:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return value

    return Kind(place, parse)


def one_of(*words: str, place: str = "") -> Kind:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError("one of " + ", ".join(words))
        return text

    return Kind(place or "|".join(words), parse)


def one_of_numbers(*numbers: int) -> Kind:
    words = one_of(*map(str, numbers))
    return Kind(words.place, lambda text: int(words.parse(text)))


def text(place: str) -> Kind:
    """Any text that is not blank."""
    return Kind(place, _not_blank)


UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _memory(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if not found or not (value := int(float(found[1]) * UNITS[found[2].upper()])):
        raise ValueError("an amount of memory, such as 4GiB or 512MiB")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ValueError("a share, such as 0.5: more than 0, at most 1")
    return value


def _on_or_off(text: str) -> bool:
    return bool(one_of("on", "off")(text) == "on")


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError("a date, such as 2025-06-28") from None


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("not empty")
    return text


def path(place: str) -> Kind:
    return Kind(place, lambda text: Path(_not_blank(text)).expanduser())


def _file_or_database(text: str) -> Path | str:
    if re.match(r"postgres(ql)?://", text):
        return text
    if found := re.match(r"[a-z0-9+]+://", text):
        raise ValueError(f"a file, or postgresql://…; {found[0]} is not supported")
    return Path(_not_blank(text)).expanduser()


file_or_database = Kind("FILE|URL", _file_or_database)
memory = Kind("SIZE", _memory)
share = Kind("SHARE", _share)
seconds = number(0, 1e9, "SECONDS")
iso_date = Kind("DATE", _date)
on_or_off = Kind("on|off", _on_or_off)
