"""Fills Triton's cache with all kernels of 20b, for the GPU that is here, by as many processes as there are
cores: what comes after finds them compiled.

    python -m bench.gpu.warm
"""

from __future__ import annotations

import sys
import time

import torch

from bench.synthetic import SIZES
from model.backends.triton import ahead

OPTIONS = (("bf16", "bf16", False), ("int8", "fp8", False), ("bf16", "bf16", True))


def main() -> int:
    if not torch.cuda.is_available():
        print("bench.gpu.warm: there is no GPU that torch can use", file=sys.stderr)
        return 2
    gpu = torch.device("cuda", 0)
    for dense, kv_cache_dtype, invariant in OPTIONS:
        began = time.perf_counter()
        with ahead.compiled(ahead.Job.on(gpu, SIZES["20b"], dense, kv_cache_dtype, invariant)):
            pass
        seconds = time.perf_counter() - began
        print(f"{dense} {kv_cache_dtype} {'invariant' if invariant else ''}: {seconds:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
