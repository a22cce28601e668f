"""llama.cpp's grammars (GBNF) in llguidance's dialect of Lark.

    root ::= "(" root ")" | digits          start: r0
    digits ::= [0-9]+                       r0: /\\x{28}/ r0 /\\x{29}/ | R1
                                            R1: /[0-9]/ +

A rule that is not recursive becomes a terminal, that is, one automaton.  Usually the whole grammar is one.
In a recursive grammar, a terminal matches as much text as it can: `word "s"` with `word ::= [a-z]+` never
ends, because `word` also takes the `s`.

llama.cpp also allows tokens by number or name (`<[17]>`, `<think>`).  They are refused, because they mean
something else in another vocabulary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_DEPTH = 64
"""Maximum nesting of groups."""

MAX_RULES = 2000


class GbnfError(ValueError):
    """A grammar that is not GBNF, or that cannot be expressed in Lark."""


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*)
      | (?P<define>[A-Za-z0-9_-]+[ \t]*::=)
      | (?P<name>[A-Za-z0-9_-]+)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<chars>\[(?:[^\]\\]|\\.)*\])
      | (?P<times>[*+?]|\{[ \t]*\d{1,6}[ \t]*(?:,[ \t]*(?:\d{1,6})?[ \t]*)?\})
      | (?P<sign>[|().])
      | (?P<token>!?<[^>\n]*>)""",
    re.VERBOSE | re.DOTALL,
)

_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "[": "[", "]": "]", "-": "-", "^": "^"}


@dataclass(slots=True)
class _Rule:
    """parts  of the right side: literal Lark, or (the name of another rule,)"""

    parts: list[str | tuple[str]] = field(default_factory=list)

    @property
    def others(self) -> set[str]:
        return {part[0] for part in self.parts if isinstance(part, tuple)}


def is_gbnf(text: str) -> bool:
    """Whether the text is GBNF rather than Lark."""
    return "::=" in text


def as_lark(text: str) -> str:
    """The same grammar in Lark.  Raises GbnfError."""
    rules = _rules(text)
    if "root" not in rules:
        raise GbnfError("it has no rule 'root'")
    for name, rule in rules.items():
        if missing := rule.others - rules.keys():
            raise GbnfError(f"the rule {name!r} mentions {min(missing)[:60]!r}, which does not exist")
    terminals = _terminals(rules)
    lark = {name: f"{'R' if name in terminals else 'r'}{i}" for i, name in enumerate(rules)}
    written = [f"start: {lark['root']}"]
    written += [
        f"{lark[name]}: "
        + " ".join(lark[part[0]] if isinstance(part, tuple) else part for part in rule.parts)
        for name, rule in rules.items()
    ]
    return "\n".join(written)


def _terminals(rules: dict[str, _Rule]) -> set[str]:
    """The rules that are not recursive."""
    found: set[str] = set()
    users: dict[str, list[str]] = {}
    waits = {name: len(rule.others) for name, rule in rules.items()}
    for name, rule in rules.items():
        for other in rule.others:
            users.setdefault(other, []).append(name)
    ready = [name for name, count in waits.items() if not count]
    while ready:
        name = ready.pop()
        found.add(name)
        for user in users.get(name, ()):
            waits[user] -= 1
            if not waits[user]:
                ready.append(user)
    return found


def _rules(text: str) -> dict[str, _Rule]:
    rules: dict[str, _Rule] = {}
    current: _Rule | None = None
    depth, at = 0, 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise GbnfError(
                f"line {text.count(chr(10), 0, at) + 1}: {text[at : at + 20]!r} is not part of a rule"
            )
        at, kind, piece = found.end(), found.lastgroup, found[0]
        if kind == "space":
            continue
        if kind == "define":
            if depth:
                raise GbnfError(f"a rule begins inside of a group: {piece[:60]!r}")
            _end(current)
            name = piece.removesuffix("::=").rstrip()
            current = rules[name] = _Rule()
            if len(rules) > MAX_RULES:
                raise GbnfError(f"it has more than {MAX_RULES} rules")
            continue
        if current is None:
            raise GbnfError(f"it must begin with a rule, such as `root ::= …`, not with {piece[:60]!r}")
        if kind == "token":
            raise GbnfError(f"{piece[:60]!r} is a token of another vocabulary")
        depth += {"(": 1, ")": -1}.get(piece, 0) if kind == "sign" else 0
        if not 0 <= depth <= MAX_DEPTH:
            raise GbnfError("its brackets do not match, or are nested too deeply")
        _add(current, kind, piece)
    _end(current)
    if depth:
        raise GbnfError("a bracket is not closed")
    return rules


def _add(rule: _Rule, kind: str | None, piece: str) -> None:
    last = rule.parts[-1] if rule.parts else "|"
    empty = last in ("|", "(")
    match kind:
        case "name":
            rule.parts.append((piece,))
        case "string":
            text = _characters(piece[1:-1])
            rule.parts.append(f"/{''.join(map(_pattern, text))}/" if text else '""')
        case "chars":
            rule.parts.append(_char_class(piece[1:-1]))
        case "times":
            if empty or (isinstance(last, str) and last[-1:] in "*+?}" and not last.startswith(("/", '"'))):
                raise GbnfError(f"there is nothing to repeat before {piece[:20]!r}")
            rule.parts.append(re.sub(r"\s", "", piece))
        case _:
            if piece == ".":
                rule.parts.append(r"/(.|\n)/")
                return
            if piece in "|)" and empty:
                rule.parts.append('""')
            rule.parts.append(piece)


def _end(rule: _Rule | None) -> None:
    if rule is not None and (not rule.parts or rule.parts[-1] == "|"):
        rule.parts.append('""')


def _characters(text: str) -> list[str]:
    return [single for single, _ in _pairs(text)]


def _pairs(text: str) -> list[tuple[str, bool]]:
    """Each character, and whether it was escaped.  Raises GbnfError."""
    characters: list[tuple[str, bool]] = []
    at = 0
    while at < len(text):
        if text[at] != "\\":
            characters.append((text[at], False))
            at += 1
            continue
        found = _ESCAPE.match(text, at)
        number = found and next((each for each in found.groups()[:3] if each), None)
        if found is None or (number is None and found[4] not in _NAMED):
            raise GbnfError(f"{text[at : at + 2]!r} is not an escape sequence")
        if number is not None and (int(number, 16) > 0x10FFFF or 0xD800 <= int(number, 16) < 0xE000):
            raise GbnfError(f"{found[0]!r} is not a character")
        characters.append((chr(int(number, 16)) if number is not None else _NAMED[found[4]], True))
        at = found.end()
    return characters


def _char_class(text: str) -> str:
    negated = text.startswith("^")
    characters = _pairs(text[negated:])
    if not characters:
        raise GbnfError("a set of characters is empty: []")
    written, i = [], 0
    while i < len(characters):
        first = characters[i][0]
        if i + 2 < len(characters) and characters[i + 1] == ("-", False):
            last = characters[i + 2][0]
            if last < first:
                raise GbnfError(f"the range {first!r} to {last!r} goes backwards")
            written.append(f"{_pattern(first)}-{_pattern(last)}")
            i += 3
        else:
            written.append(_pattern(first))
            i += 1
    return f"/[{'^' if negated else ''}{''.join(written)}]/"


def _pattern(character: str) -> str:
    """A character in a pattern, also inside of a set."""
    if character.isascii() and character.isalnum():
        return character
    return f"\\x{{{ord(character):x}}}"
