"""The speed of the Triton backend, compared with the speed of the GPU's memory, at the real sizes of gpt-oss.

First, as when a model is built, every kernel is compared with plain PyTorch, and it is measured whether
kernels should overlap (dependent_launch.py).  The other parts measure: the copy bandwidth; each kernel by
itself; decode steps through graphs; the kernels of these steps, as the driver traces them; steps of the
engine, with and without overlap; prefill; loading; and, for comparison, plain PyTorch and transformers.  If a
part fails, the others still run.  bench/fifteen.sh runs each part in a process of its own.

    python -m bench.gpu                                  # 20b, random weights made on the GPU
    python -m bench.gpu --only check,copy,kernels        # parts of it
    python -m bench.gpu --only tune                      # other tiles for the most important kernels
    python -m bench.gpu --dense int8 --kv-cache-dtype fp8     # with these settings of the server
    python -m bench.gpu --size 20b --layers 4 | tail -1 | jq .decode

A share is the time in which the bytes could be copied, at the bandwidth of the same run, divided by the
measured time.  The bytes are those of weights, and of visible keys and values, each counted once; of the
experts, only those that the batch chose.  Times are medians.  Kernels run with the weights of one layer after
the other, so that no weight is in a cache already.  Needs only torch and Triton.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import triton

from bench.gpu import engine as gpu_engine
from bench.gpu import floor as gpu_floor
from bench.gpu import kernels as gpu_kernels
from bench.gpu import profile as gpu_profile
from bench.gpu import rehearsal
from bench.gpu import weights as gpu_weights
from bench.gpu.load import Decode, Prefill, Random
from bench.synthetic import SIZES
from model.backends.triton import graphs, overlap, triton_checks
from model.backends.triton.kernels import dependent_launch
from model.backends.triton.triton_model import KV_CACHES, TritonModel
from model.backends.triton.weights import DENSE_FORMATS, Reader
from model.batch import bytes_of
from model.byte_sizes import format_bytes

Result = dict[str, Any]

DECODES = (
    (1, 1024),
    (1, 8192),
    (1, 131000),
    (2, 1024),
    (4, 1024),
    (8, 1024),
    (8, 8192),
    (16, 1024),
    (64, 1024),
    (256, 1024),
)
PREFILLS = (14, 128, 1024, 2048, 8192)


@torch.inference_mode()
def main() -> int:
    asked = arguments()
    if asked.rehearse:
        rehearsal.begin()
    elif not torch.cuda.is_available():
        print(
            "bench.gpu: there is no GPU that torch can use; python -m bench.gpu.compile needs none",
            file=sys.stderr,
        )
        return 2
    start = time.perf_counter()
    options = {"kv_cache_dtype": asked.kv_cache_dtype, "batch_invariant": asked.batch_invariant}
    results: Result = {"machine": machine(), "size": asked.size, "commit": asked.commit}
    results["options"] = {"dense": asked.dense, **options}
    print(", ".join(f"{key} {value}" for key, value in results["machine"].items()))
    model = made(asked, options)
    print(
        f"{format_bytes(model.weight_bytes)} of weights after {time.perf_counter() - start:.1f} s", flush=True
    )
    failed = False
    for name, part in PARTS.items():
        if name in asked.only:
            failed |= not run(name, part, model, results, asked.rehearse)
            results["seconds"] = round(time.perf_counter() - start, 1)
            if asked.results is not None:
                asked.results.write_text(json.dumps(results))
    print(json.dumps(results))
    return 1 if failed else 0


def made(asked: argparse.Namespace, options: dict[str, Any]) -> TritonModel:
    config = rehearsal.CONFIG if asked.rehearse else SIZES[asked.size]
    if asked.layers:
        config = replace(config, num_layers=asked.layers)
    device = torch.device("cpu") if asked.rehearse else torch.device("cuda", 0)
    dtype = torch.float32 if asked.rehearse else torch.bfloat16  # the interpreter cannot multiply bfloat16
    weights = Reader(Random(config, device.type), device, dtype, asked.dense).all()
    return TritonModel(config, weights, **options)


def run(
    name: str, part: Callable[[TritonModel, Result], Any], model: TritonModel, results: Result, rehearse: bool
) -> bool:
    """Run one part, and put its result into `results`.  Returns whether it succeeded."""
    began = time.perf_counter()
    try:
        if rehearse:
            rehearsal.planted(name)
        results[name] = part(model, results)
    except Exception as error:  # any exception of a kernel or a driver: the other parts should still run
        traceback.print_exc(file=sys.stdout)
        results[name] = {"error": " ".join(str(error).split())[:300] or repr(error)}
    print(f"-- {name}: {time.perf_counter() - began:.1f} s", flush=True)
    gc.collect()
    with suppress(RuntimeError):  # after an error of the device, all calls fail
        torch.cuda.empty_cache()
    told = results[name]
    return not (isinstance(told, dict) and ("error" in told or told.get("passed") is False))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="20b")
    parser.add_argument("--layers", type=int, help="number of layers")
    parser.add_argument(
        "--dense", choices=DENSE_FORMATS, default="bf16", help="the same as the server's flag"
    )
    parser.add_argument(
        "--kv-cache-dtype", choices=KV_CACHES, default="bf16", help="the same as the server's flag"
    )
    parser.add_argument(
        "--batch-invariant", action="store_true", help="the same as the server's flag, switched on"
    )
    parser.add_argument(
        "--only",
        default=",".join(name for name in PARTS if name != "tune"),
        help="parts to run, separated by commas",
    )
    parser.add_argument("--results", type=Path, help="file for the results, rewritten after each part")
    parser.add_argument(
        "--rehearse", action="store_true", help="use no GPU, but a tiny model in Triton's interpreter"
    )
    parser.add_argument("--commit", help="commit to name in the results")
    asked = parser.parse_args()
    asked.only = asked.only.split(",")
    if unknown := set(asked.only) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return asked


def machine() -> Result:
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def rehearsed(model: TritonModel) -> bool:
    return model.device.type == "cpu"


# The parts: each prints a table and returns its results.


def check(model: TritonModel, _: Result) -> Result:
    """Compares each kernel with plain PyTorch, graphs with the same pass without a graph, and chunks of a
    prompt with the whole prompt.
    """
    worst: dict[str, float] = {}
    wrong = []
    for found in triton_checks.checks(model, triton_checks.TOKENS, seed=int(time.time())):
        worst[found.name] = max(worst.get(found.name, 0.0), found.error)
        if not found.passed:
            wrong.append(f"{found.name} of {found.tokens} tokens: {found.error:.3g}")
    for name, error in worst.items():
        print(f"{name:32} {error:.2e}")
    for rows in (1,) if rehearsed(model) else (1, 3, 8, 20, 64):
        load = Decode(model, rows, 20 if rehearsed(model) else 300)
        got = model.forward(load.batch(0), load.cache).clone()
        padded = graphs.blank(graphs.size_for(rows), 64, model.device)
        graphs.stage(load.batch(0), padded)
        want = model.network(padded, load.cache)[:rows]
        # The kernels are the same, so the results are bit-identical, unless the library uses another kernel
        # inside the graph.  Then rounding may choose another expert for a row, which changes much if weights
        # are random.
        error = float(((got - want).norm(dim=1) / want.norm(dim=1)).median())
        worst[f"graph of {rows}"] = error
        print(f"{f'graph of {rows} against none':32} {error:.2e}")
        if not error <= (0 if rows <= 16 else 0.05):
            wrong.append(f"graph of {rows}: {error:.3g}")
        load.close()
    for line in wrong:
        print(f"WRONG: {line}")
    return {"passed": not wrong, "wrong": wrong, "errors": {k: float(f"{v:.3g}") for k, v in worst.items()}}


def overlapping(model: TritonModel, _: Result) -> Result:
    """Whether kernels should overlap: measured as when a model is built."""
    if torch.cuda.get_device_capability(model.device) < dependent_launch.OLDEST:
        return {"used": False}
    apart, overlapping, same = overlap.measure(model)
    model.pdl = same and overlapping < apart
    print(
        f"one token: {1e3 * apart:.3f} ms, {1e3 * overlapping:.3f} where kernels overlap"
        f"{'' if same else ' AND RESULTS DIFFER'}; they will{'' if model.pdl else ' not'}"
    )
    return {"apart_ms": 1e3 * apart, "overlapping_ms": 1e3 * overlapping, "same": same, "used": model.pdl}


def copy(model: TritonModel, _: Result) -> Result:
    """Bytes per second of a copy on the device (read plus written), and of reading alone."""
    source = torch.empty(1 << (20 if rehearsed(model) else 30), dtype=torch.uint8, device=model.device)
    target = torch.empty_like(source)
    seconds = gpu_kernels.median_seconds(lambda: target.copy_(source), 20)
    wide = source.view(torch.float32)
    read = gpu_kernels.median_seconds(lambda: torch.amax(wide), 20)
    found = {
        "copy_gb_s": round(2 * source.nbytes / seconds / 1e9, 1),
        "read_gb_s": round(source.nbytes / read / 1e9, 1),
    }
    print(f"copy {found['copy_gb_s']} GB/s, read {found['read_gb_s']} GB/s")
    return found


def bandwidth(results: Result) -> float:
    """The bandwidth, in bytes per second, with which shares are calculated."""
    return float(results.get("copy", {}).get("copy_gb_s") or 3000.0) * 1e9  # 0.0 on a very slow machine


def kernels(model: TritonModel, results: Result) -> list[Result]:
    rows = gpu_kernels.measure(model, bandwidth(results))
    print(f"{'kernel':34} {'us':>9} {'MB':>9} {'share':>6}")
    for row in rows:
        print(f"{row['kernel']:34} {row['us']:9.2f} {row['mb']:9.2f} {row['share']:6.2f}")
    return rows


def decode(model: TritonModel, results: Result) -> list[Result]:
    """Decode steps through graphs, as the engine runs them, each including the copy of the tokens to the
    host.
    """
    rows = []
    print(
        f"{'streams':>8} {'context':>8} {'ms':>8} {'tok/s':>9} {'share':>6} {'host us':>8} {'capture s':>9}"
    )
    for streams, context in rehearsal.DECODES if rehearsed(model) else DECODES:
        needed = bytes_of((0, streams * -(-context // model.page_size)), model.page_bytes)
        if needed > 0.8 * torch.cuda.mem_get_info()[0] or context >= model.config.max_context:
            print(f"{streams:8} {context:8} does not fit")
            continue
        load = Decode(model, streams, context)
        began = time.perf_counter()
        model.forward(load.batch(0), load.cache)
        torch.cuda.synchronize()
        capture = time.perf_counter() - began
        device, wall = load.seconds(2 if rehearsed(model) else 30)
        row = {
            "streams": streams,
            "context": context,
            "ms": round(1e3 * wall, 3),
            "device_ms": round(1e3 * device, 3),
            "tokens_per_second": round(streams / wall, 1),
            "share": round(load.bytes() / bandwidth(results) / wall, 3),
            "host_us": round(1e6 * (wall - device), 1),
            "capture_seconds": round(capture, 2),
        }
        rows.append(row)
        print(
            f"{streams:8} {context:8} {row['ms']:8.3f} {row['tokens_per_second']:9.1f} {row['share']:6.2f}"
            f" {row['host_us']:8.1f} {capture:9.2f}"
        )
        load.close()
    return rows


def profile(model: TritonModel, _: Result) -> list[Result]:
    """The kernels of decode steps, with one stream and with many."""
    rows = []
    several, context, steps = rehearsal.PROFILED if rehearsed(model) else ((1, 64), 1024, 20)
    print(f"{'streams':>8} {'kernel':40} {'launches':>9} {'us':>9}")
    for streams in several:
        for row in gpu_profile.measure(model, streams, context, steps):
            rows.append(row)
            print(f"{streams:8} {row['kernel']:40} {row['launches']:9} {row['us']:9}")
    return rows


def engine(model: TritonModel, _: Result) -> list[Result]:
    """Steps of the engine, with and without overlap: how much time the host adds to the model's."""
    rows = []
    print(
        f"{'streams':>8} {'sampling':>8} {'in turn ms':>11} {'adds us':>8}"
        f" {'overlapped ms':>14} {'adds us':>8}"
    )
    few = rehearsal.STREAMS, rehearsal.CONTEXT, rehearsal.STEPS
    several, context, steps = few if rehearsed(model) else ((1, 8, 64), 1024, 100)
    for streams in several:
        for row in gpu_engine.measure(model, streams, context, steps, turns=min(30, steps)):
            rows.append(row)
            print(
                f"{streams:8} {row['sampling']:>8} {row['in_turn_ms']:11.3f} {row['in_turn_exposed_us']:8.1f}"
                f" {row['overlapped_ms']:14.3f} {row['overlapped_exposed_us']:8.1f}"
            )
    return rows


