"""Compiles all kernels of 20b for the GPU of this machine, with one process for each core.  Later programs
find them in Triton's cache.

    python -m bench.gpu.warm
    python -m bench.gpu.warm --capability 90    # for another GPU, to measure how long it takes
    python -m bench.gpu.warm --rehearse         # the same with a tiny model
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch
import triton

from bench.gpu import rehearsal
from bench.synthetic import SIZES
from model.backends.triton import ahead
from model.config import ModelConfig

OPTIONS = (("bf16", "bf16", False), ("int8", "fp8", False), ("bf16", "bf16", True))

REHEARSED = 90
"""The compute capability that a rehearsal compiles for."""

MULTIPROCESSORS = 132
"""Multiprocessors of an H200, used if `--capability` is given."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.warm", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--capability",
        type=int,
        help="compute capability of a GPU that this machine does not have, such as 90",
    )
    parser.add_argument("--rehearse", action="store_true", help="a tiny model, without a GPU")
    asked = parser.parse_args()
    capability = REHEARSED if asked.rehearse else asked.capability
    if capability is None and not torch.cuda.is_available():
        print("bench.gpu.warm: there is no GPU that torch can use", file=sys.stderr)
        return 2
    config = rehearsal.CONFIG if asked.rehearse else SIZES["20b"]
    for options in OPTIONS[:1] if asked.rehearse else OPTIONS:
        began = time.perf_counter()
        count = warm(capability, config, *options)
        seconds = time.perf_counter() - began
        print(f"{' '.join(map(str, options))}: {count} kernels in {seconds:.1f} s", flush=True)
    return 0


def warm(
    capability: int | None, config: ModelConfig, dense: str, kv_cache_dtype: str, invariant: bool
) -> int:
    """Compile all kernels of a model.  Returns their number.

    capability  compute capability times ten; None: this machine's GPU, which also loads the kernels
    """
    options, kernels = (config, dense, kv_cache_dtype, invariant), set()

    def seen(function: Any, named: dict[str, Any], kernel: Any) -> None:
        kernels.add(kernel.hash)
        if capability is None:
            ahead.loaded(function, named, kernel)

    if capability is None:
        job = ahead.Job.on(torch.device("cuda", 0), *options)
    else:
        triton.runtime.driver.set_active(ahead.OfflineDriver(capability))
        job = ahead.Job.of((capability // 10, capability % 10), MULTIPROCESSORS, *options)
    with ahead.compiled(job, seen):
        pass
    return len(kernels)


if __name__ == "__main__":
    sys.exit(main())
