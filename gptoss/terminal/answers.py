"""The interface of everything that can answer: questions, and the pieces of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from language.harmony.messages import Effort, Message

EFFORTS: tuple[Effort, ...] = ("none", "low", "medium", "high")


class ChatError(Exception):
    """Why there is no answer: one line for the user."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the settings for its answer.  None: the default of the model.

    messages  the conversation, with the system prompt first and the question last
    """

    messages: list[Message]
    effort: Effort | None = None
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer.  A `note` is a remark about it."""

    kind: Literal["reasoning", "content", "note"]
    text: str


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """Computed and total tokens of the prompt; comes before the answer if the prompt takes a while."""

    computed: int
    tokens: int


CUT_OFF = Piece("note", "the answer reached its limit of tokens")


class Answerer(Protocol):
    """name: of the model."""

    name: str

    def answer(self, question: Question) -> Iterator[Piece | PromptProgress]:
        """The pieces of the answer.  Closing the iterator stops it.  Raises ChatError."""

    def models(self) -> list[str]:
        """The names of the available models.  Raises ChatError."""

    def choose(self, name: str) -> None:
        """Change the model.  Raises ChatError."""

    def close(self) -> None:
        """Free everything.  No more questions follow."""
