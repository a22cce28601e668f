"""The command `gptoss`: serve, generate, --version.

What is wrong with a setting, a checkpoint or a port is one line on stderr, and an exit code other than 0:

    2   a flag, a variable, a checkpoint, a device or a port that cannot be used
    70  the engine died; whoever supervises the server should start it again

Torch is imported only once it is known what to do: `gptoss --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NoReturn

from server import logs
from server import settings as knobs
from server.settings import SettingsError, number, whole_number

GENERATE_SETTINGS = (
    "model",
    "device",
    "backend",
    "threads",
    "dense",
    "max_context",
    "kv_cache_memory",
    "kv_cache_fraction",
    "max_tokens_per_step",
    "date",
    "log_level",
    "log_format",
)
"""Those of Settings that mean something without a server."""

PROG = "gptoss"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROG}: {message}\n")


def parser() -> Parser:
    top = Parser(prog=PROG, description="An OpenAI-compatible server for gpt-oss.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"{PROG} {version('gptoss')}")
    commands = top.add_subparsers(dest="command", required=True, metavar="{serve,generate}")
    serve = commands.add_parser("serve", help="answer over HTTP", allow_abbrev=False)
    knobs.add_flags(serve)
    generate = commands.add_parser("generate", help="one answer on the terminal", allow_abbrev=False)
    _add_generate_flags(generate)
    knobs.add_flags(generate, GENERATE_SETTINGS)
    return top


def _add_generate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what to continue, or with --chat to answer")
    parser.add_argument("--chat", action="store_true", help="ask it as a user, in harmony")
    parser.add_argument(
        "--effort", choices=["none", "low", "medium", "high"], default="medium", help="how much to think"
    )
    parser.add_argument(
        "--temperature", type=_checked(number(0, 2)), default=1.0, help="0: the likeliest (default: 1)"
    )
    parser.add_argument(
        "--max-tokens", type=_checked(whole_number(1)), default=512, help="of the answer (default: 512)"
    )
    parser.add_argument(
        "--seed", type=_checked(whole_number(-(2**63))), help="same seed, same answer (default: drawn)"
    )
    parser.add_argument("--debug", action="store_true", help="show each token as it is decoded")


def _checked(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`read` for argparse, which shows the message of this exception only."""

    def value(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"must be {error}") from None

    return value


def main() -> NoReturn:
    asked = parser().parse_args()
    try:
        settings = knobs.read(vars(asked), os.environ)
    except SettingsError as error:
        _refuse(error)
    logs.configure(settings.log_level, settings.log_format)

    from engine.errors import EngineError
    from server.assembly import StartError

    try:
        if asked.command == "generate":
            from server.generate import generate

            generate(settings, asked)
            sys.exit(0)
        from server.serve import serve

        sys.exit(serve(settings))
    except (SettingsError, StartError, EngineError) as error:
        _refuse(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _refuse(error: Exception) -> NoReturn:
    message = " ".join(str(error).split())
    print(f"{PROG}: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
