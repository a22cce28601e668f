"""What can be said to `gptoss chat` itself: /help, /reset, …

/effort high        a word, and what follows it
//etc/hosts         a question that begins with a slash
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gptoss.terminal.answers import EFFORTS, ChatError
from gptoss.terminal.session import Session
from server.settings import nearest
from server.values import number


class Leave(Exception):
    """The conversation is over."""


@dataclass(frozen=True, slots=True)
class Word:
    """
    takes  what follows the word, for /help; square brackets if it may be left out
    does   with the session and what followed the word; may raise ChatError and Leave
    """

    name: str
    takes: str
    meaning: str
    does: Callable[[Session, str], None]


def obey(session: Session, line: str) -> None:
    """Do what a line that begins with a slash says.  Raises ChatError and Leave."""
    name, _, rest = line.removeprefix("/").partition(" ")
    word = next((word for word in WORDS if word.name == name), None)
    if word is None:
        raise ChatError(f"there is no /{name}; {nearest(name, [word.name for word in WORDS])}")
    rest = rest.strip()
    if rest and not word.takes:
        raise ChatError(f"/{name} stands alone")
    if not rest and word.takes and not word.takes.startswith("["):
        raise ChatError(f"/{name} needs more: /{name} {word.takes}")
    word.does(session, rest)


def _help(session: Session, rest: str) -> None:
    for word in WORDS:
        session.screen.say(f"/{word.name} {word.takes}".ljust(24) + word.meaning)
    session.screen.say(
        "A line that ends with \\ goes on in the next.  // begins a question that begins with /.\n"
        "Ctrl-C stops an answer, Ctrl-D ends."
    )


def _reset(session: Session, rest: str) -> None:
    session.turns.clear()
    session.screen.note("a new conversation")


def _system(session: Session, rest: str) -> None:
    session.system = rest
    session.screen.note("the system prompt is set" if rest else "there is no system prompt now")


def _effort(session: Session, rest: str) -> None:
    effort = next((effort for effort in EFFORTS if effort == rest), None)
    if effort is None:
        raise ChatError(f"/effort is one of {', '.join(EFFORTS)}")
    session.effort = effort
    session.screen.note(f"reasoning effort: {effort}")


def _reasoning(session: Session, rest: str) -> None:
    if rest not in ("on", "off"):
        raise ChatError("/reasoning is on or off")
    session.screen.reasoning = rest == "on"
    session.screen.note(f"reasoning is {'shown' if rest == 'on' else 'not shown'}")


def _temperature(session: Session, rest: str) -> None:
    try:
        session.temperature = number(0, 2)(rest)
    except ValueError as error:
        raise ChatError(f"/temperature is {error}") from None
    session.screen.note(f"temperature: {session.temperature:g}")


def _model(session: Session, rest: str) -> None:
    if rest:
        session.answerer.choose(rest)
        session.screen.note(f"{session.answerer.name} answers")
        return
    for name in session.answerer.models():
        session.screen.say(f"{'*' if name == session.answerer.name else ' '} {name}")


def _status(session: Session, rest: str) -> None:
    temperature = "default" if session.temperature is None else f"{session.temperature:g}"
    session.screen.say(
        f"model        {session.answerer.name}\n"
        f"system       {session.system or 'none'}\n"
        f"effort       {session.effort or 'default'}\n"
        f"temperature  {temperature}\n"
        f"questions    {len(session.turns)}"
    )


def _undo(session: Session, rest: str) -> None:
    session.screen.note(f"forgotten: {session.undo().question}")


def _retry(session: Session, rest: str) -> None:
    turn = session.undo()
    try:
        session.ask(turn.question)
    except ChatError:
        session.turns.append(turn)  # the answer that there was is better than none
        raise


def _save(session: Session, rest: str) -> None:
    path = Path(rest).expanduser()
    session.save(path)
    session.screen.note(f"saved in {path}")


def _leave(session: Session, rest: str) -> None:
    raise Leave


WORDS = (
    Word("help", "", "this list", _help),
    Word("reset", "", "forget the conversation; the system prompt stays", _reset),
    Word("undo", "", "forget the last question and its answer", _undo),
    Word("retry", "", "ask the last question again", _retry),
    Word("system", "[TEXT]", "set the system prompt; without a text there is none", _system),
    Word("effort", "LEVEL", f"how much to think: {', '.join(EFFORTS)}", _effort),
    Word("reasoning", "on|off", "whether the reasoning is shown", _reasoning),
    Word("temperature", "X", "0: the likeliest answer, to 2", _temperature),
    Word("model", "[NAME]", "let another model answer; without a name: which there are", _model),
    Word("status", "", "how questions are asked", _status),
    Word("save", "FILE", "write the conversation as JSON, the body of a request", _save),
    Word("exit", "", "end; also Ctrl-D", _leave),
    Word("quit", "", "the same", _leave),
)
