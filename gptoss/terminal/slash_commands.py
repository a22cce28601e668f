"""The commands of `gptoss chat`: /help, /reset, …

/effort high        a command and its argument
//etc/hosts         a question that begins with a slash
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gptoss.terminal.answers import EFFORTS, ChatError
from gptoss.terminal.session import Session
from server.setting_kinds import number
from server.settings_sources import nearest


class Quit(Exception):
    """The user ended the program."""


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """
    argument  as /help shows it; in square brackets if it is optional
    run       called with the session and the argument; may raise ChatError and Quit
    """

    name: str
    argument: str
    meaning: str
    run: Callable[[Session, str], None]


def run_slash_command(session: Session, line: str) -> None:
    """Run the command of a line that begins with a slash.  Raises ChatError and Quit."""
    name, _, rest = line.removeprefix("/").partition(" ")
    command = next((command for command in SLASH_COMMANDS if command.name == name), None)
    if command is None:
        raise ChatError(f"there is no /{name}; {nearest(name, [each.name for each in SLASH_COMMANDS])}")
    rest = rest.strip()
    if rest and not command.argument:
        raise ChatError(f"/{name} takes no argument")
    if not rest and command.argument and not command.argument.startswith("["):
        raise ChatError(f"/{name} needs an argument: /{name} {command.argument}")
    command.run(session, rest)


def _help(session: Session, rest: str) -> None:
    for command in SLASH_COMMANDS:
        session.screen.say(f"/{command.name} {command.argument}".ljust(24) + command.meaning)
    session.screen.say(
        "A line that ends with \\ continues on the next.  A question that begins with / is written with //.\n"
        "Ctrl-C stops an answer, Ctrl-D ends."
    )


def _reset(session: Session, rest: str) -> None:
    session.exchanges.clear()
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
        f"questions    {len(session.exchanges)}"
    )


def _undo(session: Session, rest: str) -> None:
    session.screen.note(f"forgotten: {session.undo().question}")


def _retry(session: Session, rest: str) -> None:
    exchange = session.undo()
    try:
        session.ask(exchange.question)
    except ChatError:
        session.exchanges.append(exchange)  # keep the old answer, because there is no new one
        raise


def _save(session: Session, rest: str) -> None:
    path = Path(rest).expanduser()
    session.save(path)
    session.screen.note(f"saved in {path}")


def _quit(session: Session, rest: str) -> None:
    raise Quit


SLASH_COMMANDS = (
    SlashCommand("help", "", "this list", _help),
    SlashCommand("reset", "", "forget the conversation; the system prompt stays", _reset),
    SlashCommand("undo", "", "forget the last question and its answer", _undo),
    SlashCommand("retry", "", "ask the last question again", _retry),
    SlashCommand("system", "[TEXT]", "set the system prompt; without a text: remove it", _system),
    SlashCommand("effort", "LEVEL", f"reasoning effort: {', '.join(EFFORTS)}", _effort),
    SlashCommand("reasoning", "on|off", "show the reasoning or not", _reasoning),
    SlashCommand("temperature", "X", "from 0 (the most likely answer) to 2", _temperature),
    SlashCommand("model", "[NAME]", "change the model; without a name: list the models", _model),
    SlashCommand("status", "", "the settings of the conversation", _status),
    SlashCommand("save", "FILE", "write the conversation as JSON, the body of a request", _save),
    SlashCommand("exit", "", "end; also Ctrl-D", _quit),
    SlashCommand("quit", "", "the same", _quit),
)
