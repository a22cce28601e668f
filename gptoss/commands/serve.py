"""`gptoss serve`: starts the HTTP server.  The work is in gptoss/serve.py."""

from __future__ import annotations

import argparse

from gptoss.commands import EVERY_SETTING, Command
from gptoss.hub.offer_download import offer_download
from server.settings import Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "named_model",
        nargs="?",
        metavar="MODEL",
        help="the same as --model MODEL (default: the bundled demo)",
    )


def run(settings: Settings, asked: argparse.Namespace) -> int:
    offer_download(settings.model)

    from gptoss.serve import serve

    return serve(settings)


COMMAND = Command("serve", "start the HTTP server", run, EVERY_SETTING, add_flags)
