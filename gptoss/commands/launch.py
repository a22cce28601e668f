"""`gptoss launch AGENT`: starts a coding agent with this server.  The work is in gptoss/launch/."""

from __future__ import annotations

import argparse
from dataclasses import fields

from gptoss.commands import EVERY_SETTING, Command
from server.settings import Settings, flag

NAMES = ("codex", "claude", "opencode", "pi")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", choices=NAMES, metavar="AGENT", help=f"one of {', '.join(NAMES)}")
    parser.add_argument(
        "arguments", nargs="*", metavar="ARGUMENT", help="arguments for the agent; write its flags after --"
    )
    parser.add_argument("--url", help="use this running server (default: start one, and stop it afterwards)")
    parser.add_argument("--key", help="API key of the server (default: none)")
    parser.add_argument("--print", action="store_true", help="only print what would be done")
    parser.epilog = (
        "The agent is configured with environment variables and with files in a separate folder; your own "
        "configuration is not changed.  The command exits with the agent's exit code."
    )


def run(settings: Settings, asked: argparse.Namespace) -> int:
    if asked.url is None and not asked.print:
        from gptoss.hub.offer_download import offer_download

        offer_download(settings.model)

    from gptoss.launch import launch

    return launch(settings, asked, _flags_of(asked))


def _flags_of(asked: argparse.Namespace) -> list[str]:
    """The settings that were given as flags, as flags for the server's process."""
    flags = []
    if asked.config is not None:
        flags += ["--config", asked.config]
    for each in fields(Settings):
        given = getattr(asked, each.name, None)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and each.name != "port":
                flags += [flag(each), value]
    return flags


COMMAND = Command("launch", "start a coding agent with this server", run, EVERY_SETTING, add_flags)
