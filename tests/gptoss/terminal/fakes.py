"""An answerer that follows a script, and a screen that records its output."""

import io

from gptoss.terminal.answers import ChatError, Piece, PromptProgress
from gptoss.terminal.screen import Screen
from gptoss.terminal.session import Session


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Scripted:
    """Answers each question with the next of `answers`: text, reasoning (in brackets), progress, failures."""

    def __init__(self, *answers):
        self.name = "scripted"
        self.answers = list(answers)
        self.asked = []
        self.closed = 0

    def answer(self, question):
        self.asked.append(question)
        try:
            for part in self.answers.pop(0):
                if isinstance(part, BaseException):
                    raise part
                if isinstance(part, PromptProgress):
                    yield part
                else:
                    yield Piece("reasoning", part[1:-1]) if part.startswith("[") else Piece("content", part)
        finally:
            self.closed += 1

    def close(self):
        pass

    def models(self):
        return ["scripted", "other"]

    def choose(self, name):
        if name not in self.models():
            raise ChatError(f"there is no model {name!r}")
        self.name = name


def session(*answers, terminal=True, reasoning=None):
    out, notes = (Terminal() if terminal else io.StringIO()), io.StringIO()
    return Session(Scripted(*answers), Screen(out, notes, reasoning)), out, notes
