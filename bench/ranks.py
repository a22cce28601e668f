"""The cost of splitting a model over processes of one CPU: the time of a sum over the ranks, and of a token.

A token of a model with L layers needs 2 L + 1 sums over the ranks, and one gathering of logits.  N ranks with
one thread each use as many cores as one rank with N threads.  So the difference in time is that of the sums,
and of the work that every rank repeats (router, norms, the choice of experts).

    python -m bench.ranks --synthetic 20b --layers 4       # a table, and a line of JSON last
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from model.backends import cpu
from model.config import ModelConfig
from model.loading.part import Part
from model.loading.synthetic import SIZES, Synthetic
from model.parallel.ranks import ALONE, Ranks, connect
from model.speed import Load

CPU = torch.device("cpu")
CONTEXT = 100


@dataclass(frozen=True)
class Figures:
    """Times in milliseconds.

    sum_ms     of a sum of one row [C]: the median and the maximum of a hundred
    prompt_ms  of a sum of 512 rows
    token_ms   of one greedy token: median, minimum, maximum
    """

    ranks: int
    threads: int
    sum_ms: tuple[float, float]
    prompt_ms: float
    token_ms: tuple[float, float, float]


def measure(config: ModelConfig, ranks: Ranks, threads: int, steps: int) -> Figures:
    """The measurement; every rank calls this."""
    torch.set_num_threads(threads)
    source = Synthetic(config)
    model = cpu.build(source if ranks.size == 1 else Part(source, ranks), CPU, threads=threads, ranks=ranks)
    load = Load(model, 1, 1, CONTEXT)
    with torch.inference_mode():
        sums = _times(ranks, torch.ones(1, config.hidden_size), 100)
        long = _times(ranks, torch.ones(512, config.hidden_size), 10)
        tokens = []
        for step in range(steps + 2):
            batch = load.batch(step)
            began = time.perf_counter()
            model.forward(batch, load.cache)
            tokens.append(1e3 * (time.perf_counter() - began))
    tokens = tokens[2:]
    return Figures(
        ranks.size,
        threads,
        (statistics.median(sums), max(sums)),
        statistics.median(long),
        (statistics.median(tokens), min(tokens), max(tokens)),
    )


def _times(ranks: Ranks, x: torch.Tensor, count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        ranks.add_up(x)
        times.append(1e3 * (time.perf_counter() - began))
    return times


def together(words: list[str], config: ModelConfig, size: int, threads: int, steps: int) -> Figures:
    """The times of rank 0; starts the other ranks as processes."""
    if size == 1:
        return measure(config, ALONE, threads, steps)
    with tempfile.TemporaryDirectory() as folder:
        others = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.ranks", *words, "--rank", f"{rank}/{size}", folder]
            )
            for rank in range(1, size)
        ]
        try:
            return measure(config, connect(0, size, CPU, Path(folder) / "ranks", False), threads, steps)
        finally:
            for other in others:
                other.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--synthetic", choices=SIZES, default="20b")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rank", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    config = replace(SIZES[asked.synthetic], num_layers=asked.layers)
    if asked.rank is not None:
        rank, size = map(int, asked.rank[0].split("/"))
        measure(config, connect(rank, size, CPU, Path(asked.rank[1]) / "ranks", False), 1, asked.steps)
        return
    words = ["--synthetic", asked.synthetic, "--layers", str(asked.layers), "--steps", str(asked.steps)]
    cases = [(1, 1), (1, asked.ranks), (asked.ranks, 1)]
    all_figures = [together(words, config, size, threads, asked.steps) for size, threads in cases]
    print("ranks  threads each  a sum (worst), ms  of 512 rows, ms  a token (least, most), ms")
    for each in all_figures:
        a_sum, token = each.sum_ms, each.token_ms
        print(
            f"{each.ranks:5}  {each.threads:12}  {a_sum[0]:7.3f} ({a_sum[1]:7.3f})  {each.prompt_ms:15.2f}"
            f"  {token[0]:8.2f} ({token[1]:.2f}, {token[2]:.2f})"
        )
    print(json.dumps([asdict(each) for each in all_figures]))


if __name__ == "__main__":
    main()
