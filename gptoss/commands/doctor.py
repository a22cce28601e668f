"""`gptoss doctor`: checks whether the server would work here.  The work is in gptoss/doctor/."""

from __future__ import annotations

import argparse

from gptoss.commands import EVERY_SETTING, Command
from server.settings import Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one object of JSON instead of lines")
    parser.add_argument("--full", action="store_true", help="load also a large model, and compute a token")
    parser.epilog = (
        "Give it the same settings as `gptoss serve`.  The exit code is 0 only if the server would work."
    )


def run(settings: Settings, asked: argparse.Namespace) -> int:
    from gptoss.doctor import doctor

    return doctor(settings, asked)


COMMAND = Command("doctor", "check whether the server would work here", run, EVERY_SETTING, add_flags)
