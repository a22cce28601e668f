"""The messages and tools of a chat request: as clients send them, and as the conversation to render."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from language.harmony.messages import (
    Call,
    Conversation,
    Effort,
    Message,
    Prefill,
    ResponseFormat,
    Role,
    Tool,
)
from language.names import FunctionNames
from server.api.shared_fields import Body, ManyObjects
from server.api.structured import AnswerFields
from server.errors import bad_request, unsupported

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
AuthorName = Annotated[str, Field(pattern=r"^[^\s<|\\/>:=]{1,64}$")]


class Part(Body):
    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Body):
    name: FunctionName
    arguments: str


class ToolCall(Body):
    id: str
    type: str | None = None
    function: FunctionCall | None = None


class MessageBody(Body):
    """A message of any role.  The fields that its role needs are checked when the conversation is built."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | ManyObjects[Part] | None = None
    name: AuthorName | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    thinking: str | None = None
    tool_calls: ManyObjects[ToolCall] | None = None
    function_call: FunctionCall | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None


class Function(Body):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolFunction(Function):
    strict: bool | None = None


class ToolBody(Body):
    type: str
    function: ToolFunction | None = None


class Named(Body):
    name: str


class AllowedTool(Body):
    type: str
    function: Named | None = None


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: ManyObjects[AllowedTool]


class ToolChoice(Body):
    type: Literal["function", "allowed_tools", "custom"]
    function: Named | None = None
    allowed_tools: AllowedTools | None = None


class ConversationFields(AnswerFields):
    """The fields that determine the prompt."""

    messages: ManyObjects[MessageBody] = Field(min_length=1)
    tools: ManyObjects[ToolBody] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    functions: ManyObjects[Function] | None = None
    function_call: Literal["none", "auto"] | Named | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None

    def declared(self) -> list[Function]:
        """The functions of `tools`, and of the older `functions`.  Raises ApiError."""
        found: list[Function] = []
        for i, tool in enumerate(self.tools or ()):
            if tool.type != "function":
                message = f"tools[{i}].type: {tool.type!r}; only 'function' is supported"
                raise unsupported(message, f"tools[{i}].type")
            if tool.function is None:
                raise bad_request(f"tools[{i}].function: it is missing", f"tools[{i}].function")
            found.append(tool.function)
        found += self.functions or ()
        names = [function.name for function in found]
        if len(set(names)) < len(names):
            raise bad_request("tools: two of the functions have the same name", "tools")
        return found

    def names(self) -> FunctionNames:
        return FunctionNames(function.name for function in self.declared())

    def conversation(self, date: str, names: FunctionNames | None = None) -> Conversation:
        """The conversation for the prompt.  It declares all functions, also those that may not be called now,
        so that the prompt has the same prefix in every turn; but none if no function may be called.

        date   the current date in the prompt, YYYY-MM-DD
        names  of the functions; None: made from `declared`

        Raises ApiError if a message is invalid, or asks for something that this server does not have.
        """
        names = names or self.names()
        tools = [Tool(names.to_model(f.name), f.description, f.parameters) for f in self.declared()]
        choice = self.tool_choice if self.tool_choice is not None else self.function_call
        messages = [_message(message, i, names) for i, message in enumerate(self.messages)]
        prefill = Prefill()
        if self.continues:
            last = messages.pop()
            prefill = Prefill(last.reasoning or "", last.content or "")
        format = self.answer_format().format
        return Conversation(
            messages=messages,
            tools=[] if choice == "none" else tools,
            effort=EFFORTS[self.reasoning_effort],
            date=date,
            response_format=format if isinstance(format, ResponseFormat) else None,
            prefill=prefill,
        )

    @property
    def continues(self) -> bool:
        """Whether the answer continues the last message.  Raises ApiError."""
        last = len(self.messages) - 1
        for i, message in enumerate(self.messages):
            if message.prefix and (i < last or message.role != "assistant"):
                param = f"messages[{i}].prefix"
                raise bad_request(
                    f"{param}: only the last message can have it, and only if it is the assistant's", param
                )
        asked = bool(self.continue_final_message)
        if asked and self.add_generation_prompt:
            param = "add_generation_prompt"
            raise bad_request(f"{param}: it must be false with continue_final_message", param)
        if not (asked or self.messages[last].prefix):
            if self.add_generation_prompt is False:
                param = "add_generation_prompt"
                raise bad_request(f"{param}: false needs continue_final_message", param)
            return False
        if self.messages[last].role != "assistant":
            param = "continue_final_message"
            raise bad_request(f"{param}: the last message must be the assistant's", param)
        if self.messages[last].tool_calls or self.messages[last].function_call:
            param = f"messages[{last}].tool_calls"
            raise bad_request(f"{param}: an answer cannot continue a message that has calls", param)
        return True


EFFORTS: dict[str | None, Effort] = {
    None: "medium",
    "none": "none",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


def _message(message: MessageBody, i: int, names: FunctionNames) -> Message:
    where = f"messages[{i}]"
    content = text_of(message.content, f"{where}.content")
    calls = _calls(message, where, names) if message.role == "assistant" else ()
    if message.role == "assistant" and content is None:
        content = message.refusal if message.refusal is not None or calls else ""
    if content is None and not calls:
        raise bad_request(f"{where}.content: a message of role {message.role} needs it", f"{where}.content")
    if message.role == "tool" and not message.tool_call_id:
        param = f"{where}.tool_call_id"
        raise bad_request(f"{param}: a tool message must say which call it answers", param)
    if message.role == "function" and not message.name:
        raise bad_request(
            f"{where}.name: a function message must say which function's result it is", f"{where}.name"
        )
    role: Role = "tool" if message.role == "function" else message.role
    reasoning = message.reasoning or message.reasoning_content or message.thinking
    return Message(
        role=role,
        content=content,
        reasoning=reasoning if role == "assistant" else None,
        calls=calls,
        call_id=message.tool_call_id if message.role == "tool" else None,
        name=names.to_model(message.name) if role == "tool" and message.name else message.name,
    )


def text_of(content: str | Sequence[Part] | None, where: str) -> str | None:
    """The text of a message's content: its parts concatenated."""
    if content is None or isinstance(content, str):
        return content
    texts = []
    for i, part in enumerate(content):
        text = part.text if part.type == "text" else part.refusal if part.type == "refusal" else None
        if part.type not in ("text", "refusal"):
            message = f"{where}[{i}]: this model reads text, not {part.type!r}"
            raise unsupported(message, f"{where}[{i}].type")
        if text is None:
            raise bad_request(f"{where}[{i}].{part.type}: it is missing", f"{where}[{i}].{part.type}")
        texts.append(text)
    return "".join(texts) if texts else None


def _calls(message: MessageBody, where: str, names: FunctionNames) -> tuple[Call, ...]:
    calls = []
    for i, call in enumerate(message.tool_calls or ()):
        if call.function is None:
            param = f"{where}.tool_calls[{i}].function"
            raise unsupported(f"{param}: it is missing; this server has only function calls", param)
        calls.append(Call(call.id, names.to_model(call.function.name), call.function.arguments))
    if message.function_call is not None:  # the older form, without an id
        calls.append(Call("", names.to_model(message.function_call.name), message.function_call.arguments))
    return tuple(calls)
