"""The demands of a chat request on its answer: calls, JSON, thinking budget.

They become the `Demands` of a turn, which constrain what can be sampled (language/constraints).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from language.names import FunctionNames
from server.api.conversation import AllowedTools, ConversationFields, Named, ToolChoice, ToolFunction
from server.dialogue.turn import Demands
from server.errors import bad_request, unsupported


def demands(
    body: ConversationFields,
    names: FunctionNames,
    thinking_tokens: int | None,
    format_demands: Mapping[str, Any],
) -> Demands:
    """
    format_demands  the fields of `Demands` that determine the visible answer

    Raises ApiError if the demands contradict each other.
    """
    declared = body.declared()
    choice, allowed = _calls_allowed(body, [function.name for function in declared])
    strictness = {names.to_model(f.name): f.strict for f in declared if isinstance(f, ToolFunction)}
    return Demands(
        strict_tools=frozenset(name for name, strict in strictness.items() if strict),
        loose_tools=frozenset(name for name, strict in strictness.items() if strict is False),
        tool_choice=choice,
        allowed_tools=None if allowed is None else frozenset(map(names.to_model, allowed)),
        thinking_tokens=thinking_tokens,
        **format_demands,
    )


def _calls_allowed(
    body: ConversationFields, declared: Collection[str]
) -> tuple[Literal["none", "auto", "required"], Collection[str] | None]:
    """Whether a call may or must be made, and which functions may be called; None: all."""
    param = "tool_choice" if body.tool_choice is not None else "function_call"
    match body.tool_choice if body.tool_choice is not None else body.function_call:
        case None | "auto":
            return "auto", None
        case "none":
            return "none", None
        case "required":
            _check_known(declared, declared, param)
            return "required", None
        case Named(name=name) | ToolChoice(type="function", function=Named(name=name)):
            _check_known([name], declared, param)
            return "required", [name]
        case ToolChoice(type="allowed_tools", allowed_tools=AllowedTools(mode=mode, tools=tools)):
            chosen = [tool.function.name for tool in tools if tool.function]
            _check_known(chosen, declared, "tool_choice.allowed_tools.tools")
            return mode, chosen
        case ToolChoice(type="custom"):
            raise unsupported("tool_choice.type: 'custom'; only functions are supported", "tool_choice.type")
    raise bad_request(f"{param}: it does not say which function", param)


def _check_known(chosen: Collection[str], declared: Collection[str], param: str) -> None:
    if not chosen:
        raise bad_request(f"{param}: there is no function to choose from", param)
    if unknown := set(chosen) - set(declared):
        raise bad_request(f"{param}: there is no function {min(unknown)!r} in tools", param)