def prefill(model: TritonModel, _: Result) -> list[Result]:
    """One prompt in one step, including the copy of its first token to the host."""
    rows = []
    print(f"{'tokens':>8} {'ms':>9} {'tok/s':>9} {'TFLOP/s':>8}")
    for tokens in rehearsal.PREFILLS if rehearsed(model) else PREFILLS:
        load = Prefill(model, tokens)
        seconds = load.seconds(1 if rehearsed(model) else 7)
        flops = load.flops() / seconds / 1e12
        rows.append(
            {
                "tokens": tokens,
                "ms": round(1e3 * seconds, 2),
                "tokens_per_second": round(tokens / seconds),
                "tflop_s": round(flops, 1),
            }
        )
        print(f"{tokens:8} {1e3 * seconds:9.2f} {tokens / seconds:9.0f} {flops:8.1f}")
    return rows


def load(model: TritonModel, _: Result) -> Result:
    """Loading weights from files in the page cache, and the checks of the kernels afterwards."""
    found = gpu_weights.measure(model.config, model.device, model.dense)
    if "skipped" in found:
        print(found["skipped"])
    else:
        print(f"{found['gb']} GB of files, {found['layers']} layers, opened in {found['open_seconds']} s")
        for threads, rate in found["reading_gb_s"].items():
            print(f"reading by {threads:2} threads {rate:8.1f} GB/s")
        print(f"arriving on the GPU   {found['arriving_gb_s']:8.1f} GB/s")
        share = f"{found['share_of_link']:.0%} of the link's {found['link_gb_s']}"
        whole = f"{found['whole_seconds']} s for {found['whole_gb']} GB"
        print(f"weights in their form {found['gb_s']:8.1f} GB/s, {share}: {whole}")
    began = time.perf_counter()
    triton_checks.probe(model)
    found["probe_seconds"] = round(time.perf_counter() - began, 2)
    print(f"probe, kernels compiled before: {found['probe_seconds']} s")
    return found


def floor(model: TritonModel, _: Result) -> list[Result]:
    rows = gpu_floor.measure(model.config, model.device)
    for row in rows:
        print(f"{row['name']:40} {row['decode']}")
    return rows


def tune(model: TritonModel, _: Result) -> list[Result]:
    rows = gpu_kernels.tune(model)
    for row in rows:
        print(f"{row['kernel']:24} {row['us']:9.2f} us  {row['tile']}")
    return rows


PARTS: dict[str, Callable[[TritonModel, Result], Any]] = {
    "check": check,
    "overlap": overlapping,
    "copy": copy,
    "kernels": kernels,
    "decode": decode,
    "profile": profile,
    "engine": engine,
    "prefill": prefill,
    "load": load,
    "floor": floor,
    "tune": tune,
}

if __name__ == "__main__":
    sys.exit(main())
