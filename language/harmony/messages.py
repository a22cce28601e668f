"""The nouns of a conversation, free of HTTP: what `render` reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "developer", "user", "assistant", "tool"]
Effort = Literal["none", "low", "medium", "high"]


class ConversationError(ValueError):
    """A conversation that cannot be rendered, by the client's fault.

    param  the field of the request that is wrong
    """

    def __init__(self, message: str, param: str):
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the text that a tool takes must look like."""

    syntax: Literal["lark", "regex"]
    definition: str


@dataclass(frozen=True, slots=True)
class Tool:
    """Something the model may call.

    name        as the prompt writes it: `get_weather` of the namespace `functions`, or with a namespace of
                its own, `github.search`
    parameters  a JSON schema of an object, or None for a function without arguments
    text        it takes text instead of JSON: any text (True), or such as a grammar allows
    builtin     one of builtin.py, which the model was trained on
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    text: bool | Grammar = False
    builtin: bool = False

    @property
    def namespace(self) -> str | None:
        """None: functions"""
        return self.name.rpartition(".")[0] or None

    @property
    def recipient(self) -> str:
        """What stands behind `to=`."""
        return _recipient(self.name, self.builtin)

    @property
    def channel(self) -> Literal["analysis", "commentary"]:
        """On which its calls go, and their results come."""
        return "analysis" if self.builtin else "commentary"


@dataclass(frozen=True, slots=True)
class Call:
    """The model's call of a tool.

    name       as in `Tool`, likewise text and builtin
    arguments  as the model wrote them: usually, but not always, JSON; text where the tool takes text
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

    content    text; None for an assistant message that only calls
    reasoning  the chain of thought that led to an assistant message, if the client kept it
    calls      of an assistant message, in order
    call_id    of a tool message: which call it answers
    name       of a user message: who speaks; of a tool message without `call_id`: the function
    preamble   of an assistant message without calls: its content was said before an action, and is no answer
    sampled    of an assistant message: all that was sampled from its beginning on, also of the messages after
               it, from behind `<|start|>assistant`; empty if that is not known.  The prompt has these tokens
               where they still say what the messages say (replay.py)
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
        """Whether this is an answer.  With nothing but a chain of thought it was cut off before one."""
        return (
            self.role == "assistant"
            and not (self.calls or self.preamble)
            and bool(self.content or not self.reasoning)
        )


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """A schema the answer must follow, also told to the model at the end of the developer message."""

    name: str
    schema: dict[str, Any]
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that a prompt is made of.

    effort      how much to think; "none": not at all
    date        YYYY-MM-DD as the system message gives it; pinned when the server starts
    namespaces  what there is to say of a namespace of tools, by its name
    """

    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)
    effort: Effort = "medium"
    date: str = "2025-06-28"
    response_format: ResponseFormat | None = None
    namespaces: dict[str, str] = field(default_factory=dict)

    @property
    def prefilled(self) -> bool:
        """Whether the prompt goes straight into the final channel: no thinking wanted, nothing to call."""
        return self.effort == "none" and not self.tools
