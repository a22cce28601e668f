"""`gptoss download [MODEL]`: a model from the Hugging Face hub.  The work is in gptoss/hub/download.py.

The folder is printed on stdout, everything else on stderr, so that a script can use it:

    gptoss serve --model "$(gptoss download openai/gpt-oss-20b)"
"""

from __future__ import annotations

import argparse
import sys

from gptoss.commands import Command
from server.settings import Settings

MODEL = "openai/gpt-oss-20b"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "repo", metavar="MODEL", nargs="?", default=MODEL, help=f"its name on the hub (default: {MODEL})"
    )
    parser.add_argument("--revision", default="main", help="a branch, tag or commit of it (default: main)")
    parser.epilog = (
        "It goes to the cache that all programs around the hub share, and is checked against the hub's "
        "checksums.  Interrupted, the same command goes on where it stopped.  HF_HOME moves the cache, "
        "HF_TOKEN opens private models, HF_ENDPOINT names another hub, HTTPS_PROXY a proxy; with "
        "HF_HUB_OFFLINE=1 only what is here is used."
    )


def run(settings: Settings, asked: argparse.Namespace) -> int:
    from gptoss.hub.download import download

    try:
        folder = download(asked.repo, asked.revision)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise
    name = asked.repo if asked.revision == "main" else str(folder)
    print(f"ready: gptoss serve --model {name}", file=sys.stderr)
    print(folder)
    return 0


COMMAND = Command("download", "fetch a model from the Hugging Face hub", run, add_flags=add_flags)
