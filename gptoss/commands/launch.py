"""`gptoss launch AGENT`: a coding agent on this server.  The work is in gptoss/launch/."""

from __future__ import annotations

import argparse
from dataclasses import fields

from gptoss.commands import EVERY_SETTING, Command
from server.settings import Settings, flag

NAMES = ("codex", "claude", "opencode", "pi")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", choices=NAMES, metavar="AGENT", help=f"one of {', '.join(NAMES)}")
    parser.add_argument(
        "arguments", nargs="*", metavar="ARGUMENT", help="for the agent; flags of its own after --"
    )
    parser.add_argument("--url", help="a server that runs already (default: one is started, and ended after)")
    parser.add_argument("--key", help="the key that the server asks for (default: none)")
    parser.add_argument("--print", action="store_true", help="say what would be done, and do nothing")
    parser.epilog = (
        "The agent is told of the server by variables and by files in a folder of ours; its own configuration"
        " is left alone.  Its exit code is that of this command."
    )


def run(settings: Settings, asked: argparse.Namespace) -> int:
    if asked.url is None and not asked.print:
        from gptoss.hub.offer_download import offer_download

        offer_download(settings.model)

    from gptoss.launch import launch

    return launch(settings, asked, _flags_of(asked))


def _flags_of(asked: argparse.Namespace) -> list[str]:
    """The settings that were given as flags, as flags again: the server is another process."""
    flags = []
    if asked.config is not None:
        flags += ["--config", asked.config]
    for each in fields(Settings):
        given = getattr(asked, each.name, None)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and each.name != "port":
                flags += [flag(each), value]
    return flags


COMMAND = Command("launch", "start a coding agent on this server", run, EVERY_SETTING, add_flags)
