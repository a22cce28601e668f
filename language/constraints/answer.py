"""The demands on an answer, and its grammar: everything that is sampled after `<|start|>assistant`.

    start:    (analysis | preamble){0,8} action
    analysis: <|channel|>analysis<|message|> TEXT <|end|><|start|>assistant
    preamble: <|channel|>commentary<|message|> TEXT <|end|><|start|>assistant
    final:    <|channel|>final<|message|> … <|return|>
    call:     <|channel|>commentary to=functions.f <|constrain|>json<|message|> {…} <|call|>
              (channel, name and type depend on the tool: header_tokens.py)

Everything outside the bodies is written as the token ids that the renderer uses too: so a header cannot be
misspelt, and the prefix cache finds a replayed call.  TEXT is any valid UTF-8 without special tokens.  The
grammar is in llguidance's dialect of Lark: `<[17]>` is token 17, `%json` begins a schema.

An answer has at most one call: generation stops at `<|call|>`, and continues when the model gets the result.
So `parallel_tool_calls` needs no rule: false always holds, and true permits several calls without demanding
them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from language.constraints import schemas
from language.constraints.schemas import SchemaError
from language.harmony.header_tokens import HeaderTokens
from language.harmony.messages import Grammar, ResponseFormat, Tool

ANY_OBJECT = "%json " + schemas.grammar_text(schemas.ANY_OBJECT, True, "")
"""The rule for a body that may be any JSON object."""

ANY_TEXT = "TEXT"

MAX_THOUGHTS = 8
"""Maximum messages before the answer or the call, against endless reasoning.  One or two are usual."""


@dataclass(frozen=True, slots=True)
class AnswerSpec:
    """The constraining fields of a chat request, as one value.

    tools            the declared functions, by the names that the prompt uses
    strict_tools     names of the tools whose arguments must follow their schema exactly
    tool_choice      none: no call; auto: a call or an answer; required: a call
    allowed_tools    names of the tools that may be called; None: all
    response_format  format of the `final` message
    strict_response  whether the answer must follow the schema of the response format exactly
    prefilled        the prompt ends inside the body of `final`; then no call can follow
    reasoning        whether a chain of thought is allowed
    thinking_tokens  maximum tokens of the chain of thought; None: no limit
    """

    tools: tuple[Tool, ...] = ()
    strict_tools: frozenset[str] = frozenset()
    tool_choice: Literal["none", "auto", "required"] = "auto"
    allowed_tools: frozenset[str] | None = None
    response_format: Literal["text", "json_object"] | ResponseFormat = "text"
    strict_response: bool = False
    prefilled: bool = False
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
        """Whether a grammar is needed.  Plain text without tools is unconstrained, including its headers."""
        must_act = not self.reasoning and not self.prefilled
        return bool(self.tools) or self.response_format != "text" or must_act


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
        """Whether it contains nothing from the client."""
        return self.rule in (ANY_OBJECT, ANY_TEXT)


@dataclass(frozen=True, slots=True)
class Bodies:
    """The rules for all bodies of an answer, checked but not yet compiled.

    final  None for plain text
    calls  by name of the tool
    """

    final: Body | None
    calls: dict[str, Body] = field(default_factory=dict)


def bodies(spec: AnswerSpec) -> Bodies:
    """The rules for the bodies that `spec` allows.

    A call that is neither required nor strict may have any JSON object as arguments, because a schema would
    also fix the order of the keys.  Raises SchemaError.
    """
    final: Body | None = None
    if spec.response_format == "json_object":
        final = _body(schemas.ANY_OBJECT, True, "response_format")
    elif isinstance(spec.response_format, ResponseFormat):
        param = "response_format.json_schema.schema"
        final = _body(spec.response_format.schema, spec.strict_response, param)

    calls: dict[str, Body] = {}
    for i, tool in spec.callable_tools.items():
        param = f"tools[{i}].function.parameters"
        strict = tool.name in spec.strict_tools
        if tool.text:
            calls[tool.name] = _text_body(tool.text, f"tools[{i}].format")
        elif strict or spec.tool_choice == "required":
            calls[tool.name] = _body(schemas.of_arguments(tool.parameters, param), strict, param)
        else:
            calls[tool.name] = _body(schemas.ANY_OBJECT, True, param)
    if spec.tool_choice == "required" and not calls:
        raise SchemaError("a tool must be called, but there is none that may be", "tool_choice")

    every = [body for body in (final, *calls.values()) if body]
    if sum(len(body.rule) for body in every) > schemas.MAX_CHARACTERS:
        message = f"the schemas are longer than {schemas.MAX_CHARACTERS} characters together"
        raise SchemaError(message, every[-1].param)
    return Bodies(final, calls)


def _body(schema: Mapping[str, Any], strict: bool, param: str) -> Body:
    schemas.check(schema, param)
    return Body("%json " + schemas.grammar_text(schema, strict, param), param)


def _text_body(text: bool | Grammar, param: str) -> Body:
    """The body of a call whose tool takes text."""
    if not isinstance(text, Grammar):
        return Body(ANY_TEXT, param)
    if len(text.definition) > schemas.MAX_CHARACTERS:
        raise SchemaError(f"the grammar is longer than {schemas.MAX_CHARACTERS} characters", param)
    if text.syntax == "lark":
        return Body(f"%lark {{\n{text.definition}\n}}", param)
    slashes = re.compile(r"(\\.)|/|\n", re.DOTALL)
    written = slashes.sub(lambda found: found[1] or {"/": r"\/", "\n": r"\n"}[found[0]], text.definition)
    return Body(f"/{written}/", param)


def answer_grammar(spec: AnswerSpec, bodies: Bodies, headers: HeaderTokens, *, thoughts: bool) -> str:
    """The Lark grammar of the answer.

    thoughts  whether it may begin with reasoning
    """
    rules = [
        r"TEXT: /(.|\n)*/",
        f"final_body: {bodies.final.rule}" if bodies.final else "final_body: TEXT",
    ]
    rules.append(f"final_message: final_body {_tokens([headers.return_])}")
    if spec.prefilled:
        return _lark("final_message", rules)

    actions = []
    if spec.tool_choice != "required":
        actions.append(f"{_tokens(headers.final)} final_message")
    tools = {tool.name: tool for tool in spec.tools}
    for i, (name, body) in enumerate(bodies.calls.items()):
        rules.append(f"arguments_{i}: {body.rule}")
        actions.append(f"{_tokens(headers.call(tools[name]))} arguments_{i} {_tokens([headers.call_])}")
    rules.append("action: " + " | ".join(actions))

    channels = []
    if thoughts:
        channels.append("analysis")
        # A preamble is part of the visible answer, so it is not allowed if the answer must be JSON.
        if bodies.calls and bodies.final is None:
            channels.append("commentary")
    if not channels:
        return _lark("action", rules)
    following = _tokens(headers.next_message)
    thought = " | ".join(f"{_tokens(headers.opening(channel))} TEXT {following}" for channel in channels)
    return _lark(f"thought{{0,{MAX_THOUGHTS}}} action", [f"thought: {thought}", *rules])


def _tokens(ids: list[int]) -> str:
    return " ".join(f"<[{id}]>" for id in ids)


def _lark(start: str, rules: list[str]) -> str:
    return "\n".join(["%llguidance {}", f"start: {start}", *rules, ""])
