"""What the Triton kernels become on a GPU that is not here: compiled for it, at the true sizes, without one.

The network runs on tensors that have shapes and no memory, and each launch stops after compiling.  A kernel
that does not compile, needs more shared memory than there is, or spills registers, shows here and not on the
day when a GPU is at hand.

    python -m bench.gpu_compile                       # 20b, compute capability 9.0
    python -m bench.gpu_compile --capability 80 --size 120b --keep FOLDER     # PTX and machine code too
    python -m bench.gpu_compile --model demo/weights    # another model: its config.json is enough
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from bench.synthetic import SIZES
from model.batch import Batch, pages_for
from model.checkpoint import Arrivals, shapes
from model.config import CheckpointError, ModelConfig
from model.draws import Draws
from model.edits import Edits
from model.kernels.triton import graphs
from model.kernels.triton.model import KV_CACHES, TritonModel
from model.kernels.triton.weights import DENSE_FORMATS, Reader, Weights
from model.synthetic import Made

META = torch.device("meta")
STEPS = "1x1,2x1,8x1,24x1,64x1,256x1,1x7,1x128,1x200,1x512,1x2048"
SHARED_BYTES = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""KiB of shared memory that one program may have, by compute capability (CUDA programming guide, table
30)."""


class Absent:
    """A driver of a GPU that is not there: enough of one for Triton to compile for it."""

    def __init__(self, capability: int):
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


