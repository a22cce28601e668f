"""`gptoss generate PROMPT`: generates one answer on the terminal.  The work is in gptoss/generate.py."""

from __future__ import annotations

import argparse

from gptoss.commands import MODEL_SETTINGS, Command, checked
from gptoss.hub.offer_download import offer_download
from server.setting_kinds import number, whole_number
from server.settings import Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prompt", metavar="PROMPT", help="text to continue, or with --chat the message to answer"
    )
    parser.add_argument(
        "--chat", action="store_true", help="the prompt is a message to answer, not raw text to continue"
    )
    parser.add_argument(
        "--effort",
        choices=["none", "low", "medium", "high"],
        default="medium",
        help="reasoning effort (default: medium)",
    )
    parser.add_argument(
        "--temperature",
        type=checked(number(0, 2)),
        default=1.0,
        help="0: always the most likely token (default: 1)",
    )
    parser.add_argument(
        "--max-tokens",
        type=checked(whole_number(1)),
        default=512,
        help="maximum tokens of the answer (default: 512)",
    )
    parser.add_argument(
        "--seed",
        type=checked(whole_number(-(2**63))),
        help="the same seed gives the same answer (default: random)",
    )
    parser.add_argument("--debug", action="store_true", help="show each token as it is decoded")


def run(settings: Settings, asked: argparse.Namespace) -> int:
    offer_download(settings.model)

    from gptoss.generate import generate

    generate(settings, asked)
    return 0


COMMAND = Command("generate", "generate one answer on the terminal", run, MODEL_SETTINGS, add_flags)
