"""The types of a conversation, independent of HTTP: the input of `render`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "developer", "user", "assistant", "tool"]
Effort = Literal["none", "low", "medium", "high"]


class ConversationError(ValueError):
    """An error of the client: a conversation that cannot be rendered.

    param  the field of the request that is wrong
    """

    def __init__(self, message: str, param: str):
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar for a tool's text input, or for the visible answer.

    syntax  `gbnf` is llama.cpp's; the definition of a `structural_tag` is JSON
    """

    syntax: Literal["lark", "regex", "gbnf", "structural_tag"]
    definition: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call.

    name        in the prompt: `get_weather` in the namespace `functions`, or with another namespace,
                `github.search`
    parameters  a JSON schema of an object; None for a function without arguments
    text        it takes text instead of JSON: any text (True), or text that follows a grammar
    builtin     one of the tools in builtin.py, which the model was trained on
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    text: bool | Grammar = False
    builtin: bool = False

    @property
    def namespace(self) -> str | None:
        """None: the namespace `functions`."""
        return self.name.rpartition(".")[0] or None

    @property
    def recipient(self) -> str:
        """The text after `to=`."""
        return _recipient(self.name, self.builtin)

    @property
    def channel(self) -> Literal["analysis", "commentary"]:
        """The channel of its calls and results."""
        return "analysis" if self.builtin else "commentary"


@dataclass(frozen=True, slots=True)
class Call:
    """The model's call of a tool.

    name       as in `Tool`, like text and builtin
    arguments  as the model wrote them: usually, but not always, JSON; text if the tool takes text
    """

    id: str
    name: str
    arguments: str
    text: bool = False
    builtin: bool = False

    @property
    def recipient(self) -> str:
        return _recipient(self.name, self.builtin)

    @property
    def channel(self) -> Literal["analysis", "commentary"]:
        return "analysis" if self.builtin else "commentary"


def _recipient(name: str, builtin: bool) -> str:
    return name if builtin or "." in name else f"functions.{name}"


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the history.

    content    text; None for an assistant message that has only calls
    reasoning  the chain of thought of an assistant message, if the client sent it
    calls      the calls of an assistant message, in order
    call_id    for a tool message: the call that it answers
    name       for a user message: the author; for a tool message without `call_id`: the function
    preamble   for an assistant message without calls: its content preceded a call, and is not an answer
    sampled    for an assistant message: all tokens that were sampled from its beginning on, including those
               of the messages after it, without the first `<|start|>assistant`; empty if unknown.  The prompt
               gets these tokens where the messages are unchanged (replay.py)
    """

    role: Role
    content: str | None = None
    reasoning: str | None = None
    calls: tuple[Call, ...] = ()
    call_id: str | None = None
    name: str | None = None
    preamble: bool = False
    sampled: Sequence[int] = ()

    @property
    def is_final(self) -> bool:
        """Whether this is an answer.  A message with only a chain of thought was cut off before it."""
        return (
            self.role == "assistant"
            and not (self.calls or self.preamble)
            and bool(self.content or not self.reasoning)
        )


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """A schema that the answer must follow, shown to the model at the end of the developer message."""

    name: str
    schema: dict[str, Any]
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Prefill:
    """The given beginning of an answer, which the model continues.

    reasoning  beginning of the chain of thought; all of it if there is content
    content    beginning of the visible answer
    """

    reasoning: str = ""
    content: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything that a prompt is made of.

    effort      how much to think; "none": not at all
    date        YYYY-MM-DD as the system message gives it; pinned when the server starts
    namespaces  name of a namespace of tools → its description
    prefill     the given beginning of the answer
    """

    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)
    effort: Effort = "medium"
    date: str = "2025-06-28"
    response_format: ResponseFormat | None = None
    namespaces: dict[str, str] = field(default_factory=dict)
    prefill: Prefill = Prefill()

    @property
    def prefilled_channel(self) -> Literal["analysis", "final"] | None:
        """The channel in whose body the prompt ends.  It is `final` also if the effort is "none" and there
        are no tools.
        """
        if self.prefill.content:
            return "final"
        if self.prefill.reasoning:
            return "analysis"
        return "final" if self.effort == "none" and not self.tools else None

    @property
    def prefilled(self) -> bool:
        """Whether the prompt ends in the body of `final`."""
        return self.prefilled_channel == "final"
