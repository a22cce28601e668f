"""The command `gptoss` and its sub-commands.

A problem with a setting, a checkpoint or a port is one line on stderr, and an exit code other than 0:

    2   a flag, variable, checkpoint, device or port that cannot be used
    70  the engine died; a supervisor should restart the server

torch is imported only when it is needed, so that `gptoss --help` is quick.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import warnings
from contextlib import suppress
from dataclasses import fields
from typing import NoReturn

from engine.errors import EngineError
from gptoss.commands import (
    batch,
    bench,
    chat,
    doctor,
    download,
    generate,
    launch,
    other_servers,
    serve,
    verify,
)
from gptoss.standard_streams import discard_unwritable_output, open_closed_streams
from gptoss.start import StartError
from server import logs, settings_sources
from server.settings import Settings, SettingsError, flag
from server.version import VERSION

log = logging.getLogger("gptoss")

COMMANDS = (
    serve.COMMAND,
    generate.COMMAND,
    chat.COMMAND,
    batch.COMMAND,
    download.COMMAND,
    bench.COMMAND,
    doctor.COMMAND,
    verify.COMMAND,
    launch.COMMAND,
)

PROG = "gptoss"
NAMES = [command.name for command in COMMANDS]
THE_NAMES = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"


class Parser(argparse.ArgumentParser):
    """Prints errors on one line."""

    def error(self, message: str) -> NoReturn:
        if unknown := re.match(r"unrecognized arguments: (--?[^ =]+)", message):
            hint = other_servers.hint(unknown[1]) or settings_sources.did_you_mean(
                unknown[1], [flag(each) for each in fields(Settings)]
            )
            message = f"there is no {unknown[1]}; {hint or f'`{PROG} COMMAND --help` lists what there is'}"
        elif unknown := re.match(r"argument \{.*\}: invalid choice: '(.*?)'", message):
            hint = settings_sources.did_you_mean(unknown[1], NAMES)
            message = f"there is no command {unknown[1]}; {hint or f'there are {THE_NAMES}'}"
        elif message.startswith("the following arguments are required: {"):
            message = f"a command is missing: {THE_NAMES}; `{PROG} --help` describes them"
        self.exit(2, f"{PROG}: {message}\n")


def parser() -> Parser:
    top = Parser(prog=PROG, description="An OpenAI-compatible server for gpt-oss.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"{PROG} {VERSION}")
    words = top.add_subparsers(dest="command", required=True, metavar=f"{{{','.join(NAMES)}}}")
    for command in COMMANDS:
        word = words.add_parser(
            command.name, help=command.meaning, description=command.meaning, allow_abbrev=False
        )
        word.set_defaults(run=command.run)
        command.add_flags(word)
        if command.settings:
            settings_sources.add_flags(word, command.settings)
    return top


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and those after `--`, which are for the program that is launched."""
    if words[:1] != [launch.COMMAND.name] or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def main() -> NoReturn:
    open_closed_streams()
    try:
        _main()
    finally:
        discard_unwritable_output()


def _main() -> NoReturn:
    # torch warns about this when it is imported; nothing here needs NumPy.
    warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)
    words, further = _split(sys.argv[1:])
    asked = parser().parse_args(words)
    if further:
        asked.arguments += further
    if (named := getattr(asked, "named_model", None)) is not None:
        if asked.model is not None:
            _refuse(SettingsError(f"MODEL: {named!r} is named, and --model {asked.model!r} too"))
        asked.model = named
    try:
        settings = settings_sources.read(vars(asked), os.environ)
    except SettingsError as error:
        _refuse(error)
    logs.configure(settings.log_level, settings.log_format)
    for name in settings_sources.kubernetes_variables(os.environ):
        log.info("%s is ignored: it is not a setting, Kubernetes sets it for a Service of that name", name)
    try:
        sys.exit(asked.run(settings, asked))
    except (SettingsError, StartError, EngineError) as error:
        _refuse(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _refuse(error: Exception) -> NoReturn:
    message = logs.escaped(" ".join(str(error).split()))
    with suppress(OSError):
        print(f"{PROG}: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
