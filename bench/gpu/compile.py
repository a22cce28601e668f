"""Compiles the Triton kernels for any GPU, at the real sizes of gpt-oss, on a machine without a GPU.

The network runs on tensors that have shapes but no memory, and each launch stops after compiling.  So a
kernel that does not compile, needs too much shared memory, or spills registers is found without a GPU.

    python -m bench.gpu.compile                       # 20b, compute capability 9.0
    python -m bench.gpu.compile --capability 80 --size 120b --keep FOLDER     # PTX and machine code too
    python -m bench.gpu.compile --model demo/weights    # another model: its config.json is enough
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import triton

from bench.gpu import machine_code
from bench.synthetic import SIZES
from model.backends.triton import ahead, outlines
from model.backends.triton.kernels import dependent_launch, fp8
from model.backends.triton.triton_model import KV_CACHES
from model.backends.triton.weights import DENSE_FORMATS
from model.config import CheckpointError, ModelConfig

STEPS = "1x1,2x1,8x1,24x1,64x1,256x1,1x7,1x128,1x200,1x512,1x2048"
SHARED_BYTES = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""Compute capability → maximum KiB of shared memory of one program (CUDA programming guide, table 30)."""


Kernels = dict[tuple[str, str], Any]
"""(name, constants) → the compiled kernel."""


def compile_all(
    config: ModelConfig,
    capability: int,
    steps: Sequence[tuple[int, int]],
    dense: str = "bf16",
    kv_cache_dtype: str = "bf16",
    batch_invariant: bool = False,
    multiprocessors: int = 132,
) -> Kernels:
    """Compile all kernels of these steps."""
    found: Kernels = {}

    def note(function: Any, named: dict[str, Any], kernel: Any) -> None:
        constants = " ".join(f"{name}={value}" for name, value in named.items() if isinstance(value, int))
        where = function.__module__.split(".")[-1]
        found[f"{function.__qualname__} {where}", f"{constants} {kernel.hash[:6]}"] = kernel

    eight_bits = fp8.storage_on(divmod(capability, 10))
    full_dtype = eight_bits if kv_cache_dtype == "fp8" else torch.bfloat16
    triton.runtime.driver.set_active(ahead.OfflineDriver(capability))
    with ahead.compiling(note), torch.inference_mode():
        options = (
            dense,
            kv_cache_dtype,
            batch_invariant,
            full_dtype,
            multiprocessors,
            divmod(capability, 10),
        )
        model = outlines.outline(config, *options)
        outlines.launch(model, steps)
        if capability >= 10 * dependent_launch.OLDEST[0]:
            model.pdl = True
            outlines.launch(model, [step for step in steps if step[1] == 1])
        outlines.launch_choosing(model)
    return found


class Figures:
    """Properties of one compiled kernel, from `cuobjdump`."""

    USAGE: ClassVar = re.compile(r"REG:(\d+) STACK:(\d+)")
    BUFFERS: ClassVar = re.compile(r"local_alloc : \(\) -> !ttg\.memdesc<(\d+)x\d+x\d+x")

    def __init__(self, kernel: Any, folder: Path, name: str):
        binary = folder / f"{name}.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        (folder / f"{name}.ptx").write_text(kernel.asm["ptx"])
        (folder / f"{name}.ttgir").write_text(kernel.asm["ttgir"])
        usage = subprocess.check_output(
            [machine_code.TOOLS / "cuobjdump", "-res-usage", binary], text=True, stderr=subprocess.STDOUT
        )
        self.registers, self.stack = map(int, self.USAGE.findall(usage)[-1])
        loop = machine_code.longest_loop(binary)
        self.loop = loop.total()
        """Number of instructions in the longest loop; of barriers among them; and of matrix products."""
        self.barriers = loop["BAR"]
        self.products = sum(loop[name] for name in machine_code.TENSOR)
        self.shared = int(kernel.metadata.shared)
        self.warps = int(kernel.metadata.num_warps)
        tiles = self.BUFFERS.findall(kernel.asm["ttgir"])
        self.buffers = min(map(int, tiles), default=0)
        """Number of tiles that fit into shared memory at once; with only one, none is loaded during
        computation.
        """


def steps_of(text: str) -> list[tuple[int, int]]:
    """Parse `--steps`: sequences, and tokens of each, for each step."""
    pairs = [each.split("x") for each in text.split(",")]
    return [(int(sequences), int(tokens)) for sequences, tokens in pairs]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.compile", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--capability", type=int, default=90, choices=SHARED_BYTES)
    parser.add_argument("--steps", type=steps_of, default=STEPS, help=f"sequences x tokens: {STEPS}")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--size", choices=SIZES, default="20b")
    which.add_argument("--model", type=Path, help="folder of a checkpoint, of which only config.json is read")
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
        "--keep", type=Path, default=Path("build/gpu"), help="folder for PTX and machine code"
    )
    asked = parser.parse_args()
    try:
        config = SIZES[asked.size] if asked.model is None else ModelConfig.read(asked.model)
    except CheckpointError as error:
        parser.error(str(error))
    config = replace(config, num_layers=2)
    found = compile_all(
        config, asked.capability, asked.steps, asked.dense, asked.kv_cache_dtype, asked.batch_invariant
    )
    asked.keep.mkdir(parents=True, exist_ok=True)
    rows, faults = [], 0
    print(f"{'kernel':40} warps registers stack shared buffers  loop barriers products")
    for (name, constants), kernel in sorted(found.items()):
        figures = Figures(kernel, asked.keep, re.sub(r"\W+", "_", f"{name} {constants}"))
        fault = figures.stack > 0 or figures.shared > 1024 * SHARED_BYTES[asked.capability]
        faults += fault
        print(
            f"{name:40} {figures.warps:5} {figures.registers:9} {figures.stack:5} {figures.shared:6}"
            f" {figures.buffers:7} {figures.loop:5} {figures.barriers:8} {figures.products:8}"
            f" {'FAULT' if fault else '     '} {constants}"
        )
        rows.append({"kernel": name, "constants": constants, **vars(figures)})
    size = asked.size if asked.model is None else str(asked.model)
    print(json.dumps({"capability": asked.capability, "size": size, "faults": faults, "kernels": rows}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
