"""`gptoss chat`: reads lines, prints answers.

On a terminal, lines can be edited and are kept in a history, Ctrl-C stops an answer, and an error does not
end the program.  If standard input is not a terminal, each line is a question, and the first error ends the
program.
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
    """Answer questions until the input ends, and return the exit code.  Raises StartError."""
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
    except BrokenPipeError:  # the reader of the answers has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _on_terminal(session: Session) -> int:
    session.screen.note(f"{session.answerer.name}; /help lists the commands")
    with _history(session):
        while True:
            try:
                if line := _line().strip():
                    process_line(session, line)
            except Quit:
                return 0
            except EOFError:
                session.screen.say("")  # so that the shell's prompt begins on a new line
                return 0
            except ChatError as error:
                session.screen.note(str(error))
            except KeyboardInterrupt:
                session.screen.end()
                session.screen.say("")
                session.screen.note("Ctrl-D or /exit ends the program")


def _line() -> str:
    """A typed line; a backslash at its end continues it on the next.  Raises EOFError."""
    lines = [input("> ")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input(". "))
    return "\n".join(lines)


@contextmanager
def _history(session: Session) -> Iterator[None]:
    """Enable editing of lines, the history of earlier sessions, and completion with Tab."""
    try:
        import readline
    except ImportError:
        session.screen.note("this Python has no readline: lines cannot be edited, and there is no history")
        yield
        return
    path = _history_path()
    with suppress(OSError):  # the file does not exist the first time
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    readline.set_completer_delims(" ")
    readline.set_completer(_complete)
    readline.parse_and_bind("tab: complete")
    # Several pasted lines are one message: readline can, but Python switches that off.
    readline.parse_and_bind("set enable-bracketed-paste on")
    try:
        yield
    finally:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            readline.write_history_file(path)
        except OSError as error:
            session.screen.note(f"the history cannot be saved: {path}: {error.strerror}")


def _history_path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "gptoss" / "chat_history"


def _complete(text: str, state: int) -> str | None:
    names = (f"/{command.name}" for command in SLASH_COMMANDS)
    fitting = [name for name in names if text and name.startswith(text)]
    return fitting[state] if state < len(fitting) else None
