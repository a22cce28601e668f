"""Declares tools as the model was trained to see them: JSON schemas written as TypeScript-like types.

Layout and spelling follow openai-harmony where it expresses the whole schema.  Where it drops something
(`$ref`, `anyOf`, `allOf`, `const`, enums of other types than strings, maps, descriptions of items) or is
ambiguous, the type is written out: references inline, unions as `A | B`.

A schema comes from the client, so it may be hostile.  References may expand to exponentially more text than
the schema has.  So the expansion of references is limited (`ROOM`), and so is nesting (`MAX_DEPTH`); beyond
the limits, and where a type contains itself, the type is `any`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from language.harmony.messages import Grammar, Tool

MAX_DEPTH = 32
"""Maximum levels of nesting."""

ROOM = 1 << 18
"""Maximum expansion of the references of one request, in characters of JSON: half of the longest prompt."""

Schema = dict[str, Any]


def function_tools(tools: Sequence[Tool], descriptions: Mapping[str, str] = MappingProxyType({})) -> str:
    """The `# Tools` section of the developer message.

    descriptions  of namespaces other than `functions`, by name
    """
    room = _Room(ROOM)
    spaces: dict[str, list[Tool]] = {}
    for tool in tools:
        spaces.setdefault(tool.namespace or "functions", []).append(tool)
    sections = (namespace(name, descriptions.get(name, ""), of, room) for name, of in spaces.items())
    return "\n\n".join(["# Tools", *sections])


def namespace(name: str, description: str, tools: Sequence[Tool], room: _Room | None = None) -> str:
    """`## functions`, and its tools' declarations."""
    room = room or _Room(ROOM)
    declarations = "\n\n".join(_declaration(tool, room) for tool in tools)
    opening = f"{comment(description)}namespace {name} {{"
    return f"## {name}\n\n{opening}\n\n{declarations}\n\n}} // namespace {name}"


def comment(text: str, indent: str = "") -> str:
    """`text` as `//` lines, every line prefixed and ended."""
    return "".join(f"{indent}// {line}\n" for line in _lines(text))