class Shapes:
    """A checkpoint of tensors without memory."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self._shapes = shapes(config)

    def read(self, name: str) -> Tensor:
        dtype = torch.uint8 if name.endswith((".blocks", ".scales")) else torch.bfloat16
        return torch.empty(self._shapes[name], dtype=dtype, device=META)

    def onto(self, device: torch.device) -> Arrivals:
        return Made(self.read, device)


class ShapeReader(Reader):
    """Looks at no scale: there is none."""

    def check_scales(self, weights: Weights) -> None:
        pass


@contextmanager
def compiling(capability: int) -> Iterator[dict[tuple[str, str], Any]]:
    """Inside, launches compile and do no more; yields (name, constants) → what they became."""
    found: dict[tuple[str, str], Any] = {}
    run = JITFunction.run

    def compile_only(self: Any, *operands: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        kernel = run(self, *operands, grid=grid, warmup=True, **named)
        constants = " ".join(f"{k}={v}" for k, v in named.items() if isinstance(v, int))
        found[
            self.fn.__qualname__ + " " + self.fn.__module__.split(".")[-1], f"{constants} {kernel.hash[:6]}"
        ] = kernel
        return kernel

    triton.runtime.driver.set_active(Absent(capability))
    with mock.patch.object(JITFunction, "run", compile_only):
        yield found


def batch(sequences: int, length: int, pages: int) -> Batch:
    """`sequences` chunks of `length` tokens each."""
    tokens = sequences * length

    def empty(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=META)

    return Batch(
        tokens=empty(tokens),
        positions=empty(tokens),
        slots=empty(2, tokens),
        starts=empty(sequences + 1, dtype=torch.int32),
        lengths=empty(sequences, dtype=torch.int32),
        page_table=empty(2, sequences, pages, dtype=torch.int32),
        samples=empty(sequences),
    )


def compile_all(
    config: ModelConfig,
    capability: int,
    steps: Sequence[tuple[int, int]],
    dense: str = "bf16",
    kv_cache_dtype: str = "bf16",
    batch_invariant: bool = False,
    multiprocessors: int = 132,
) -> dict[tuple[str, str], Any]:
    """Every kernel of steps of so many sequences, with so many tokens each."""
    with compiling(capability) as found, torch.inference_mode():
        reader = ShapeReader(Shapes(config), META, torch.bfloat16, dense)  # type: ignore[arg-type]
        weights: Weights = reader.all()
        model = TritonModel(config, weights, kv_cache_dtype=kv_cache_dtype, batch_invariant=batch_invariant)
        model.multiprocessors = multiprocessors
        if kv_cache_dtype == "fp8" and capability >= 89:  # here nothing can be asked what it knows
            model.full_dtype = torch.float8_e4m3fn
        cache = model.new_cache(pages_for(5, 4, model.page_bytes))
        for sequences, length in steps:
            model.network(batch(sequences, length, 4), cache)
        if capability >= 90:
            model.pdl = True
            for sequences, length in steps:
                if length == 1:
                    model.network(batch(sequences, length, 4), cache)
        graphs.stage(batch(3, 1, 4), batch(4, 1, 4096))
        for filters in (False, True):
            logits = torch.empty(3, config.vocab_size, device=META)
            model.choose(logits, draws(3, filters), batch(3, 1, 4))
        for latest in (None, batch(3, 1, 4).tokens):
            model.edit(logits, edits(3, config.vocab_size), latest)
    return found


def draws(rows: int, filters: bool) -> Draws:
    def empty(dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(rows, dtype=dtype, device=META)

    return Draws(empty(torch.int64), empty(), empty(torch.int32), empty(), empty(), filters)


def edits(rows: int, size: int) -> Edits:
    """Nine records, and a mask for each row but one."""

    def empty(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=META)

    return Edits(
        records=empty(9, 4),
        starts=empty(rows + 1),
        penalties=empty(3, rows, dtype=torch.float32),
        masked=empty(rows - 1),
        masks=empty(rows - 1, -(-size // 32)),
    )


class Figures:
    """What `cuobjdump` says of one kernel."""

    USAGE: ClassVar = re.compile(r"REG:(\d+) STACK:(\d+)")

    def __init__(self, kernel: Any, folder: Path, name: str):
        tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
        binary = folder / f"{name}.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        (folder / f"{name}.ptx").write_text(kernel.asm["ptx"])
        (folder / f"{name}.ttgir").write_text(kernel.asm["ttgir"])
        usage = subprocess.check_output(
            [tools / "cuobjdump", "-res-usage", binary], text=True, stderr=subprocess.STDOUT
        )
        self.registers, self.stack = map(int, self.USAGE.findall(usage)[-1])
        self.shared = int(kernel.metadata.shared)
        self.warps = int(kernel.metadata.num_warps)


def steps_of(text: str) -> list[tuple[int, int]]:
    """(sequences, tokens) of each step."""
    pairs = [each.split("x") for each in text.split(",")]
    return [(int(sequences), int(tokens)) for sequences, tokens in pairs]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_compile", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--capability", type=int, default=90, choices=SHARED_BYTES)
    parser.add_argument("--steps", type=steps_of, default=STEPS, help=f"sequences x tokens: {STEPS}")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--size", choices=SIZES, default="20b")
    which.add_argument("--model", type=Path, help="folder of a checkpoint; of it config.json is read")
    parser.add_argument("--dense", choices=DENSE_FORMATS, default="bf16", help="as the server's flag")
    parser.add_argument("--kv-cache-dtype", choices=KV_CACHES, default="bf16", help="likewise")
    parser.add_argument("--batch-invariant", action="store_true", help="as the server's flag, on")
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
    print(f"{'kernel':40} warps registers stack shared")
    for (name, constants), kernel in sorted(found.items()):
        figures = Figures(kernel, asked.keep, re.sub(r"\W+", "_", f"{name} {constants}"))
        fault = figures.stack > 0 or figures.shared > 1024 * SHARED_BYTES[asked.capability]
        faults += fault
        print(
            f"{name:40} {figures.warps:5} {figures.registers:9} {figures.stack:5} {figures.shared:6}"
            f" {'FAULT' if fault else '     '} {constants}"
        )
        rows.append({"kernel": name, "constants": constants, **vars(figures)})
    size = asked.size if asked.model is None else str(asked.model)
    print(json.dumps({"capability": asked.capability, "size": size, "faults": faults, "kernels": rows}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
