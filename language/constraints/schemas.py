"""JSON schemas from strangers, made safe to compile.

llguidance limits its own work per grammar and per step, but not everything: a schema of a few bytes can ask
for an automaton with a million states.  So a schema is measured here first, without recursion and in linear
time, and refused with a clear reason if it is larger than anything honest.  What passes and is expensive all
the same is stopped in sandbox.py.

Nothing is ever fetched: a `$ref` must point into its own schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

MAX_CHARACTERS = 100_000
"""Of all the schemas of a request together, written as JSON."""
MAX_STRING = 10_000
"""Characters of one name, constant or pattern: the mask's time grows with what must be spelled out."""
MAX_DEPTH = 64
"""Levels of JSON, which is about 32 objects inside one another."""
MAX_PROPERTIES = 500
"""Of one object: each optional one is a way on from every step (15 ms for a mask at 500)."""
MAX_MULTIPLE = 10_000
"""Least common multiple of every `multipleOf`, decimal points aside: an automaton has as many states."""

MAX_NUMBER = 1e18
"""llguidance computes with 64-bit integers."""

WHITESPACE = r"( |\n[ \t]{0,64})"
"""Between the tokens of JSON: one space, or one line break and an indent.  An endless run of blanks is legal
JSON too, and a model that may write one sometimes never stops."""

EMPTY_OBJECT = {"type": "object", "properties": {}, "additionalProperties": False}
ANY_OBJECT = {"type": "object"}

SAY_MORE = frozenset(
    ("additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames", "minProperties",
     "dependentRequired", "dependentSchemas", "allOf", "anyOf", "oneOf", "not", "if", "$ref", "const", "enum")
)  # fmt: skip
"""Keywords by which an object may have, or need, properties beside those in `properties`."""


class SchemaError(ValueError):
    """A schema, or a choice of tools, that cannot constrain an answer, by the client's fault.

    param  the field of the request that is wrong
    """

    def __init__(self, message: str, param: str):
        super().__init__(message)
        self.param = param


def check(schema: Mapping[str, Any], param: str) -> None:
    """Raises SchemaError if `schema` is too large, too deep, or points outside itself."""
    characters, multiple = 0, 1
    for key, value, depth in _nodes(schema):
        characters += len(key or "") + (len(value) if isinstance(value, str) else 0) + 4  # and punctuation
        if characters > MAX_CHARACTERS:
            raise SchemaError(f"the schema is longer than {MAX_CHARACTERS} characters", param)
        if depth > MAX_DEPTH:
            raise SchemaError(f"the schema is nested more than {MAX_DEPTH} levels deep", param)
        if max(len(key or ""), len(value) if isinstance(value, str) else 0) > MAX_STRING:
            raise SchemaError(f"a string in the schema is longer than {MAX_STRING} characters", param)
        if isinstance(value, dict) and len(value) > MAX_PROPERTIES:
            raise SchemaError(f"an object in the schema has more than {MAX_PROPERTIES} properties", param)
        if isinstance(value, int | float) and not abs(value) < MAX_NUMBER:  # nor is NaN
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
    """`schema` as llguidance reads it.

    strict  every keyword counts, and one that cannot be carried out is an error when it is compiled.  Else
            such keywords are left out, and `oneOf` is read as `anyOf`
    """
    options = {"whitespace_pattern": WHITESPACE, "lenient": not strict, "coerce_one_of": not strict}
    return json.dumps({**schema, "x-guidance": options})


def of_arguments(parameters: Mapping[str, Any] | None, param: str) -> Mapping[str, Any]:
    """The schema of a call's arguments, which are always an object.

    Where `properties` alone say what they are, there are no others: the model is told of those, and a
    function that declares none (`{}`) takes none.
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
    """The digits of a decimal number without its point: 0.25 → 25, 1500 → 15."""
    return int("".join(map(str, Decimal(str(float(number))).normalize().as_tuple().digits)))


def _check_references(schema: Mapping[str, Any], param: str) -> None:
    """A `$ref` that leads to itself through nothing but `$ref`s describes nothing."""
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
    """What a JSON pointer (RFC 6901) points to; None if nothing, or if it is no pointer."""
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
