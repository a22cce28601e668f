"""Compares the speed of decoding and of prompts with llama.cpp and ik_llama.cpp.

The programs run alternately, each for a few seconds, because the memory's speed of a shared machine changes
within minutes.  The model has half of gpt-oss's experts, so that all programs have room in memory.  This does
not change the bytes that a token reads, because it uses four experts in any case.

To build the other programs, download their sources from PyPI (`pip download --no-deps --no-binary :all:
llama-cpp-python ik-llama-cpp-python`), unpack them in the current folder, and run:

    cmake -S llama_cpp_python-*/vendor/llama.cpp -B llama -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF \\
        && cmake --build llama --target llama-bench
    cd ik_llama_cpp_python-*/vendor/ik_llama.cpp/common && mkdir -p cmake
    touch cmake/build-info-gen-cpp.cmake && sed 's/@[A-Z_]*@/0/' build-info.cpp.in > build-info.cpp; cd -
    cmake -S ik_llama_cpp_python-*/vendor/ik_llama.cpp -B ik -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF \\
        -DGGML_IQK_FA_ALL_QUANTS=OFF && cmake --build ik --target llama-bench

If llama.cpp crashes in its AMX kernels (on a Granite Rapids there was a segmentation fault), add
-DCMAKE_CXX_FLAGS="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16" to its first command.

    python -m bench.peer --llama-bench llama/bin/llama-bench --ik-llama-bench ik/bin/llama-bench
    python -m bench.peer --ik-llama-bench ik/bin/llama-bench --only prompt_512 | tail -1 | jq .prompt_512

All programs compute prompts in steps of 512 tokens.  Ours is measured with activations of 16 and of 8 bits
(`--prompt-activations`), ik_llama.cpp with weights as they are and repacked at loading (-rtr 1).  The ratio
of a round compares another program's run with the mean of our runs before and after it.  ik_llama.cpp's
llama-bench cannot measure 512 tokens after 4,000 others, so this is the difference between 4,512 and 4,000
tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench import gguf
from model.backends.cpu import build
from model.backends.cpu.cpu_model import CpuModel
from model.device import describe
from model.loading.synthetic import GPT_OSS_20B, Synthetic
from model.speed import Load, time_steps

EXPERTS = 16
CONTEXT = 100
STEP = 512
"""Tokens of a prompt in one step: `--max-tokens-per-step` of the server, `-ub` of the other programs."""

DEPTH = 4000


@dataclass(frozen=True, slots=True)
class Peer:
    """A llama-bench, its arguments, and its argument for tokens before the measured ones."""

    name: str
    program: Path
    options: tuple[str, ...] = ()
    knows_depth: bool = True

    def run(self, file: Path, threads: int, *words: str) -> list[dict[str, Any]]:
        common = ["-m", str(file), "-t", str(threads), "-ub", str(STEP), "-fa", "1", "-r", "1", "-o", "json"]
        done = subprocess.run(
            [self.program, *common, *self.options, *words], capture_output=True, text=True, check=True
        )
        # ik_llama.cpp prints other lines before the array.
        results: list[dict[str, Any]] = json.loads(done.stdout[done.stdout.index("[\n") :])
        return results

    def decode(self, file: Path, threads: int, tokens: int) -> float:
        """Tokens per second, without the first one."""
        return float(self.run(file, threads, "-p", "0", "-n", str(tokens))[0]["avg_ts"])

    def prompt(self, file: Path, threads: int, length: int, depth: int) -> float:
        """Tokens per second of `length` prompt tokens after `depth` others.  Computes one token before, to
        warm up.
        """
        if depth and not self.knows_depth:
            lengths = f"{depth},{depth + length}"
            short, long = self.run(file, threads, "-n", "0", "-p", lengths, "-w", "0")
            return 1e9 * length / float(long["avg_ns"] - short["avg_ns"])
        words = ["-n", "0", "-p", str(length)]
        return float(self.run(file, threads, *words, *(("-d", str(depth)) if depth else ()))[0]["avg_ts"])


class Ours:
    """Our CPU backend, with weights and caches in memory."""

    def __init__(self, model: CpuModel):
        self.model = model
        self._loads: dict[tuple[int, int], Load] = {}

    def decode(self, tokens: int) -> float:
        return 1 / statistics.mean(time_steps(self._load(1, CONTEXT), rounds=tokens).seconds)

    def prompt(self, length: int, depth: int, bits: int) -> float:
        """Tokens per second of `length` prompt tokens after `depth` others.

        bits  of activations
        """
        self.model.shorten_prompts(bits)
        steps = [self._load(STEP, depth + first) for first in range(0, length, STEP)]
        return length / sum(time_steps(step, rounds=1).seconds[0] for step in steps)

    def _load(self, length: int, context: int) -> Load:
        key = (length, context)
        if key not in self._loads:
            self._loads[key] = Load(self.model, 1, length, context, prompt=length > 1)
        return self._loads[key]


MEASURES: dict[str, tuple[int, int] | None] = {
    "decode": None,
    "prompt_512": (512, 0),
    "prompt_2048": (2048, 0),
    "prompt_512_behind_4000": (512, DEPTH),
}
"""Name → number of measured prompt tokens, and of tokens before them."""


def main() -> int:
    asked = arguments()
    config = replace(GPT_OSS_20B, num_experts=EXPERTS, num_layers=asked.layers)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        file = Path(folder) / "peer.gguf"
        gguf.write(file, config)
        ours = Ours(build(Synthetic(config), torch.device("cpu"), threads=asked.threads, isa=asked.isa))
        results: dict[str, Any] = {
            "machine": describe(torch.device("cpu")),
            "isa": ours.model.isa,
            "threads": ours.model.threads,
            "layers": asked.layers,
        }
        for name in asked.only.split(","):
            results[name] = _measure(name, asked, ours, _peers(asked), file)
    print(json.dumps(results))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-bench", type=Path, help="path of llama.cpp's llama-bench")
    parser.add_argument("--ik-llama-bench", type=Path, help="path of ik_llama.cpp's llama-bench")
    parser.add_argument("--only", default=",".join(MEASURES), help="what to measure, separated by commas")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=16, help="tokens of each run of decoding")
    parser.add_argument(
        "--layers", type=int, default=24, help="number of layers; each needs 0.24 GB of memory twice"
    )
    parser.add_argument("--threads", type=int, help="threads of each program; default: one for each core")
    parser.add_argument("--isa", help="our instruction set; default: the best of this processor")
    parser.add_argument(
        "--folder", type=Path, help="folder for a temporary file of 7 GB; default: the system's"
    )
    asked = parser.parse_args()
    if not (asked.llama_bench or asked.ik_llama_bench):
        parser.error("there is no peer: give --llama-bench, --ik-llama-bench or both")
    unknown = set(asked.only.split(",")) - set(MEASURES)
    if unknown:
        parser.error(f"--only knows {', '.join(MEASURES)}, not {', '.join(sorted(unknown))}")
    return asked


def _peers(asked: argparse.Namespace) -> list[Peer]:
    peers = []
    if asked.llama_bench:
        peers.append(Peer("llama.cpp", asked.llama_bench))
    if asked.ik_llama_bench:
        peers.append(Peer("ik_llama.cpp", asked.ik_llama_bench, knows_depth=False))
        peers.append(Peer("ik_llama.cpp -rtr 1", asked.ik_llama_bench, ("-rtr", "1"), knows_depth=False))
    return peers


def _measure(
    name: str, asked: argparse.Namespace, ours: Ours, peers: list[Peer], file: Path
) -> dict[str, Any]:
    """All rounds of one measurement: tokens per second, and the ratio of each of our variants to each other
    program.
    """
    size = MEASURES[name]
    own: dict[str, Callable[[], float]]
    if size is None:
        own = {"ours": lambda: ours.decode(asked.tokens)}
    else:
        length, depth = size
        own = {
            "ours": lambda: ours.prompt(length, depth, 16),
            "ours, 8 bits": lambda: ours.prompt(length, depth, 8),
        }

    def of(peer: Peer) -> float:
        threads = ours.model.threads
        return peer.decode(file, threads, asked.tokens) if size is None else peer.prompt(file, threads, *size)

    speeds = {who: [run()] for who, run in own.items()} | {peer.name: [] for peer in peers}
    ratios: dict[str, list[float]] = {f"{who} : {peer.name}": [] for who in own for peer in peers}
    memory = []
    for number in range(asked.rounds):
        for peer in peers:
            speeds[peer.name].append(of(peer))
            for who, run in own.items():
                speeds[who].append(run())
                around = statistics.mean(speeds[who][-2:])
                ratios[f"{who} : {peer.name}"].append(around / speeds[peer.name][-1])
        memory.append(_memory(ours.model, number))
        turn = ", ".join(f"{who} {values[-1]:.2f}" for who, values in speeds.items())
        print(f"{name} {number + 1:3}: {turn} tokens/s; {memory[-1]:.1f} GB/s", flush=True)
    for who, values in ratios.items():
        low, middle, high = _quartiles(values)
        print(f"{name}, {who}: {middle:.2f} ({low:.2f} to {high:.2f})")
    return {
        "tokens_per_second": _summary(speeds, 2),
        "ratio": _summary(ratios, 3),
        "memory_gb_s": round(statistics.median(memory), 1),
    }


def _memory(model: CpuModel, turn: int) -> float:
    layer = model.weights.layers[turn % len(model.weights.layers)]
    return model.read_bandwidth(layer.mlp1.data) / 1e9


def _summary(of: dict[str, list[float]], digits: int) -> dict[str, list[float]]:
    """First quartile, median and third quartile of each list."""
    return {name: [round(value, digits) for value in _quartiles(values)] for name, values in of.items()}


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4) if len(values) > 1 else values * 3


if __name__ == "__main__":
    sys.exit(main())
