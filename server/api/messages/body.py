"""The fields of a Messages request, as a Turn.

Every field of Anthropic's SDK is accepted.  The fields here are honoured or refused by name; the others
(metadata, cache_control, context_management, …) change nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field

from engine.request import SamplingParams
from language.harmony.messages import Conversation, Effort, ResponseFormat, Tool
from language.names import FunctionNames
from server.api.conversation import EFFORTS, FunctionName
from server.api.messages.errors import ThreadRefused
from server.api.messages.history import Block, History, MessageBody, OpenSignature, instructions
from server.api.shared_fields import Body, Many, ManyObjects, StopString
from server.dialogue.turn import INT64, Demands, Turn
from server.errors import bad_request, unsupported


class ToolBody(Body):
    type: str | None = None
    name: FunctionName | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class Thinking(Body):
    type: Literal["enabled", "adaptive", "between_tools", "disabled"]
    budget_tokens: int | None = Field(None, ge=1, lt=2**31)
    display: Literal["summarized", "omitted"] | None = None


class Format(Body):
    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: Format | None = None


class PromptFields(Body):
    """The fields that determine the prompt, which are those of /v1/messages/count_tokens."""

    model: str | None = None
    messages: ManyObjects[MessageBody] = Field(min_length=1)
    system: str | ManyObjects[Block] | None = None
    tools: ManyObjects[ToolBody] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None
    mcp_servers: list[Any] | None = None
    container: Any = None
    thread: Any = None

    def declared(self) -> dict[str, ToolBody]:
        """The tools by name.  Raises ApiError."""
        found: dict[str, ToolBody] = {}
        for i, tool in enumerate(self.tools or ()):
            if tool.type not in (None, "custom"):
                message = f"tools[{i}].type: {tool.type[:100]!r}; this server has none of its own, only yours"
                raise unsupported(f"{message}, with an input_schema", f"tools[{i}].type")
            if tool.name is None or tool.input_schema is None:
                param = f"tools[{i}].{'name' if tool.name is None else 'input_schema'}"
                raise bad_request(f"{param}: it is missing", param)
            if tool.name in found:
                raise bad_request(f"tools[{i}].name: {tool.name!r} is there twice", f"tools[{i}].name")
            found[tool.name] = tool
        return found

    def conversation(
        self, date: str, open_signature: OpenSignature, names: FunctionNames | None = None
    ) -> Conversation:
        """The conversation for the prompt.

        date            the current date in the prompt, YYYY-MM-DD
        open_signature  decrypts a signature
        names           of the tools; None: made from `declared`
        raises          ApiError
        """
        names = names or FunctionNames(self.declared())
        for field in ("mcp_servers", "container"):
            if getattr(self, field):
                raise unsupported(f"{field}: this server runs no tools", field)
        if self.thread is not None:
            raise ThreadRefused()
        tools = [
            Tool(names.to_model(name), tool.description, tool.input_schema)
            for name, tool in self.declared().items()
        ]
        no_calls = self.tool_choice is not None and self.tool_choice.type == "none"
        history = History(names, open_signature)
        history.add_all(self.messages)
        return Conversation(
            messages=[*instructions(self.system), *history.messages],
            tools=[] if no_calls else tools,
            effort=self.effort,
            date=date,
            response_format=self._prompt_format(),
        )

    @property
    def effort(self) -> Effort:
        if self.thinking is not None and self.thinking.type == "disabled":
            return "none"
        return EFFORTS[self.output_config.effort if self.output_config else None]

    def _prompt_format(self) -> ResponseFormat | None:
        asked = (self.output_config and self.output_config.format) or self.output_format
        return ResponseFormat("response", asked.json_schema) if asked else None


class MessagesBody(PromptFields):
    max_tokens: int | None = Field(None, ge=0, lt=2**31)
    stream: bool | None = None
    stop_sequences: Many[StopString] | None = Field(None, max_length=64)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Annotated[int, Field(ge=-1, lt=INT64)] | None = None
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    compaction: Any = None

    @property
    def prompt_only(self) -> bool:
        """Whether only the prompt should be computed, for the prefix cache, without an answer."""
        return self.max_tokens == 0

    @property
    def shows_thinking(self) -> bool:
        return self.thinking is None or self.thinking.display != "omitted"

    def turn(self, date: str, open_signature: OpenSignature) -> Turn:
        """Raises ApiError."""
        if self.compaction is not None:
            why = "this server makes no summaries; ask for one in a message"
            raise unsupported(f"compaction: {why}", "compaction")
        names = FunctionNames(self.declared())
        conversation = self.conversation(date, open_signature, names)
        return Turn(
            prompt=conversation,
            max_tokens=1 if self.prompt_only else self.max_tokens,
            demands=Demands() if self.prompt_only else self._demands(conversation, names),
            sampling=self._sampling(),
            stop=tuple(self.stop_sequences or ()),
            names=names,
        )

    def _demands(self, conversation: Conversation, names: FunctionNames) -> Demands:
        declared = self.declared()
        mode, chosen = self._calls_allowed(declared)
        return Demands(
            strict_tools=frozenset(names.to_model(name) for name, tool in declared.items() if tool.strict),
            loose_tools=frozenset(
                names.to_model(name) for name, tool in declared.items() if tool.strict is False
            ),
            tool_choice=mode,
            allowed_tools=None if chosen is None else frozenset((names.to_model(chosen),)),
            response_format=conversation.response_format or "text",
            strict_response=conversation.response_format is not None,
            thinking_tokens=self.thinking.budget_tokens if self.thinking else None,
        )

    def _calls_allowed(
        self, declared: Collection[str]
    ) -> tuple[Literal["none", "auto", "required"], str | None]:
        """Whether a call may or must be made, and which tool must be called; None: any."""
        match self.tool_choice:
            case None | ToolChoice(type="auto"):
                return "auto", None
            case ToolChoice(type="none"):
                return "none", None
            case ToolChoice(type="any"):
                if not declared:
                    raise bad_request("tool_choice: there is no tool to choose from", "tool_choice")
                return "required", None
            case ToolChoice(name=None):
                raise bad_request("tool_choice.name: it is missing", "tool_choice.name")
            case ToolChoice(name=name) if name in declared:
                return "required", name
        raise bad_request("tool_choice.name: there is no such tool in tools", "tool_choice.name")

    def _sampling(self) -> SamplingParams:
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            seed=self.seed,
        )
