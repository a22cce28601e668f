"""Function tools as the model was trained to see them: JSON schemas written as TypeScript-like declarations.

Layout and spelling are openai-harmony's wherever it says all there is to say.  Where it drops something
(`$ref`, `anyOf`, `allOf`, `const`, enums other than strings, maps) or writes something ambiguous, we write
the type out: references inline, unions as `A | B`.

A schema is a client's text, so it may be hostile.  References may form a web that is exponentially larger
than the schema: what they expand to is bounded (`ROOM`), and so is nesting (`MAX_DEPTH`); beyond, and where a
type contains itself, the type is `any`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from server.harmony.messages import Tool

MAX_DEPTH = 48
"""Levels of nesting that are written out."""

ROOM = 1 << 18
"""Characters that the references of one request may expand to: half of what the longest prompt can hold."""

Schema = dict[str, Any]


def function_tools(tools: Sequence[Tool]) -> str:
    """The `# Tools` section of the developer message: one namespace, `functions`."""
    room = _Room(ROOM)
    declarations = "\n\n".join(_declaration(tool, room) for tool in tools)
    return f"# Tools\n\n## functions\n\nnamespace functions {{\n\n{declarations}\n\n}} // namespace functions"


def comment(text: str, indent: str = "") -> str:
    """`text` as `//` lines, every line prefixed and ended."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return "".join(f"{indent}// {line.removesuffix(chr(13))}\n" for line in lines)


