"""The time to the first token of a long prompt after a restart, with its pages on disk
(`--prefix-cache-dir`).

The prompt is computed once, with random weights of the real shapes, and its pages are written to a folder.
Then new engines with an empty cache use this folder, as a restarted server does.  Measured is the time from
the request to the first token, with the files in the system's page cache and without.  It does not include
loading weights.  The tokens and their logits must be bit-identical.

    python -m bench.restart --synthetic 20b --experts 8 --dir FOLDER | tail -1 | jq .cached_seconds

With `--dir` the folder is kept.  The next run with it measures only restarts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.cpu import processor
from engine.admission import Limits
from engine.disk.cache import DiskCache
from engine.disk.files import PageFiles
from engine.disk.store import PageStore
from engine.engine import Engine
from engine.pages import Pages
from engine.request import Failure, Request, SamplingParams, Token
from engine.runner import Runner
from model.backends.cpu import build
from model.backends.cpu.cpu_model import CpuModel
from model.byte_sizes import format_bytes
from model.loading.synthetic import SIZES, Synthetic
from model.page_copies import PageCopies

ANSWER = 4
"""Tokens of the answers that are compared."""


def main() -> int:
    asked = arguments()
    torch.set_num_threads(1)
    config = SIZES[asked.synthetic]
    config = replace(
        config,
        num_layers=asked.layers or config.num_layers,
        num_experts=asked.experts or config.num_experts,
    )
    model = build(Synthetic(config), torch.device("cpu"))
    about = {"machine": processor(), "layers": config.num_layers, "experts": config.num_experts}
    for count in asked.tokens:
        prompt = [(1 + n) * 7919 % config.vocab_size for n in range(count)]
        print(f"{processor()}; {model.isa}; {format_bytes(model.weight_bytes)} of weights, {count} tokens")
        with TemporaryDirectory(prefix="gptoss-restart-") as temporary:
            folder = asked.dir / str(count) if asked.dir else Path(temporary)
            results = measure(model, prompt, folder, asked.rounds)
        print(json.dumps(results | about | {"tokens": count}), flush=True)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.restart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--synthetic", choices=SIZES, default="20b", help="random weights of this size")
    parser.add_argument("--layers", type=int, help="number of layers")
    parser.add_argument("--experts", type=int, help="number of experts of a layer; fewer need less memory")
    parser.add_argument(
        "--tokens",
        type=int,
        nargs="+",
        default=[7500],
        help="tokens of the prompt; several numbers: of several prompts (default: 7500)",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="folder for the pages (default: a temporary one)")
    return parser.parse_args()


def measure(model: CpuModel, prompt: list[int], folder: Path, rounds: int) -> dict[str, Any]:
    first, token_seconds, answer = answered(model, prompt, folder)
    size = sum(path.stat().st_size for path in folder.rglob("*"))
    print(f"{'the first time':>20}: {first:8.2f} s to the first token; {format_bytes(size)} on disk")
    times: dict[str, list[float]] = {"cached": [], "uncached": []}
    for kind in [*["cached"] * rounds, *["uncached"] * rounds]:
        if kind == "uncached":
            drop_from_page_cache(folder)
        seconds, _, again = answered(model, prompt, folder)
        if again != answer:
            raise SystemExit(f"{again} is not {answer}")
        times[kind].append(seconds)
    for kind, seconds_of_kind in times.items():
        told = ", ".join(f"{seconds:.2f}" for seconds in sorted(seconds_of_kind))
        print(f"{'from disk, ' + kind:>20}: {statistics.median(seconds_of_kind):8.2f} s ({told})")
    return {
        "first_seconds": round(first, 2),
        "decode_seconds": round(token_seconds, 3),
        "cached_seconds": round(statistics.median(times["cached"]), 3),
        "uncached_seconds": round(statistics.median(times["uncached"]), 3),
        "disk_mb": round(size / 1e6, 1),
    }


def answered(
    model: CpuModel, prompt: list[int], folder: Path
) -> tuple[float, float, list[tuple[int, float | None]]]:
    """Answer the prompt with a new engine.  Returns the seconds to the first token, the seconds of a later
    token, and the tokens with their logits.
    """
    page_size, window = model.page_size, model.config.sliding_window
    num_pages = Pages(0, page_size, window).needed(len(prompt) + 512 + ANSWER) + 2 * (512 // page_size)
    runner = Runner(model, num_pages)
    copies = PageCopies(runner.cache, model.device)
    files = PageFiles(folder, "bench")
    pages = Pages(num_pages, page_size, window, files.names_key)
    limits = Limits(num_pages, page_size, window, max_context=len(prompt) + ANSWER)
    engine = Engine(runner, limits, pages=pages, disk=DiskCache(PageStore(files, 2**40), copies, pages))
    began = time.perf_counter()
    engine.add(Request("prompt", prompt, ANSWER, sampling=SamplingParams(temperature=0.0, logprobs=0)))
    tokens: list[Token] = []
    times = [began]
    while engine.busy:
        for event in engine.step():
            assert not isinstance(event, Failure)
            tokens.append(event)
            times.append(time.perf_counter())
    engine.close()
    return (
        times[1] - began,
        statistics.median(after - before for before, after in pairwise(times[1:])),
        [(token.id, token.logprob.logprob if token.logprob else None) for token in tokens],
    )


def drop_from_page_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


if __name__ == "__main__":
    sys.exit(main())
