"""The conversation so far, its settings, and its next question."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from gptoss.terminal.answers import Answerer, ChatError, PromptProgress, Question
from gptoss.terminal.screen import Screen
from language.harmony.messages import Effort, Message


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer, which may be incomplete."""

    question: str
    answer: str


@dataclass(slots=True)
class Session:
    """system: the system prompt; empty if there is none."""

    answerer: Answerer
    screen: Screen
    system: str = ""
    effort: Effort | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    exchanges: list[Exchange] = field(default_factory=list)

    def ask(self, question: str) -> bool:
        """Show the answer while it is generated.  Returns False if Ctrl-C stopped it.  Raises ChatError.

        A partial answer stays in the conversation; a question without any answer does not.
        """
        texts: list[str] = []
        try:
            with closing(cast(Any, self.answerer.answer(self.to_answer(question)))) as pieces:
                for piece in pieces:
                    if isinstance(piece, PromptProgress):
                        self.screen.reading(piece)
                        continue
                    if piece.kind == "content":
                        texts.append(piece.text)
                    self.screen.show(piece)
            return True
        except KeyboardInterrupt:
            self.screen.end()
            self.screen.note("stopped")
            return False
        finally:
            self.screen.end()
            if texts:
                self.exchanges.append(Exchange(question, "".join(texts)))

    def to_answer(self, question: str | None = None) -> Question:
        """The conversation, with or without a new question."""
        messages = [Message("system", self.system)] if self.system else []
        for exchange in self.exchanges:
            messages += [Message("user", exchange.question), Message("assistant", exchange.answer)]
        if question is not None:
            messages.append(Message("user", question))
        return Question(messages, self.effort, self.temperature, self.max_tokens)

    def undo(self) -> Exchange:
        """Remove the last exchange.  Raises ChatError if there is none."""
        if not self.exchanges:
            raise ChatError("nothing has been asked yet")
        return self.exchanges.pop()

    def save(self, path: Path) -> None:
        """Write the conversation as JSON, the body of a request.  Raises ChatError if the file exists."""
        body: dict[str, Any] = {
            "model": self.answerer.name,
            "messages": [{"role": each.role, "content": each.content} for each in self.to_answer().messages],
        }
        if self.effort is not None:
            body["reasoning_effort"] = self.effort
        if self.temperature is not None:
            body["temperature"] = self.temperature
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(body, ensure_ascii=False, indent=2) + "\n")
        except FileExistsError:
            raise ChatError(f"{path} exists, and is not overwritten") from None
        except OSError as error:
            raise ChatError(f"{path} cannot be written: {error.strerror}") from None