def literal(value: Any) -> str:
    """A JSON value as it stands in a type or a comment: compact, on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _declaration(tool: Tool, room: _Room) -> str:
    parameters = _Types(tool.parameters or {}, room).parameters()
    arguments = f"_: {parameters}" if parameters else ""
    return f"{comment(tool.description or '')}type {tool.name} = ({arguments}) => any;"


class _Room:
    """What references may still expand to, in characters; shared by all the tools of a request."""

    def __init__(self, characters: int) -> None:
        self.left = characters


class _Types:
    """Writes the types of one root schema.

    A type is a list of alternatives until the last moment: `A | B` joined, `(A | B)[]` in an array, `| null`
    added once.  `open` holds the references that are being expanded around the current place.
    """

    def __init__(self, root: Schema, room: _Room) -> None:
        self._root = root
        self._room = room

    def parameters(self) -> str:
        """The type of a function's one argument; empty if it takes none."""
        schema, open = self._resolve(self._root, ())
        if not any(schema.get(key) for key in _SAYS_SOMETHING):
            return ""
        return " | ".join(self._alternatives(schema, "", open, 0))

    # -- one type --------------------------------------------------------------------------------------------

    def _alternatives(
        self, schema: Any, indent: str, open: tuple[str, ...], depth: int, described: bool = False
    ) -> list[str]:
        """The types that a value may have.  `described`: the schema's description is elsewhere already."""
        if schema is False:
            return ["never"]
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return ["any"]
        schema, open = self._resolve(schema, open)
        if open and not self._spend(schema):
            return ["any"]
        parts = []
        own = list(dict.fromkeys(self._own(schema, indent, open, depth, described)))
        if own:
            parts.append(own)
        for key in ("anyOf", "oneOf"):
            if variants := _list(schema.get(key)):
                union = [t for v in variants for t in self._alternatives(v, indent, open, depth + 1)]
                parts.append(list(dict.fromkeys(union)))
        for part in _list(schema.get("allOf")):
            parts.append(self._alternatives(part, indent, open, depth + 1))
        parts = [part for part in parts if "any" not in part] or [["any"]]
        types = parts[0] if len(parts) == 1 else [" & ".join(map(_operand, parts))]
        if schema.get("nullable") is True and "null" not in types:
            types = [*types, "null"]
        return types

    def _own(
        self, schema: Schema, indent: str, open: tuple[str, ...], depth: int, described: bool
    ) -> Iterator[str]:
        """The alternatives that the schema states itself, outside of anyOf, oneOf and allOf."""
        if "const" in schema:
            yield literal(schema["const"])
            return
        if values := _list(schema.get("enum")):
            yield from map(literal, values)
            return
        types = schema.get("type")
        if types is None:
            types = "object" if "properties" in schema else "array" if "items" in schema else []
        for type in types if isinstance(types, list) else [types]:
            match type:
                case "object":
                    yield self._object(schema, indent, open, depth, described)
                case "array":
                    yield self._array(schema, indent, open, depth)
                case "integer" | "number":
                    yield "number"
                case "string" | "boolean" | "null":
                    yield type
                case _:
                    yield "any"

    def _array(self, schema: Schema, indent: str, open: tuple[str, ...], depth: int) -> str:
        items = schema.get("items")
        fixed = _list(schema.get("prefixItems")) or _list(items)
        if fixed:
            return (
                "["
                + ", ".join(" | ".join(self._alternatives(i, indent, open, depth + 1)) for i in fixed)
                + "]"
            )
        if items is None:
            return "Array<any>"
        return _operand(self._alternatives(items, indent, open, depth + 1)) + "[]"

    # -- objects ---------------------------------------------------------------------------------------------

    def _object(self, schema: Schema, indent: str, open: tuple[str, ...], depth: int, described: bool) -> str:
        text = [] if described else [_comment_of(schema, "description", indent)]
        text.append("{\n")
        required = {name for name in _list(schema.get("required")) if isinstance(name, str)}
        for name, value in _dict(schema.get("properties")).items():
            key = name if name in required else f"{name}?"
            text.append(self._property(key, value, indent, open, depth + 1))
        others = [schema.get("additionalProperties"), *_dict(schema.get("patternProperties")).values()]
        for value in others:
            if value is True or isinstance(value, dict):
                text.append(self._property("[key: string]", value, indent, open, depth + 1))
        text.append(f"{indent}}}")
        return "".join(text)

    def _property(self, key: str, schema: Any, indent: str, open: tuple[str, ...], depth: int) -> str:
        """Whole lines: comments above, then `key: type, // default`."""
        if not isinstance(schema, dict):
            schema = {} if schema is True else {"type": None}
        schema, open = self._resolve(schema, open)
        title = _comment_of(schema, "title", indent)
        description = _comment_of(schema, "description", indent)
        above = title and f"{title}{indent}//\n"
        examples = _list(schema.get("examples"))
        if examples:
            given = "".join(f"{indent}// - {literal(example)}\n" for example in examples)
            above_examples = f"{indent}// Examples:\n{given}"
        else:
            above_examples = ""
        types = " | ".join(self._alternatives(schema, indent + "    ", open, depth, described=True))
        default = f" // {_default(schema)}" if "default" in schema else ""
        return f"{above}{description}{above_examples}{indent}{key}: {types},{default}\n"

    # -- references ------------------------------------------------------------------------------------------

    def _resolve(self, schema: Schema, open: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """Follow `$ref`.  What stands beside it wins over its target; one already open says nothing."""
        while isinstance(reference := schema.get("$ref"), str):
            target = {} if reference in open else self._target(reference)
            open = (*open, reference)
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**target, **beside}
        return schema, open

    def _target(self, reference: str) -> Schema:
        """What a JSON pointer (RFC 6901) in a URI fragment points to; nothing if elsewhere or missing."""
        if not reference.startswith("#"):
            return {}
        place: Any = self._root
        for step in unquote(reference[1:]).split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
                place = place[int(step)]
            else:
                place = _dict(place).get(step)
        return _dict(place)

    def _spend(self, schema: Schema) -> bool:
        """Take what writing `schema` inside a reference costs.  Returns False once there is no room."""
        if self._room.left > 0:
            self._room.left -= 32 + sum(len(value) for value in schema.values() if isinstance(value, str))
        return self._room.left > 0


_SAYS_SOMETHING = (
    "properties",
    "additionalProperties",
    "patternProperties",
    "anyOf",
    "oneOf",
    "allOf",
    "enum",
    "const",
)
"""Without any of these the parameters are an empty object, and the function has none."""


def _operand(types: list[str]) -> str:
    """A type that stays one under `[]` and `&`."""
    return types[0] if len(types) == 1 else f"({' | '.join(types)})"


def _comment_of(schema: Schema, key: str, indent: str) -> str:
    text = schema.get(key)
    return comment(text, indent) if isinstance(text, str) else ""


def _default(schema: Schema) -> str:
    value = schema["default"]
    of_enum = isinstance(value, str) and bool(_list(schema.get("enum")))
    return f"default: {value if of_enum else literal(value)}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> Schema:
    return value if isinstance(value, dict) else {}
