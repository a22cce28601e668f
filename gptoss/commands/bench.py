"""`gptoss bench`: measures the speed of a model on this machine.  The work is in gptoss/bench.py."""

from __future__ import annotations

import argparse

from gptoss.commands import Command, checked
from gptoss.hub.offer_download import offer_download
from server.setting_kinds import number
from server.settings import Settings

SETTINGS = (
    "model",
    "device",
    "backend",
    "threads",
    "dense",
    "batch_invariant",
    "kv_cache_dtype",
    "log_level",
    "log_format",
)

SYNTHETIC = ("20b", "120b", "demo")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--synthetic",
        choices=SYNTHETIC,
        help="random weights with the sizes of this model, instead of --model",
    )
    parser.add_argument(
        "--load", action="store_true", help="measure only loading, compared with reading the files"
    )
    parser.add_argument(
        "--seconds",
        type=checked(number(0, 3600)),
        default=5.0,
        help="time for each measurement, in seconds (default: 5)",
    )
    parser.epilog = (
        "A prompt is computed in one step of 512 tokens, an answer one token at a time.  The memory limits "
        "the speed of an answer, so its speed is measured too.  The last line is one object of JSON."
    )


def run(settings: Settings, asked: argparse.Namespace) -> int:
    if asked.synthetic is None:
        offer_download(settings.model)

    from gptoss.bench import bench

    return bench(settings, asked)


COMMAND = Command("bench", "measure how fast a model is on this machine", run, SETTINGS, add_flags)
