"""`gptoss download [MODEL]`: downloads a model from the hub.  The work is in gptoss/hub/download.py.

Prints the folder on stdout and everything else on stderr, so that a script can use it:

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
        "repo",
        metavar="MODEL",
        nargs="?",
        default=MODEL,
        help=f"name of the model on the hub (default: {MODEL})",
    )
    parser.add_argument("--revision", default="main", help="branch, tag or commit (default: main)")
    parser.epilog = (
        "The files are stored in the Hugging Face cache, which other programs share, and checked against "
        "the hub's checksums.  After an interruption, the same command resumes.  HF_HOME sets the folder of "
        "the cache, HF_TOKEN gives access to private models, HF_ENDPOINT sets another hub, HTTPS_PROXY a "
        "proxy; HF_HUB_OFFLINE=1 uses only downloaded files."
    )


def run(settings: Settings, asked: argparse.Namespace) -> int:
    from gptoss.hub.download import download

    try:
        folder = download(asked.repo, asked.revision)
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        raise
    name = asked.repo if asked.revision == "main" else str(folder)
    print(f"ready: gptoss serve --model {name}", file=sys.stderr)
    print(folder)
    return 0


COMMAND = Command("download", "download a model from the Hugging Face hub", run, add_flags=add_flags)
