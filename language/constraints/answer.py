"""The demands on an answer, and its grammar: everything that is sampled after `<|start|>assistant`.

    start:    (analysis | preamble){0,8} action      # without the beginning that the prompt contains
    analysis: <|channel|>analysis<|message|> TEXT <|end|><|start|>assistant
    preamble: <|channel|>commentary<|message|> TEXT <|end|><|start|>assistant
    final:    <|channel|>final<|message|> … <|return|>
    call:     <|channel|>commentary to=functions.f <|constrain|>json<|message|> {…} <|call|>
              (channel, name and type depend on the tool: header_tokens.py)

Everything outside the bodies is written with the token ids that the renderer uses too, so a header cannot be
misspelt, and the prefix cache finds a replayed call.  TEXT is any valid UTF-8 without special tokens.  The
grammar is in llguidance's dialect of Lark: `<[17]>` is token 17, `%json` begins a schema.

The visible text may be constrained further: by a JSON schema, a grammar, a list of allowed tokens, or a list
of bad words.  Raw text (/v1/completions) is only such a body, without headers.

An answer has at most one call: generation stops at `<|call|>`, and continues in the next request, with the
result.  So `parallel_tool_calls` needs no rule: false always holds, and true permits several calls without
demanding them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from language.constraints import gbnf, schemas, tags
from language.constraints.schemas import SchemaError
from language.harmony.header_tokens import HeaderTokens
from language.harmony.messages import Grammar, ResponseFormat, Tool

ANY_OBJECT = "%json " + schemas.grammar_text(schemas.ANY_OBJECT, True, "")
"""The rule for a body that may be any JSON object."""

NO_ARGUMENTS = "%json " + schemas.grammar_text(schemas.EMPTY_OBJECT, False, "")

ANY_TEXT = "TEXT"

Format = Literal["text", "json_object"] | ResponseFormat | Grammar
"""The format of the visible answer."""

MAX_THOUGHTS = 8
"""Maximum messages before the answer or the call, against endless reasoning.  One or two are usual."""


@dataclass(frozen=True, slots=True)
class AnswerSpec:
    """The constraining fields of a chat request, as one value.

    tools            the declared functions, by the names that the prompt uses
    strict_tools     names of the tools for which an unsupported keyword of the schema is an error
    loose_tools      names of the tools whose arguments may be any JSON object, unless they must be called
    tool_choice      none: no call; auto: a call or an answer; required: a call
    allowed_tools    names that may be called (of a named function, or of `allowed_tools`); None: all
    response_format  the format of the body of `final`
    strict_response  whether an unsupported keyword of the response format's schema is an error
    format_param     the request's field that the response format comes from
    allowed_tokens   tokens that the visible answer may contain; None: all
    allows_none      whether the visible answer may be empty
    bad_words        strings that the visible answer must not contain
    raw              the answer is one body without headers, which may also end with the end-of-text token
    prefilled        the prompt ends inside the body of `final`; then no call can follow
    in_analysis      the prompt ends inside the body of `analysis`
    begun            tokens of the body of `final` that the prompt already contains
    reasoning        whether a chain of thought is allowed
    thinking_tokens  maximum tokens of the chain of thought; None for no limit
    """

    tools: tuple[Tool, ...] = ()
    strict_tools: frozenset[str] = frozenset()
    loose_tools: frozenset[str] = frozenset()
    tool_choice: Literal["none", "auto", "required"] = "auto"
    allowed_tools: frozenset[str] | None = None
    response_format: Format = "text"
    strict_response: bool = False
    format_param: str = "response_format"
    allowed_tokens: tuple[int, ...] | None = None
    allows_none: bool = False
    bad_words: tuple[str, ...] = ()
    raw: bool = False
    prefilled: bool = False
    in_analysis: bool = False
    begun: tuple[int, ...] = ()
    reasoning: bool = True
    thinking_tokens: int | None = None

    def with_default_budget(self, thinking_tokens: int | None) -> AnswerSpec:
        """The spec with this thinking budget, if it allows reasoning and has no budget of its own."""
        if self.thinking_tokens is not None or not self.reasoning or self.prefilled:
            return self
        return replace(self, thinking_tokens=thinking_tokens)

    @property
    def callable_tools(self) -> dict[int, Tool]:
        """The tools that this answer may call, by their index in `tools`."""
        if self.tool_choice == "none" or self.prefilled:
            return {}
        allowed = self.allowed_tools
        return {i: tool for i, tool in enumerate(self.tools) if allowed is None or tool.name in allowed}

    @property
    def constrains(self) -> bool:
        """Whether a grammar is needed.  Without tools and formats nothing is constrained, also no headers.

        It is needed also if no call may be made: a history with calls invites to the next one.
        """
        has_headers = not (self.prefilled or self.raw)
        must_act = has_headers and not self.reasoning
        must_not_call = has_headers and self.tool_choice == "none"
        shaped = self.response_format != "text" or self.allowed_tokens is not None or bool(self.bad_words)
        return bool(self.tools) or shaped or must_act or must_not_call


@dataclass(frozen=True, slots=True)
class Body:
    """The rule for one message body.

    rule   the right side of its Lark rule
    param  the field of the request from which it was made
    """

    rule: str
    param: str

    @property
    def ours(self) -> bool:
        """Whether it is a constant of ours, without anything from a client."""
        return self.rule in (ANY_OBJECT, NO_ARGUMENTS, ANY_TEXT)


@dataclass(frozen=True, slots=True)
class Bodies:
    """The rules for all bodies of an answer, checked but not yet compiled.

    final     None for plain text
    calls     name of a tool → the rule for its arguments
    loosened  name of a tool → why its arguments may be any JSON object, though it has a schema
    """

    final: Body | None
    calls: dict[str, Body] = field(default_factory=dict)
    loosened: dict[str, str] = field(default_factory=dict)

    def loosen(self, names: Collection[str], reason: str) -> Bodies:
        """A copy in which the arguments of these tools may be any JSON object."""
        calls = {name: replace(self.calls[name], rule=ANY_OBJECT) for name in names}
        return Bodies(self.final, {**self.calls, **calls}, {**self.loosened, **dict.fromkeys(names, reason)})


def bodies(spec: AnswerSpec) -> Bodies:
    """The rules for the bodies that `spec` allows.

    Arguments follow the schema of their function, unless the function is in `loose_tools`.  If a schema
    cannot be followed, any JSON object is allowed, unless the client demanded otherwise with `strict` or a
    forced call.  Raises SchemaError.
    """
    found = Bodies(_final_body(spec))
    for i, tool in spec.callable_tools.items():
        param = f"tools[{i}].function.parameters"
        if tool.text:
            found.calls[tool.name] = _text_body(tool.text, f"tools[{i}].format")
            continue
        found.calls[tool.name] = Body(ANY_OBJECT, param)
        if tool.name in spec.loose_tools and spec.tool_choice != "required":
            continue
        strict = tool.name in spec.strict_tools
        try:
            found.calls[tool.name] = _body(schemas.of_arguments(tool.parameters, param), strict, param)
        except SchemaError as error:
            if tool.name not in may_loosen(spec):
                raise
            found.loosened[tool.name] = str(error)
    if spec.tool_choice == "required" and not found.calls:
        raise SchemaError("a tool must be called, but no tool may be called", "tool_choice")
    return _bounded(spec, found)


def may_loosen(spec: AnswerSpec) -> frozenset[str]:
    """The tools whose schemas the client did not demand to be followed."""
    if spec.tool_choice == "required":
        return frozenset()
    return frozenset(tool.name for tool in spec.callable_tools.values() if not tool.text) - spec.strict_tools


def _bounded(spec: AnswerSpec, found: Bodies) -> Bodies:
    """The rules, with schemas loosened so that those left can be compiled together.  Raises SchemaError."""
    reason = f"the schemas are longer than {schemas.MAX_CHARACTERS} characters together"
    if _length(found) > schemas.MAX_CHARACTERS and (free := may_loosen(spec)):
        found = found.loosen(free, reason)
    if _length(found) > schemas.MAX_CHARACTERS:
        every = [body for body in (found.final, *found.calls.values()) if body]
        raise SchemaError(reason, every[-1].param)
    return found


def _length(found: Bodies) -> int:
    """Characters of all rules that come from clients."""
    return sum(len(body.rule) for body in (found.final, *found.calls.values()) if body and not body.ours)


def _final_body(spec: AnswerSpec) -> Body | None:
    """The rule for the visible answer; None for any text."""
    param = spec.format_param
    match spec.response_format:
        case "json_object":
            return _body(schemas.ANY_OBJECT, True, param)
        case ResponseFormat() as asked:
            if param == "response_format":
                param = "response_format.json_schema.schema"
            return _body(asked.schema, spec.strict_response, param)
        case Grammar() as asked:
            return _text_body(asked, param)
    if spec.allowed_tokens is not None:
        times = "*" if spec.allows_none else "+"
        return Body(f"{_any_of(spec.allowed_tokens)}{times}", "allowed_token_ids")
    if spec.bad_words:
        unwanted = "|".join(map(_literally, spec.bad_words))
        return Body(f"VISIBLE\nVISIBLE: /(.|\\n)*/ & ~/(.|\\n)*({unwanted})(.|\\n)*/", "bad_words")
    return None


def _any_of(tokens: Collection[int]) -> str:
    """The Lark expression for any of these tokens, as ranges."""
    ranges: list[list[int]] = []
    for token in sorted(set(tokens)):
        if ranges and ranges[-1][1] == token - 1:
            ranges[-1][1] = token
        else:
            ranges.append([token, token])
    return f"<[{','.join(f'{first}-{last}' if last > first else str(first) for first, last in ranges)}]>"


def _literally(text: str) -> str:
    """A pattern that matches only this text."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def _body(schema: Mapping[str, Any], strict: bool, param: str) -> Body:
    schemas.check(schema, param)
    return Body("%json " + schemas.grammar_text(schema, strict, param), param)


