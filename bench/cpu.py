"""The speed of the CPU backend, compared with the speed of the memory, at the real sizes of gpt-oss.

A step of one token reads each weight that the token uses once, and its arithmetic is done during this time.
So the roofline is bytes divided by bandwidth.  The bandwidth is measured by reading one layer's experts with
all threads; model/speed.py measures steps and bandwidth in the same round.  `gptoss bench` is a shorter
version for any device.

    python -m bench.cpu --synthetic 20b                        # decode, batches, long context, prefill
    python -m bench.cpu --synthetic 20b --only decode --isa avx2
    python -m bench.cpu --model DIR --only load,decode         # from safetensors on disk
    python -m bench.cpu --synthetic 20b --layers 4 | tail -1 | jq .decode.share_of_bandwidth

The counted bytes of a step are the weights, keys and values that it reads; of the experts, only those that
the batch chose.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.admission import Limits
from engine.engine import Engine
from engine.request import Request, SamplingParams
from engine.runner import Runner
from model.backends.cpu import build
from model.backends.cpu.cpu_model import CpuModel
from model.device import describe
from model.loading.checkpoint import Checkpoint
from model.loading.synthetic import SIZES, Synthetic
from model.speed import Load, time_steps

Result = dict[str, Any]


def main() -> int:
    asked = arguments()
    torch.set_num_threads(1)  # two pools of threads must not compete for the same cores
    start = time.perf_counter()
    options = {"dense": asked.dense, "threads": asked.threads, "isa": asked.isa}
    model = build(checkpoint(asked), torch.device("cpu"), **options)
    load_seconds = time.perf_counter() - start
    results: Result = {
        "machine": processor(),
        "model": str(asked.model or asked.synthetic),
        "layers": model.config.num_layers,
        "dense": asked.dense,
        "isa": model.isa,
        "threads": model.threads,
        "weight_gb": round(model.weight_bytes / 1e9, 2),
    }
    print(f"{results['machine']}; {model.isa}, {model.threads} threads; {results['weight_gb']} GB of weights")
    if "load" in asked.only and asked.model:
        results["load"] = {"seconds": round(load_seconds, 1)}
        print(f"{'load':>12}: {load_seconds:.1f} s")
    for name, measure in MEASURES.items():
        if name in asked.only:
            results[name] = measure(model, asked.rounds)
            print(f"{name:>12}: " + ", ".join(f"{key} {value}" for key, value in results[name].items()))
    print(json.dumps(results))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--synthetic", choices=SIZES, help="random weights of this size, made in memory")
    source.add_argument("--model", type=Path, help="a folder of safetensors")
    parser.add_argument("--layers", type=int, help="with --synthetic: number of layers")
    parser.add_argument("--dense", default="int8", help="int8 (default) or bf16")
    parser.add_argument("--threads", type=int, help="default: one for each core")
    parser.add_argument("--isa", help="amx, avx512, avx2 or portable; default: the best of this processor")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--only", default=",".join(("load", *MEASURES)), help="what to measure, separated by commas"
    )
    asked = parser.parse_args()
    asked.only = asked.only.split(",")
    return asked


def checkpoint(asked: argparse.Namespace) -> Any:
    if asked.model:
        return Checkpoint.open(asked.model)
    config = SIZES[asked.synthetic]
    return Synthetic(replace(config, num_layers=asked.layers) if asked.layers else config)


def processor() -> str:
    name = describe(torch.device("cpu"))
    return f"{name}, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"


def steps(model: CpuModel, load: Load, rounds: int, bandwidth: bool = True) -> Result:
    """Time steps, and measure the memory's speed after each."""
    timing = time_steps(
        load,
        rounds=rounds,
        memory_speed=partial(read_speed, model) if bandwidth else None,
        needed=partial(step_bytes, model, load),
    )
    seconds, speeds = timing.seconds, timing.speeds
    result: Result = {
        "ms_median": round(1e3 * statistics.median(seconds), 2),
        "ms_best": round(1e3 * min(seconds), 2),
        "tokens_per_second": round(timing.tokens_per_second, 2),
        "tokens_per_second_best": round(timing.tokens / min(seconds), 2),
    }
    if bandwidth:
        result |= {
            "share_of_bandwidth": round(statistics.median(timing.shares), 3),
            "share_quartiles": [round(q, 3) for q in quartiles(timing.shares)],
            "bandwidth_gb_s": round(statistics.median(speeds) / 1e9, 1),
            "bandwidth_best_gb_s": round(max(speeds) / 1e9, 1),
        }
    return result


def quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4)
    return first, third


def read_speed(model: CpuModel, turn: int) -> float:
    """Bytes per second of reading the first matrices of a layer; each turn reads another layer."""
    layer = model.weights.layers[turn % len(model.weights.layers)]
    return model.read_bandwidth(layer.mlp1.data)


def step_bytes(model: CpuModel, load: Load) -> int:
    """Bytes of weights, keys and values that one step reads."""
    config, weights = model.config, model.weights
    dense = unembedding_bytes(model, load)
    for layer in weights.layers:
        dense += layer.qkv.data.nbytes + layer.out.data.nbytes + layer.gate.data.nbytes
    windows = (config.window(n) or load.seen for n in range(config.num_layers))
    keys = load.sequences * sum(min(window, load.seen) for window in windows)
    return dense + expert_bytes(model) + keys * 4 * config.num_kv_heads * config.head_dim


def unembedding_bytes(model: CpuModel, load: Load) -> int:
    """Bytes of the unembedding that a step reads: a greedy step, or one that needs all logits."""
    first, *others = model.weights.unembedding
    rescored = load.sequences * (model.greedy_bytes - first.data.nbytes)
    return first.data.nbytes + rescored + sum(half.data.nbytes for half in others if load.temperature > 0)


def expert_bytes(model: CpuModel) -> int:
    """Bytes of experts' weights that the last step read.  Each expert counts once, whatever number of tokens
    used it.
    """
    starts = model.scratch.starts  # of the last layer; about as many were chosen in each other layer
    active = int((starts[1:] > starts[:-1]).sum())
    every = sum(layer.mlp1.data.nbytes + layer.mlp2.data.nbytes for layer in model.weights.layers)
    return every // model.config.num_experts * active


def decode(sequences: int, context: int, temperature: float = 0.0) -> Callable[[CpuModel, int], Result]:
    def measure(model: CpuModel, rounds: int) -> Result:
        return steps(model, Load(model, sequences, 1, context, temperature), rounds)

    return measure


def prefill(length: int) -> Callable[[CpuModel, int], Result]:
    def measure(model: CpuModel, rounds: int) -> Result:
        load = Load(model, 1, length, 0)
        return steps(model, load, max(1, min(5, rounds)), bandwidth=False)

    return measure


def through_the_engine(model: CpuModel, rounds: int) -> Result:
    """The time of a token outside the kernels, in one greedy stream through the engine."""
    runner = Runner(model, num_pages=64)
    limits = Limits(64, model.page_size, model.config.sliding_window, max_context=1024)
    engine = Engine(runner, limits)
    greedy = SamplingParams(temperature=0.0)
    engine.add(Request("stream", list(range(100)), max_tokens=rounds + 3, sampling=greedy))
    outside = []
    while engine.busy:
        before = sum(model.program.seconds().values())
        start = time.perf_counter()
        engine.step()
        elapsed = time.perf_counter() - start
        outside.append(1e3 * (elapsed - (sum(model.program.seconds().values()) - before)))
    outside = outside[2:]  # without the steps of the prompt and of the first token
    return {
        "outside_kernels_ms_median": round(statistics.median(outside), 3),
        "outside_kernels_ms_best": round(min(outside), 3),
    }


MEASURES: dict[str, Callable[[CpuModel, int], Result]] = {
    "decode": decode(1, 100),
    "decode_whole": decode(1, 100, math.inf),
    "decode_8k": decode(1, 8000),
    "decode_4": decode(4, 100),
    "decode_16": decode(16, 100),
    "prefill_128": prefill(128),
    "prefill_512": prefill(512),
    "engine": through_the_engine,
}


if __name__ == "__main__":
    sys.exit(main())
