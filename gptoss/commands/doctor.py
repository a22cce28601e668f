"""`gptoss doctor`: would it serve here, and if not, what to do.  The work is in gptoss/doctor/."""

from __future__ import annotations

import argparse

from gptoss.commands import EVERY_SETTING, Command
from server.settings import Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one object of JSON instead of lines")
    parser.add_argument(
        "--full", action="store_true", help="load the model whatever its size, and compute a token"
    )
    parser.epilog = (
        "Give it the settings that `gptoss serve` will be given.  The exit code is 0 only if it would serve."
    )


def run(settings: Settings, asked: argparse.Namespace) -> int:
    from gptoss.doctor import doctor

    return doctor(settings, asked)


COMMAND = Command("doctor", "find out whether it would serve here", run, EVERY_SETTING, add_flags)
