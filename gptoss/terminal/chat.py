"""`gptoss chat`: lines in, answers out.

On a terminal lines are edited and remembered, Ctrl-C stops an answer, and whatever goes wrong with a question
is told before the next.  On a pipe each line is a question, and the first that fails ends the program.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

from gptoss.start import StartError
from gptoss.terminal.answers import Answerer, ChatError
from gptoss.terminal.screen import Screen
from gptoss.terminal.session import Session
from gptoss.terminal.slash_commands import SLASH_COMMANDS, Quit, run_slash_command
from server.settings import Settings

HISTORY_LINES = 1000
INTERRUPTED = 130


def chat(settings: Settings, asked: argparse.Namespace) -> int:
    """Talk until there are no more questions; the exit code.  Raises StartError."""
    screen = Screen(sys.stdout, sys.stderr, asked.reasoning)
    try:
        with closing(_answerer(settings, asked, screen)) as answerer:
            about = {"system": asked.system, "effort": asked.effort}
            about |= {"temperature": asked.temperature, "max_tokens": asked.max_tokens}
            session = Session(answerer, screen, **about)
            if sys.stdin.isatty() and sys.stdout.isatty():
                return _on_terminal(session)
            return _on_pipe(session)
    except ChatError as error:
        raise StartError(str(error)) from error


def _answerer(settings: Settings, asked: argparse.Namespace, screen: Screen) -> Answerer:
    if asked.url is not None:
        from gptoss.terminal.remote import Remote

        key = asked.key or os.environ.get("OPENAI_API_KEY")
        return Remote(asked.url, key, asked.model)

    from gptoss.terminal.local import Local

    local = Local(settings)
    screen.note(local.summary.splitlines()[0])
    return local


def process_line(session: Session, line: str) -> bool:
    """Answer a question or run a slash command.  Returns False if Ctrl-C stopped the answer.

    Raises ChatError and Quit.
    """
    if line.startswith("/") and not line.startswith("//"):
        run_slash_command(session, line)
        return True
    return session.ask(line.removeprefix("/"))


def _on_pipe(session: Session) -> int:
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    try:
        for line in sys.stdin:
            if line.strip() and not process_line(session, line.strip()):
                return INTERRUPTED
    except Quit:
        pass
    except BrokenPipeError:  # whoever read the answers has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _on_terminal(session: Session) -> int:
    session.screen.note(f"{session.answerer.name}; /help lists what can be said here")
    with _history(session):
        while True:
            try:
                if line := _line().strip():
                    process_line(session, line)
            except Quit:
                return 0
            except EOFError:
                session.screen.say("")  # so that the shell begins on a line of its own
                return 0
            except ChatError as error:
                session.screen.note(str(error))
            except KeyboardInterrupt:
                session.screen.end()
                session.screen.say("")
                session.screen.note("Ctrl-D or /exit ends")


def _line() -> str:
    """What was typed; lines that end with a backslash go on in the next.  Raises EOFError."""
    lines = [input("> ")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input(". "))
    return "\n".join(lines)


@contextmanager
def _history(session: Session) -> Iterator[None]:
    """Lines can be edited, those of earlier days be called back, and words be completed with Tab."""
    try:
        import readline
    except ImportError:
        session.screen.note("this Python has no readline: lines cannot be edited, and are not remembered")
        yield
        return
    path = _history_path()
    with suppress(OSError):  # there is none the first time
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    readline.set_completer_delims(" ")
    readline.set_completer(_complete)
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            readline.write_history_file(path)
        except OSError as error:
            session.screen.note(f"what you typed is not remembered: {path}: {error.strerror}")


def _history_path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "gptoss" / "chat_history"


def _complete(text: str, state: int) -> str | None:
    names = (f"/{command.name}" for command in SLASH_COMMANDS)
    fitting = [name for name in names if text and name.startswith(text)]
    return fitting[state] if state < len(fitting) else None