def literal(value: Any) -> str:
    """A JSON value as it stands in a type or a comment: compact, on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _declaration(tool: Tool, room: _Room) -> str:
    if tool.text:
        input_comment, arguments = _text_input(tool.text), "_: string"
    else:
        parameters = _Types(tool.parameters or {}, room).parameters()
        input_comment, arguments = "", f"_: {parameters}" if parameters else ""
    name = tool.name.rpartition(".")[2]
    return f"{comment(tool.description or '')}{input_comment}type {name} = ({arguments}) => any;"


def _text_input(text: Grammar | bool) -> str:
    """The comment for a tool that takes text, because the model was trained on no such tool except Python."""
    if not isinstance(text, Grammar):
        return comment("The message is the input itself: plain text, not JSON.")
    syntax = {"lark": "Lark grammar", "regex": "regular expression"}[text.syntax]
    return comment(
        f"The message is the input itself: plain text, not JSON, by this {syntax}:\n{text.definition}"
    )


class _Room:
    """The remaining expansion of references, in characters of JSON; shared by all tools of a request."""

    def __init__(self, characters: int) -> None:
        self._left = characters

    def take(self, target: Schema) -> bool:
        """Returns False if there is not enough, and from then on: even measuring the targets takes time."""
        if self._left > 0:
            self._left -= len(literal(target)) + 16
        return self._left > 0


class _Place:
    """The current position in the text and in the schema.

    indent  for the lines of an object that begins here
    depth   levels of nesting plus references followed so far
    open    references whose targets are being written
    """

    __slots__ = ("depth", "indent", "open")

    def __init__(self, indent: str = "", depth: int = 0, open: frozenset[str] = frozenset()) -> None:
        self.indent, self.depth, self.open = indent, depth, open

    def inside(self, spaces: int = 0) -> _Place:
        return _Place(self.indent + " " * spaces, self.depth + 1, self.open)

    def within(self, reference: str) -> _Place:
        return _Place(self.indent, self.depth + 1, self.open | {reference})


class _Types:
    """Writes the types of one root schema.

    A type is a list of alternatives as long as possible: finally `A | B`, `(A | B)[]` in an array, with at
    most one `| null`.
    """

    def __init__(self, root: Schema, room: _Room) -> None:
        self._root = root
        self._room = room

    def parameters(self) -> str:
        """The type of a function's one argument; empty if it takes none."""
        schema, place = self._resolve(self._root, _Place())
        return " | ".join(self._alternatives(schema, place)) if any(map(schema.get, _SAYS_SOMETHING)) else ""

    # -- types ---------------------------------------------------------------------------------------------

    def _alternatives(self, schema: Any, place: _Place, described: bool = False) -> list[str]:
        """The alternatives for a value.  described: the schema's own description is written elsewhere."""
        if schema is False:
            return ["never"]
        if not isinstance(schema, dict) or place.depth > MAX_DEPTH:
            return ["any"]
        schema, place = self._resolve(schema, place)
        parts = [self._alternatives(part, place.inside()) for part in _list(schema.get("allOf"))]
        for key in ("anyOf", "oneOf"):
            variants = _list(schema.get(key))
            parts.append(_union(type for v in variants for type in self._alternatives(v, place.inside())))
        parts = [part for part in parts if part and "any" not in part]  # `any` adds nothing to another part
        own = _union(self._own(schema, place))
        if own and not (parts and _SCALARS.issuperset(own)):  # "string" adds nothing to its own variants
            parts.insert(0, own)
        match parts:
            case []:
                types = ["any"]
            case [types]:
                pass
            case _:
                types = [" & ".join(map(_operand, parts))]
        if schema.get("nullable") is True and "null" not in types:
            types.append("null")
        if not described:
            types[0] = _comment_of(schema, "description", place.indent) + types[0]
        return types

    def _own(self, schema: Schema, place: _Place) -> Iterator[str]:
        """The alternatives of the schema itself, without anyOf, oneOf and allOf."""
        if "const" in schema:
            yield literal(schema["const"])
        elif values := _list(schema.get("enum")):
            yield from map(literal, values)
        else:
            implied = "object" if "properties" in schema else "array" if "items" in schema else []
            types = schema.get("type", implied)
            for type in types if isinstance(types, list) else [types]:
                yield self._of_type(type, schema, place)

    def _of_type(self, type: Any, schema: Schema, place: _Place) -> str:
        match type:
            case "object":
                return self._object(schema, place)
            case "array":
                return self._array(schema, place)
            case "integer" | "number":
                return "number"
            case "string" | "boolean" | "null":
                return str(type)
            case _:
                return "any"

    def _array(self, schema: Schema, place: _Place) -> str:
        items = schema.get("items")
        if fixed := _list(schema.get("prefixItems")) or _list(items):
            return "[" + ", ".join(" | ".join(self._alternatives(i, place.inside())) for i in fixed) + "]"
        if items is None:
            return "Array<any>"
        return _operand(self._alternatives(items, place.inside())) + "[]"

    # -- objects -------------------------------------------------------------------------------------------

    def _object(self, schema: Schema, place: _Place) -> str:
        required = {name for name in _list(schema.get("required")) if isinstance(name, str)}
        lines = [
            self._property(name if name in required else f"{name}?", value, place)
            for name, value in _dict(schema.get("properties")).items()
        ]
        for value in schema.get("additionalProperties"), *_dict(schema.get("patternProperties")).values():
            if value is True or isinstance(value, dict):
                lines.append(self._property("[key: string]", value, place))
        return f"{{\n{''.join(lines)}{place.indent}}}"

    def _property(self, key: str, schema: Any, place: _Place) -> str:
        """The lines of a property: comments, then `key: type, // default`."""
        if not isinstance(schema, dict):
            return f"{place.indent}{key}: {' | '.join(self._alternatives(schema, place))},\n"
        schema, place = self._resolve(schema, place)
        indent = place.indent
        title = _comment_of(schema, "title", indent)
        above = title and f"{title}{indent}//\n"
        description = _comment_of(schema, "description", indent)
        examples = "".join(f"{indent}// - {literal(example)}\n" for example in _list(schema.get("examples")))
        examples = examples and f"{indent}// Examples:\n{examples}"
        default = f"// {_default(schema)}" if "default" in schema else ""
        if variants := _described_variants(schema):
            above += examples + description + (default and f"{indent}{default}\n")
            return f"{above}{indent}{key}:\n{self._variants(variants, schema, place)}{indent},\n"
        types = " | ".join(self._alternatives(schema, place.inside(4), described=True))
        return f"{above}{description}{examples}{indent}{key}: {types},{default and ' ' + default}\n"

    def _variants(self, variants: list[Any], schema: Schema, place: _Place) -> str:
        """A line for each variant of a property, followed by its description."""
        lines = []
        for i, variant in enumerate(variants):
            inside = place.inside(3)
            if isinstance(variant, dict):
                variant, inside = self._resolve(variant, inside)
            types = " | ".join(self._alternatives(variant, inside, described=True))
            remarks = []
            description = _dict(variant).get("description")
            # As in openai-harmony and in training: the property's description replaces the first variant's.
            if isinstance(description, str) and not (
                description == schema.get("description")
                or (i == 0 and "oneOf" in schema and "description" in schema)
            ):
                remarks += _lines(description)
            if "default" in _dict(variant):
                remarks.append(_default(variant))
            lines.append(f"{place.indent} | {types}{' // ' if remarks else ''}{' '.join(remarks)}\n")
        return "".join(lines)

    # -- references ----------------------------------------------------------------------------------------

    def _resolve(self, schema: Schema, place: _Place) -> tuple[Schema, _Place]:
        """Follow `$ref`; keywords beside it override its target's.  A target being written is empty."""
        while isinstance(reference := schema.get("$ref"), str):
            target: Schema = {}
            if reference not in place.open and place.depth <= MAX_DEPTH:
                target = self._target(reference)
                if not self._room.take(target):
                    target = {}
            place = place.within(reference)
            schema = target | {key: value for key, value in schema.items() if key != "$ref"}
        return schema, place

    def _target(self, reference: str) -> Schema:
        """The value at a JSON pointer (RFC 6901) in a URI fragment; empty if it is elsewhere or missing."""
        if reference != "#" and not reference.startswith("#/"):
            return {}
        target: Any = self._root
        for step in unquote(reference[1:]).split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list):
                target = target[int(step)] if _INDEX.fullmatch(step) and int(step) < len(target) else None
            else:
                target = _dict(target).get(step)
        return _dict(target)


