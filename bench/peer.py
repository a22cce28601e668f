"""Decoding against llama.cpp: a few steps of one, then a few of the other, over and over.

On a shared machine the memory's speed changes within minutes, and a ratio of runs minutes apart tells as
much about that as about the programs.  Here both models stay in memory, and turns take seconds.  So that
both have room they get half of gpt-oss's experts: a token uses four of them however many there are, and
reads as many bytes.

    python -m bench.peer --llama-bench build/bin/llama-bench       # built from llama-cpp-python's source
    python -m bench.peer --llama-bench build/bin/llama-bench --rounds 20 | tail -1 | jq .ratio

A round's ratio is of its llama.cpp turn and the mean of our turns before and after it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from bench import gguf
from model.backends.cpu import build
from model.backends.cpu.model import CpuModel
from model.device import describe
from model.loading.synthetic import GPT_OSS_20B, Synthetic
from model.speed import Load, time_steps

EXPERTS = 16
CONTEXT = 100


def main() -> int:
    asked = arguments()
    config = replace(GPT_OSS_20B, num_experts=EXPERTS)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        file = Path(folder) / "peer.gguf"
        gguf.write(file, config)
        model = build(Synthetic(config), torch.device("cpu"), threads=asked.threads)
        load = Load(model, 1, 1, CONTEXT)
        ours, theirs, memory = [_ours(load, asked.tokens)], [], []
        for number in range(asked.rounds):
            theirs.append(_theirs(asked, file, model.threads))
            ours.append(_ours(load, asked.tokens))
            memory.append(model.read_bandwidth(model.weights.layers[number % 24].mlp1.data) / 1e9)
            print(
                f"{number + 1:3}: {ours[-1]:6.2f} against {theirs[-1]:6.2f}, {memory[-1]:5.1f} GB/s",
                flush=True,
            )
    ratios = [(a + b) / 2 / c for a, b, c in zip(ours[:-1], ours[1:], theirs, strict=True)]
    _report(model, ours, theirs, memory, ratios)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-bench", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=16, help="of one turn")
    parser.add_argument("--threads", type=int, help="of both; default: one for each core")
    parser.add_argument("--folder", type=Path, help="where there are 7 GB for a while; default: the system's")
    return parser.parse_args()


def _ours(load: Load, tokens: int) -> float:
    """Tokens per second, greedy."""
    return 1 / statistics.mean(time_steps(load, rounds=tokens).seconds)


def _theirs(asked: argparse.Namespace, file: Path, threads: int) -> float:
    """Tokens per second; llama-bench takes a step to warm up, as `time_steps` does."""
    words = ["-m", str(file), "-t", str(threads), "-p", "0", "-n", str(asked.tokens), "-r", "1", "-o", "json"]
    done = subprocess.run([asked.llama_bench, *words], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)[0]["avg_ts"])


def _report(
    model: CpuModel, ours: list[float], theirs: list[float], memory: list[float], ratios: list[float]
) -> None:
    low, middle, high = statistics.quantiles(ratios, n=4)
    result = {
        "machine": describe(torch.device("cpu")),
        "isa": model.isa,
        "threads": model.threads,
        "ours": round(statistics.median(ours), 2),
        "theirs": round(statistics.median(theirs), 2),
        "ratio": round(middle, 3),
        "ratio_quartiles": [round(low, 3), round(high, 3)],
        "ratios": [round(ratio, 2) for ratio in ratios],
        "memory_gb_s": round(statistics.median(memory), 1),
    }
    print(f"{result['ours']} against {result['theirs']} tokens/s: {middle:.2f}x ({low:.2f} to {high:.2f})")
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
