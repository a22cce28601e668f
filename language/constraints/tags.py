"""Structural tags (vLLM, SGLang, xgrammar) in Lark: text that is free until a tag begins.

There are two forms.  The older one has `structures`, each with a `begin`, a `schema` and an `end`, and
`triggers`: each is the beginning of some `begin`, and where the text contains a trigger, one of these
structures must follow.  The newer one has a `format`, a tree of parts.  These types of parts are supported:
const_string, json_schema, regex, grammar, any_text, sequence, or, tag, triggered_tags.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from language.constraints import gbnf, schemas
from language.constraints.schemas import SchemaError

MAX_PARTS = 1000
MAX_DEPTH = 32


def as_lark(tag: Any, param: str) -> str:
    """Raises SchemaError."""
    writer = _Writer(param)
    if not isinstance(tag, Mapping):
        raise SchemaError("a structural tag must be a JSON object", param)
    if "format" in tag:
        start = writer.part(tag["format"], 0)
    else:
        structures, triggers = tag.get("structures"), tag.get("triggers")
        if not (isinstance(structures, list) and isinstance(triggers, list)):
            raise SchemaError("a structural tag must have `format`, or `structures` and `triggers`", param)
        tags = [
            {**each, "content": {"type": "json_schema", "json_schema": each.get("schema")}}
            for each in structures
            if isinstance(each, Mapping)
        ]
        start = writer.triggered({"triggers": triggers, "tags": tags}, 0)
    return "\n".join([f"start: {start}", r"TAG_TEXT: /(.|\n)*/", *writer.rules])


class _Writer:
    def __init__(self, param: str):
        self._param = param
        self.rules: list[str] = []
        self._parts = 0

    def part(self, part: Any, depth: int) -> str:
        """The Lark expression for this part."""
        self._parts += 1
        if self._parts > MAX_PARTS or depth > MAX_DEPTH:
            raise self._error(f"it has more than {MAX_PARTS} parts, or {MAX_DEPTH} levels")
        if not isinstance(part, Mapping):
            raise self._error("each part of a structural tag must be an object with a `type`")
        match part.get("type"):
            case "const_string":
                return _literal(self._text(part, "value"))
            case "json_schema":
                return self._schema(part.get("json_schema"))
            case "regex":
                pattern = self._text(part, "pattern").replace("\n", r"\n")
                return self._rule(f"/{pattern}/" if "/" not in pattern else f"/{_slashes(pattern)}/")
            case "grammar":
                return self._rule(f"%lark {{\n{self._grammar(self._text(part, 'grammar'))}\n}}")
            case "any_text":
                return "TAG_TEXT"
            case "sequence":
                return self._rule(" ".join(self._each(part, "elements", depth)))
            case "or":
                return self._rule(" | ".join(self._each(part, "elements", depth)))
            case "tag":
                return self._tag(part, self._text(part, "begin"), depth)
            case "triggered_tags":
                return self.triggered(part, depth)
        raise self._error(f"parts of type {str(part.get('type'))[:60]!r} are not supported")

    def triggered(self, part: Mapping[str, Any], depth: int) -> str:
        """Text in which each trigger begins a tag."""
        triggers, tags = part.get("triggers"), part.get("tags")
        if not (_texts(triggers) and isinstance(tags, list) and tags):
            raise self._error("triggered tags must have `triggers`, a list of strings, and `tags`")
        starts = []
        for trigger in triggers or ():
            begun = [
                self._tag(tag, str(tag["begin"])[len(trigger) :], depth)
                for tag in tags
                if isinstance(tag, Mapping) and str(tag.get("begin", "")).startswith(trigger)
            ]
            if begun:
                lazy = self._rule(f"TAG_TEXT {_literal(trigger)}", "[lazy]")
                starts.append(f"{lazy} ({' | '.join(begun)})")
        if not starts:
            raise self._error("no tag begins with a trigger")
        tagged = self._rule(" | ".join(starts))
        if part.get("stop_after_first"):
            return self._rule(tagged if part.get("at_least_one") else f"{tagged} | TAG_TEXT")
        return self._rule(f"{tagged}{'+' if part.get('at_least_one') else '*'} TAG_TEXT")

    def _tag(self, tag: Mapping[str, Any], begin: str, depth: int) -> str:
        ends = tag.get("end", "")
        ends = [ends] if isinstance(ends, str) else ends
        if not _texts(ends):
            raise self._error("the `end` of a tag must be a string")
        end = "(" + " | ".join(map(_literal, ends)) + ")"
        content = self.part(tag.get("content"), depth + 1)
        if content == "TAG_TEXT":
            return self._rule(f"{_literal(begin)} " + self._rule(f"TAG_TEXT {end}", "[lazy]"))
        return self._rule(f"{_literal(begin)} {content} {end}")

    def _each(self, part: Mapping[str, Any], name: str, depth: int) -> Sequence[str]:
        parts = part.get(name)
        if not isinstance(parts, list) or not parts:
            raise self._error(f"a {part.get('type')} must have `{name}`, a list of parts")
        written = [self.part(each, depth + 1) for each in parts]
        if part.get("type") == "sequence" and "TAG_TEXT" in written[:-1]:
            raise self._error(
                "any_text has no end, so nothing can follow it; put it into a tag with an `end`"
            )
        return written

    def _schema(self, schema: Any) -> str:
        if not isinstance(schema, dict):
            raise self._error("a json_schema must be an object")
        schemas.check(schema, self._param)
        return self._rule("%json " + schemas.grammar_text(schema, False, self._param))

    def _grammar(self, text: str) -> str:
        try:
            return gbnf.as_lark(text) if gbnf.is_gbnf(text) else text
        except gbnf.GbnfError as error:
            raise self._error(str(error)) from None

    def _text(self, part: Mapping[str, Any], name: str) -> str:
        text = part.get(name)
        if not isinstance(text, str):
            raise self._error(f"a {part.get('type')} must have `{name}`, a string")
        return text

    def _rule(self, right: str, options: str = "") -> str:
        name = f"tag_{len(self.rules)}"
        self.rules.append(f"{name}{options}: {right}")
        return name

    def _error(self, message: str) -> SchemaError:
        return SchemaError(f"the structural tag cannot be followed: {message}", self._param)


def _texts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(each, str) for each in given)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _slashes(pattern: str) -> str:
    return pattern.replace("/", r"\x2f")