_INDEX = re.compile("[0-9]{1,9}")

_SCALARS = frozenset({"string", "number", "boolean", "null", "any"})

_SAYS_SOMETHING = ("properties", "additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf")
"""Parameters without any of these keywords are an empty object: the function has no arguments."""


def _described_variants(schema: Schema) -> list[Any]:
    """The variants of a property that get a line each: those of oneOf; those of anyOf if one is described."""
    if any(key in schema for key in ("properties", "items", "enum", "const", "allOf")):
        return []
    if variants := _list(schema.get("oneOf")):
        return [] if "anyOf" in schema else variants
    variants = _list(schema.get("anyOf"))
    return variants if any("description" in _dict(variant) for variant in variants) else []


def _union(types: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(types))


def _operand(types: list[str]) -> str:
    """A type in parentheses where `[]` or `&` would need them."""
    return types[0] if len(types) == 1 else f"({' | '.join(types)})"


def _comment_of(schema: Schema, key: str, indent: str) -> str:
    text = schema.get(key)
    return comment(text, indent) if isinstance(text, str) else ""


def _default(schema: Schema) -> str:
    value = schema["default"]
    of_enum = isinstance(value, str) and bool(_list(schema.get("enum")))
    return f"default: {value if of_enum else literal(value)}"


def _lines(text: str) -> list[str]:
    """Like Rust's `str::lines`: only `\\n` and `\\r\\n` end a line."""
    *lines, rest = text.split("\n")
    return [*(line.removesuffix("\r") for line in lines), *([rest] if rest else [])]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> Schema:
    return value if isinstance(value, dict) else {}
