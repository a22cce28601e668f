"""Answers of a model in this process, without a server: the main thread runs the engine's steps.

Ctrl-C must not interrupt a step, because the engine would be left in an inconsistent state.  During an answer
it is only recorded, and raised between two steps.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType

from engine.errors import EngineError
from engine.request import SamplingParams
from gptoss.llm import LLM
from gptoss.terminal.answers import CUT_OFF, ChatError, Piece, PromptProgress, Question
from language.harmony.messages import Conversation
from language.harmony.reader import CallDelta, CallStart, ContentDelta, Delta, ReasoningDelta
from server.dialogue.answer import AnswerReader
from server.dialogue.turn import Turn
from server.settings import Settings

LONG_PROMPT = 256
"""Tokens; for a longer prompt, which takes seconds on a CPU, the progress is shown at once."""


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self._pressed = False

    def note(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True

    def check(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed."""
        if self._pressed:
            raise KeyboardInterrupt


@contextmanager
def interrupts_noted() -> Iterator[Interrupt]:
    """Within the context, Ctrl-C is only recorded.  For the main thread."""
    interrupt = Interrupt()
    usual = signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, usual)


class Local:
    def __init__(self, settings: Settings):
        """Loads the model.  Raises StartError."""
        self._llm = LLM.of(settings)
        self.name, self.summary = self._llm.name, self._llm.assembled.summary

    def close(self) -> None:
        self._llm.close()

    def models(self) -> list[str]:
        return [self.name]

    def choose(self, name: str) -> None:
        if name != self.name:
            raise ChatError(f"only {self.name} is loaded; start `gptoss chat --model {name}` for the other")

    def answer(self, question: Question) -> Iterator[Piece | PromptProgress]:
        effort = question.effort or "medium"
        turn = Turn(
            Conversation(question.messages, effort=effort, date=self._llm.today()),
            max_tokens=question.max_tokens,
            sampling=SamplingParams(
                temperature=1.0 if question.temperature is None else question.temperature
            ),
        )
        reader = AnswerReader(turn, self._llm.renderer)
        with interrupts_noted() as interrupt, closing(self._llm.steps(turn)) as steps:
            try:
                if (tokens := len(self._llm.prompt_of(turn))) >= LONG_PROMPT:
                    yield PromptProgress(0, tokens)
                for arrived in steps:
                    yield from map(_piece, reader.feed(arrived))
                    if not arrived and (reading := self._llm.reading) is not None:
                        yield PromptProgress(*reading)
                    interrupt.check()
            except EngineError as error:
                raise ChatError(f"{error}; /reset starts a new conversation") from error
        if reader.finish == "length":
            yield CUT_OFF


def _piece(delta: Delta) -> Piece:
    """A call is shown as text, because nothing here can run it."""
    match delta:
        case ReasoningDelta(text):
            return Piece("reasoning", text)
        case ContentDelta(text) | CallDelta(_, text):
            return Piece("content", text)
        case CallStart(_, function):
            return Piece("content", f"{function} ")
