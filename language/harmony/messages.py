"""The nouns of a conversation, free of HTTP: what `render` reads."""

from __future__ import annotations

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
class Tool:
    """A function the model may call.

    parameters  a JSON schema of an object, or None for a function without arguments
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """The model's call of a function.

    arguments  as the model wrote them: usually, but not always, JSON
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the history.

    content    text; None for an assistant message that only calls
    reasoning  the chain of thought that led to an assistant message, if the client kept it
    calls      of an assistant message, in order
    call_id    of a tool message: which call it answers
    name       of a user message: who speaks; of a tool message without `call_id`: the function
    """

    role: Role
    content: str | None = None
    reasoning: str | None = None
    calls: tuple[Call, ...] = ()
    call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """A schema the answer must follow, also told to the model at the end of the developer message."""

    name: str
    schema: dict[str, Any]
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that a prompt is made of.

    effort  how much to think; "none": not at all
    date    YYYY-MM-DD as the system message gives it; pinned when the server starts
    """

    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)
    effort: Effort = "medium"
    date: str = "2025-06-28"
    response_format: ResponseFormat | None = None

    @property
    def prefilled(self) -> bool:
        """Whether the prompt goes straight into the final channel: no thinking wanted, nothing to call."""
        return self.effort == "none" and not self.tools
