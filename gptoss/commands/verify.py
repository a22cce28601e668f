"""`gptoss verify`: checks the results of real weights.  The work is in gptoss/verify/."""

from __future__ import annotations

import argparse

from gptoss.commands import MODEL_SETTINGS, Command
from gptoss.hub.offer_download import offer_download
from server.settings import Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="fewer turns and no checksums of the weights")
    parser.add_argument(
        "--text",
        metavar="FILE",
        help="compute the perplexity of this text, such as wikitext-2's raw test split",
    )
    parser.epilog = (
        "Compares the results with those published for openai/gpt-oss-20b and -120b.  Takes ten minutes on a "
        "GPU, an hour on a CPU.  The last line is one object of JSON; the exit code is 0 if nothing is wrong."
    )


def run(settings: Settings, asked: argparse.Namespace) -> int:
    offer_download(settings.model)

    from gptoss.verify import verify

    return verify(settings, asked)


COMMAND = Command(
    "verify", "compare results with those published for the weights", run, MODEL_SETTINGS, add_flags
)
