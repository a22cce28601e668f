"""Limits on the JSON schemas that clients send.

llguidance limits its own work per grammar and per step, but not everything: a schema of a few bytes can
demand an automaton with a million states.  So a schema is measured here first, without recursion and in
linear time, and refused with a clear reason if it is too large.  A schema that passes but is expensive to
compile is stopped in sandbox.py.

Nothing is ever fetched: a `$ref` must point into its own schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

MAX_CHARACTERS = 100_000
"""All schemas of a request together, written as JSON."""
MAX_STRING = 10_000
"""Characters of one name, constant or pattern: longer ones make masks slower."""
MAX_DEPTH = 64
"""Levels of JSON: about 32 nested objects."""
MAX_PROPERTIES = 500
"""Properties of one object: each optional one is an alternative in each step (15 ms for a mask at 500)."""
MAX_MULTIPLE = 10_000
"""Least common multiple of all `multipleOf`, without decimal points: the automaton has as many states."""

MAX_NUMBER = 1e18
"""llguidance computes with 64-bit integers."""

WHITESPACE = r"( |\n[ \t]{0,64})"
"""Between the tokens of JSON: one space, or one line break and an indent.  JSON allows any amount of
whitespace, but then a model sometimes writes whitespace without end."""

EMPTY_OBJECT = {"type": "object", "properties": {}, "additionalProperties": False}
ANY_OBJECT = {"type": "object"}

SAY_MORE = frozenset(
    ("additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames", "minProperties",
     "dependentRequired", "dependentSchemas", "allOf", "anyOf", "oneOf", "not", "if", "$ref", "const", "enum")
)  # fmt: skip
"""Keywords that may allow or require properties that are not in `properties`."""


class SchemaError(ValueError):
    """An error of the client: a schema or choice of tools that cannot constrain an answer.

    param  the field of the request that is wrong
    """

    def __init__(self, message: str, param: str):
        super().__init__(message)
        self.param = param


def check(schema: Mapping[str, Any], param: str) -> None:
    """Raises SchemaError if `schema` is too large, too deep, or points outside itself."""
    characters, multiple = 0, 1
    for key, value, depth in _nodes(schema):
        characters += len(key or "") + (len(value) if isinstance(value, str) else 0) + 4  # for punctuation
        if characters > MAX_CHARACTERS:
            raise SchemaError(f"the schema is longer than {MAX_CHARACTERS} characters", param)
        if depth > MAX_DEPTH:
            raise SchemaError(f"the schema is nested more than {MAX_DEPTH} levels deep", param)
        if max(len(key or ""), len(value) if isinstance(value, str) else 0) > MAX_STRING:
            raise SchemaError(f"a string in the schema is longer than {MAX_STRING} characters", param)
        if isinstance(value, dict) and len(value) > MAX_PROPERTIES:
            raise SchemaError(f"an object in the schema has more than {MAX_PROPERTIES} properties", param)
        if isinstance(value, int | float) and not abs(value) < MAX_NUMBER:  # also true for NaN
            raise SchemaError(f"a number in the schema is not finite, or beyond ±{MAX_NUMBER:.0e}", param)
        if key == "$ref" and isinstance(value, str) and not value.startswith("#"):
            raise SchemaError("a $ref must point into the same schema, as '#/$defs/name' does", param)
        if key == "multipleOf" and isinstance(value, int | float) and value:
            multiple = math.lcm(multiple, _digits(value))
            if multiple > MAX_MULTIPLE:
                raise SchemaError(
                    f"the schema's multipleOf have a common multiple beyond {MAX_MULTIPLE}", param
                )
    _check_references(schema, param)


def grammar_text(schema: Mapping[str, Any], strict: bool, param: str) -> str:
    """`schema` in llguidance's form.

    strict  an unsupported keyword is an error when the schema is compiled.  False: such keywords are ignored,
            and `oneOf` is treated as `anyOf`
    """
    options = {"whitespace_pattern": WHITESPACE, "lenient": not strict, "coerce_one_of": not strict}
    return json.dumps({**schema, "x-guidance": options})


def of_arguments(parameters: Mapping[str, Any] | None, param: str) -> Mapping[str, Any]:
    """The schema of the arguments of a call, which are always an object.

    If the schema has only `properties`, other properties are not allowed, because the prompt shows only
    these; a function that declares none (`{}`) has no arguments.
    """
    if parameters is None:
        return EMPTY_OBJECT
    if parameters.get("type", "object") != "object":
        raise SchemaError("the parameters of a function must be a schema of type 'object'", param)
    declared, required = parameters.get("properties"), parameters.get("required", [])
    if SAY_MORE & parameters.keys() or not (isinstance(declared, dict) and isinstance(required, list)):
        return {**parameters, "type": "object"}
    closed = all(name in declared for name in required if isinstance(name, str))
    return {**parameters, "type": "object", **({"additionalProperties": False} if closed else {})}


def _nodes(schema: Mapping[str, Any]) -> Iterator[tuple[str | None, Any, int]]:
    """Every value with its key (None in a list) and its depth."""
    stack: list[tuple[str | None, Any, int]] = [(None, schema, 1)]
    while stack:
        node = stack.pop()
        yield node
        _, value, depth = node
        if isinstance(value, dict):
            stack += [(key, inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, list):
            stack += [(None, inner, depth + 1) for inner in value]


def _digits(number: int | float) -> int:
    """The significant digits of a number: 0.25 → 25, 1500 → 15."""
    return int("".join(map(str, Decimal(str(float(number))).normalize().as_tuple().digits)))


def _check_references(schema: Mapping[str, Any], param: str) -> None:
    """Raises SchemaError for a `$ref` that leads back to itself through other `$ref`s."""
    settled: set[int] = set()
    for _, node, _ in _nodes(schema):
        path: set[int] = set()
        while isinstance(node, dict) and isinstance(node.get("$ref"), str) and id(node) not in settled:
            if id(node) in path:
                raise SchemaError(f"the $ref {node['$ref'][:100]!r} leads back to itself", param)
            path.add(id(node))
            node = _resolve(schema, node["$ref"])
        settled |= path


def _resolve(schema: Any, reference: str) -> Any:
    """The value at a JSON pointer (RFC 6901); None if there is none, or it is not a pointer."""
    node = schema
    for step in reference.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(step)
        elif isinstance(node, list) and step.isdecimal() and int(step) < len(node):
            node = node[int(step)]
        else:
            return None
    return node
