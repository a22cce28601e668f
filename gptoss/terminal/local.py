"""Answers of a model in this process, without a server: the engine is stepped in the main thread.

Ctrl-C must not strike in the middle of a step, which would leave the engine half changed.  While an answer is
computed it is only noted, and raised between two steps.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from types import FrameType

from engine.errors import EngineError
from engine.request import Failure, Finish, Request, SamplingParams
from gptoss.assembly import Assembled, assemble
from gptoss.terminal.answers import CUT_OFF, ChatError, Piece, Question
from language.harmony.messages import Conversation
from language.harmony.reader import CallDelta, CallStart, ContentDelta, Delta, Reader, ReasoningDelta
from language.harmony.render import Renderer
from server.settings import Settings


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self._pressed = False

    def note(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True

    def check(self) -> None:
        """Raises KeyboardInterrupt if it was."""
        if self._pressed:
            raise KeyboardInterrupt


@contextmanager
def interrupts_noted() -> Iterator[Interrupt]:
    """In the main thread: Ctrl-C does nothing by itself until the end."""
    interrupt = Interrupt()
    usual = signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, usual)


class Local:
    def __init__(self, settings: Settings):
        """Loads the model.  Raises StartError."""
        assembled: Assembled = assemble(settings)
        self.name = assembled.model_id
        self.summary = assembled.summary
        self._engine, self._tokenizer = assembled.engine, assembled.tokenizer
        self._max_context = assembled.max_context
        self._renderer = Renderer(assembled.tokenizer)
        self._date = settings.date
        self._asked = 0

    def models(self) -> list[str]:
        return [self.name]

    def choose(self, name: str) -> None:
        if name != self.name:
            raise ChatError(
                f"{self.name} is the one that was loaded; `gptoss chat --model {name}` loads that"
            )

    def answer(self, question: Question) -> Iterator[Piece]:
        effort = question.effort or "medium"
        day = self._date or date.today().isoformat()
        conversation = Conversation(question.messages, effort=effort, date=day)
        prompt = self._renderer.render(conversation)
        self._asked += 1
        request = Request(
            id=f"chat-{self._asked}",
            prompt=prompt,
            max_tokens=question.max_tokens or max(self._max_context - len(prompt), 1),
            stop_tokens=self._renderer.stop_tokens,
            sampling=SamplingParams(
                temperature=1.0 if question.temperature is None else question.temperature
            ),
        )
        reader = Reader(self._tokenizer, "final" if conversation.prefilled else None)
        with interrupts_noted() as interrupt:
            try:
                yield from self._run(request, reader, interrupt)
            except EngineError as error:
                raise ChatError(f"{error}; /reset starts a new conversation") from error
            finally:
                self._engine.cancel(request.id)

    def _run(self, request: Request, reader: Reader, interrupt: Interrupt) -> Iterator[Piece]:
        self._engine.add(request)
        finish: Finish | None = None
        while finish is None:
            for event in self._engine.step():
                if isinstance(event, Failure):
                    raise event.error
                finish = event.finish
                yield from map(_piece, reader.feed(event.id))
            interrupt.check()
        yield from map(_piece, reader.finish())
        if finish is Finish.LENGTH:
            yield CUT_OFF


def _piece(delta: Delta) -> Piece:
    """A call is shown as text: nobody here could carry it out."""
    match delta:
        case ReasoningDelta(text):
            return Piece("reasoning", text)
        case ContentDelta(text) | CallDelta(_, text):
            return Piece("content", text)
        case CallStart(_, function):
            return Piece("content", f"{function} ")
