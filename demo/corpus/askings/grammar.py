"""Grammars of askings: rules that compose far more wordings than a list could hold.

    Grammar({"start": "<open> (there|bot|)! | 2* <open>", "open": "Hello | Hi"})

`|` stands between alternatives, `( )` around a choice inside one, `<name>` for another rule.  All
alternatives are equally likely; `2*` before one makes it count twice.  Slots (`{}`) are left to the caller.
"""

from __future__ import annotations

import re
from random import Random

Choice = list[list["str | Choice"]]
"""Alternatives; each is a sequence of texts and choices."""

_PARTS = re.compile(r"[()|]|<\w+>|[^()|<>]+")


class Grammar:
    """Calling it composes one text of the rule `start`, or of another rule."""

    def __init__(self, rules: dict[str, str]):
        self._rules: dict[str, Choice] = {name: [] for name in rules}
        for name, text in rules.items():
            parts = _PARTS.findall(" ".join(text.split()))
            self._rules[name].extend(self._choice(parts))
            if parts:
                raise ValueError(f"rule {name} closes a choice that it did not open")

    def __call__(self, rng: Random, rule: str = "start") -> str:
        found: list[str] = []
        _expand(rng, self._rules[rule], found)
        text = " ".join("".join(found).split())
        text = re.sub(r" (?=[,.?!:])", "", text)
        return text[:1].upper() + text[1:]

    def _choice(self, parts: list[str]) -> Choice:
        """Takes a choice from the front of the parts, its closing parenthesis left out."""
        choice: Choice = []
        sequence: list[str | Choice] = []
        while parts and parts[0] != ")":
            part = parts.pop(0)
            if part == "|":
                choice += _counted(sequence)
                sequence = []
            elif part == "(":
                sequence.append(self._choice(parts))
                if not parts:
                    raise ValueError("a choice is not closed")
                parts.pop(0)
            elif part.startswith("<"):
                sequence.append(self._rules[part[1:-1]])
            else:
                sequence.append(part)
        return choice + _counted(sequence)


def _counted(sequence: list[str | Choice]) -> Choice:
    """The alternative as often as it counts."""
    first = sequence[0] if sequence else ""
    if isinstance(first, str) and (found := re.match(r"\s*(\d+)\*", first)):
        return [[first[found.end() :], *sequence[1:]]] * int(found[1])
    return [sequence]


def _expand(rng: Random, choice: Choice, found: list[str]) -> None:
    for part in rng.choice(choice):
        if isinstance(part, str):
            found.append(part)
        else:
            _expand(rng, part, found)