def _text_body(text: bool | Grammar, param: str) -> Body:
    """A body that is text."""
    if not isinstance(text, Grammar):
        return Body(ANY_TEXT, param)
    if len(text.definition) > schemas.MAX_CHARACTERS:
        raise SchemaError(f"the grammar is longer than {schemas.MAX_CHARACTERS} characters", param)
    if text.syntax == "regex":
        slashes = re.compile(r"(\\.)|/|\n", re.DOTALL)
        written = slashes.sub(lambda found: found[1] or {"/": r"\/", "\n": r"\n"}[found[0]], text.definition)
        return Body(f"/{written}/", param)
    definition = text.definition
    if text.syntax == "structural_tag":
        definition = tags.as_lark(json.loads(definition), param)
    elif text.syntax == "gbnf":
        try:
            definition = gbnf.as_lark(definition)
        except gbnf.GbnfError as error:
            raise SchemaError(f"the grammar cannot be followed: {error}", param) from None
    return Body(f"%lark {{\n{definition}\n}}", param)


def answer_grammar(spec: AnswerSpec, bodies: Bodies, headers: HeaderTokens, *, thoughts: bool) -> str:
    """The Lark grammar of the answer.

    thoughts  whether it may begin with reasoning
    """
    rules = [
        r"TEXT: /(.|\n)*/",
        f"final_body: {bodies.final.rule}" if bodies.final else "final_body: TEXT",
    ]
    ends = [headers.return_, headers.end_of_text] if spec.raw else [headers.return_]
    rules.append(f"final_message: final_body {_any_of(ends)}")
    if spec.prefilled or spec.raw:
        return _lark("final_message", rules)

    actions = []
    if spec.tool_choice != "required":
        actions.append(f"{_tokens(headers.final)} final_message")
    tools = {tool.name: tool for tool in spec.tools}
    for i, (name, body) in enumerate(bodies.calls.items()):
        rules.append(f"arguments_{i}: {body.rule}")
        actions.append(f"{_tokens(headers.call(tools[name]))} arguments_{i} {_tokens([headers.call_])}")
    rules.append("action: " + " | ".join(actions))

    following = _tokens(headers.next_message)
    begun = f"TEXT {following} " if spec.in_analysis and thoughts else ""
    texts = {}
    if thoughts:
        texts["analysis"] = ANY_TEXT
        # A preamble is part of the visible answer, so it would spoil one that must be JSON.
        if bodies.calls and (bodies.final is None or spec.bad_words):
            texts["commentary"] = "VISIBLE" if spec.bad_words else ANY_TEXT
    if not texts:
        return _lark("action", rules)
    thought = " | ".join(
        f"{_tokens(headers.opening(channel))} {text} {following}" for channel, text in texts.items()
    )
    return _lark(f"{begun}thought{{0,{MAX_THOUGHTS}}} action", [f"thought: {thought}", *rules])


def _tokens(ids: list[int]) -> str:
    return " ".join(f"<[{id}]>" for id in ids)


def _lark(start: str, rules: list[str]) -> str:
    return "\n".join(["%llguidance {}", f"start: {start}", *rules, ""])
