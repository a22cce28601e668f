"""Who answers, as seen by a conversation: what it is asked, and the pieces of text that it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from language.harmony.messages import Effort, Message

EFFORTS: tuple[Effort, ...] = ("none", "low", "medium", "high")


class ChatError(Exception):
    """Why there is no answer: one line for the person at the keyboard."""


@dataclass(frozen=True, slots=True)
class Question:
    """All that an answer depends on.  None: whoever answers has a default.

    messages  the conversation, the system prompt first, the question last
    """

    messages: list[Message]
    effort: Effort | None = None
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of an answer; a `note` is about it, and none of its text."""

    kind: Literal["reasoning", "content", "note"]
    text: str


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """How much of the prompt has been computed, in tokens; comes before the answer, if that takes a while."""

    computed: int
    tokens: int


CUT_OFF = Piece("note", "cut off: the answer reached its limit of tokens")


class Answerer(Protocol):
    """name: of the model that answers."""

    name: str

    def answer(self, question: Question) -> Iterator[Piece | PromptProgress]:
        """The answer as it comes.  Closing the iterator stops it.  Raises ChatError."""

    def models(self) -> list[str]:
        """The names that `choose` takes.  Raises ChatError."""

    def choose(self, name: str) -> None:
        """Let another model answer from now on.  Raises ChatError."""

    def close(self) -> None:
        """There are no more questions."""
