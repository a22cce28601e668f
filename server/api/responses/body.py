"""The fields of POST /v1/responses, as a Turn.

docs/responses.md says of each field whether it is honoured, ignored or refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from language.constraints import SchemaError
from language.harmony.messages import Conversation, ConversationError, Message, ResponseFormat
from server.api.conversation import EFFORTS
from server.api.responses.history import History, Item, Known
from server.api.responses.tools import ToolBody, ToolChoice, Tools, demands_of, tools_of
from server.api.shared_fields import Body, Many, ManyObjects, MoreFields
from server.api.structured import NAME, AnswerFormat, FormatName, OutputFields
from server.dialogue.turn import Turn
from server.errors import ApiError, bad_request, unsupported
from server.service import Service

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
"""With OpenAI's limits."""


class Reasoning(Body):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class Format(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: FormatName | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFields(Body):
    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class InputFields(MoreFields, OutputFields):
    """The fields that determine the prompt."""

    FORMAT: ClassVar[str] = "text.format"

    input: str | ManyObjects[dict[str, Any]] | None = None
    instructions: str | ManyObjects[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    tools: ManyObjects[ToolBody] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextFields | None = None
    truncation: Literal["auto", "disabled"] | None = None

    @property
    def summary(self) -> str | None:
        asked = self.reasoning or Reasoning()
        return asked.summary or asked.generate_summary

    def items(self) -> list[Item]:
        """The input as items."""
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return list(self.input or ())

    @property
    def conversation_id(self) -> str | None:
        """Raises ApiError."""
        if self.conversation is None or isinstance(self.conversation, str):
            return self.conversation
        id = self.conversation.get("id")
        if not isinstance(id, str):
            raise bad_request("conversation.id: it is missing", "conversation.id")
        return id

    def prompt_parts(
        self, earlier: Sequence[Item], known: Known, service: Service
    ) -> tuple[Conversation, Tools, list[str]]:
        """The conversation for the prompt, its tools, and for each message the field of the request it is
        from.

        earlier  items of the previous responses, or of the conversation
        raises   ApiError
        """
        tools = tools_of(self.tools or ())
        history = History(tools, known, service.renderer)
        if isinstance(self.instructions, str):
            history.messages.append(Message("developer", self.instructions))
            history.paths.append("instructions")
        else:
            history.add_all(self.instructions or (), "instructions")
        history.add_all(earlier, "previous_response_id" if self.conversation is None else "conversation")
        history.add_all(self.items(), "input")
        format = self.answer_format().format
        conversation = Conversation(
            messages=history.messages,
            tools=[] if self.tool_choice == "none" else tools.prompt_tools(),
            effort=EFFORTS[self.reasoning.effort if self.reasoning else None],
            date=service.date,
            response_format=format if isinstance(format, ResponseFormat) else None,
            namespaces=tools.namespaces,
        )
        return conversation, tools, history.paths

    def openai_format(self) -> AnswerFormat | None:
        asked = self.text.format if self.text else None
        match asked:
            case Format(type="json_object"):
                return AnswerFormat("json_object", param=self.FORMAT)
            case Format(type="json_schema"):
                schema = {"type": "object"} if asked.json_schema is None else asked.json_schema
                format = ResponseFormat(asked.name or NAME, schema, asked.description)
                return AnswerFormat(format, bool(asked.strict), f"{self.FORMAT}.schema")
        return None


class ResponseBody(InputFields):
    max_output_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_tool_calls: int | None = Field(None, ge=0, lt=2**31)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: Many[str] | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    prompt: Any = None
    moderation: Any = None
    thinking_token_budget: int | None = Field(None, ge=-1, lt=2**31)

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.top_logprobs) or LOGPROBS in (self.include or ())

    @property
    def wants_seal(self) -> bool:
        return ENCRYPTED in (self.include or ())

    @property
    def keeps(self) -> bool:
        """Whether the response is stored: by default it is, as with OpenAI."""
        return self.store is not False

    def check(self) -> None:
        """Raises ApiError for fields that contradict each other or are not supported."""
        if self.input is None and self.previous_response_id is None and self.conversation is None:
            raise bad_request("input: it is missing", "input")
        for name, instead in (("prompt", "send its text"), ("moderation", "leave it out")):
            if getattr(self, name) is not None:
                raise unsupported(f"{name}: this server does not have it; {instead}", name)
        if (self.n or 1) > 1:
            raise unsupported("n: a response has only one answer", "n")
        if self.previous_response_id is not None and self.conversation is not None:
            message = "previous_response_id: it cannot be combined with conversation"
            raise bad_request(message, "previous_response_id")
        if self.background and not self.keeps:
            raise bad_request("background: needs store to be true", "background")
        self.check_prompt_logprobs()
        if self.prompt_logprobs is not None and self.background:
            message = "prompt_logprobs: they are not stored, so not with background"
            raise bad_request(message, "prompt_logprobs")

    def turn(self, earlier: Sequence[Item], known: Known, service: Service) -> tuple[Turn, Tools, list[str]]:
        """Raises ApiError."""
        conversation, tools, paths = self.prompt_parts(earlier, known, service)
        tokenizer = service.tokenizer
        special = frozenset(tokenizer.specials.values())
        demands = demands_of("none" if self.max_tool_calls == 0 else self.tool_choice, tools)
        budget = None if self.thinking_token_budget == -1 else self.thinking_token_budget
        demands = replace(demands, thinking_tokens=budget, **self.format_demands(tokenizer.known, special))
        turn = Turn(
            prompt=conversation,
            max_tokens=self.max_output_tokens,
            demands=demands,
            sampling=self.sampling(
                (self.top_logprobs or 0) if self.wants_logprobs else None, tokenizer.known
            ),
            prompt_logprobs=self.prompt_logprobs,
            names=tools.names,
            param="input",
            **self.limits(),
        )
        return turn, tools, paths

    def head(self, id: str, created: float, service: Service) -> dict[str, Any]:
        """The response before its first item."""
        reasoning = self.reasoning or Reasoning()
        text = self.text.model_dump(by_alias=True, exclude_none=True) if self.text else {}
        choice = self.tool_choice
        return {
            "id": id,
            "object": "response",
            "created_at": int(created),
            "status": "in_progress",
            "background": bool(self.background),
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "model": service.model_id,
            "output": [],
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": self.previous_response_id,
            "conversation": {"id": self.conversation_id} if self.conversation is not None else None,
            "prompt_cache_key": self.prompt_cache_key,
            "reasoning": {
                "effort": reasoning.effort or "medium",
                "summary": self.summary,
            },
            "safety_identifier": self.safety_identifier,
            "service_tier": "default",
            "store": self.keeps,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "text": {"verbosity": "medium", **text, "format": text.get("format") or {"type": "text"}},
            "tool_choice": choice.model_dump(exclude_none=True)
            if isinstance(choice, Body)
            else choice or "auto",
            "tools": [_shown(tool) for tool in self.tools or ()],
            "top_logprobs": self.top_logprobs or 0,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "truncation": self.truncation or "disabled",
            "usage": None,
            "user": self.user,
            "metadata": self.metadata or {},
        }


def _shown(tool: ToolBody) -> dict[str, Any]:
    """A tool as the response repeats it, with the fields that the SDKs' types require."""
    shown = tool.model_dump(exclude_none=True)
    if tool.type == "function":
        shown = {"description": None, "parameters": None, "strict": bool(tool.strict), **shown}
    if tool.type == "namespace":
        shown = {"description": "", **shown}
    if tool.tools is not None:
        shown["tools"] = [_shown(inner) for inner in tool.tools]
    return shown


_MESSAGE = re.compile(r"messages\[(\d+)\]\.(?:tool_)?(.*)")
_TOOL = re.compile(r"tools\[(\d+)\]\.(?:function\.)?(.*)")


def as_request_error(
    error: ConversationError | SchemaError, paths: Sequence[str], tools: Mapping[Any, Any] | Tools
) -> ApiError:
    """An error about a prompt or a schema, with this API's name of the field.

    paths  for each message of the prompt, the field that it is from
    """
    param = error.param
    if found := _MESSAGE.fullmatch(param):
        place = int(found[1])
        param = f"{paths[place]}.{found[2]}" if place < len(paths) else "input"
    elif (found := _TOOL.fullmatch(param)) and isinstance(tools, Tools):
        declared = list(tools.declared.values())
        place = int(found[1])
        param = f"{declared[place].path}.{found[2]}" if place < len(declared) else "tools"
    elif param.startswith("response_format"):
        param = "text.format.schema"
    return bad_request(str(error), param)
