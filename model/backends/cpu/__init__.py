"""gpt-oss on x86-64, ARM and other CPUs: C++ kernels behind one call per step.

    toolchain.py  how the C++ is compiled     native/abi.h        the interface of Python and the library
    library.py    finding and loading it      native/layout.h     the layout of packed weights in memory
    program.py    the structures of abi.h     native/program.cpp  what each instruction does, on all threads
    weights.py    checkpoint → packed weights native/isa_*.cpp    the arithmetic, once per instruction set
    cpu_model.py  the network as a program    native/arithmetic.h the arithmetic that all of these share
    prefetch.py   whether to prefetch weights

With one token per step, the time of a CPU goes into reading weights.  So weights are stored in the order in
which they are read, experts stay in MXFP4, and attention and unembedding are int8 by default.  Activations
have 16 bits: this takes no extra time while memory is the limit, and makes every product exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from model.backends.cpu.cpu_model import CpuModel
from model.backends.cpu.library import choose_isa, isas, load
from model.backends.cpu.prefetch import prefetching_helps
from model.backends.cpu.weights import DENSE_FORMATS
from model.check import Check
from model.device import physical_cores
from model.interfaces import Backend
from model.loading.tensors import TensorSource
from model.parallel.ranks import ALONE, Ranks

PROMPT_ACTIVATIONS = (16, 8)


def build(
    checkpoint: TensorSource,
    device: torch.device,
    *,
    dense: str = "int8",
    threads: int | None = None,
    isa: str | None = None,
    prompt_activations: int = 16,
    batch_invariant: bool = True,
    ranks: Ranks = ALONE,
) -> CpuModel:
    """The checkpoint's model on the CPU.

    dense    "int8": attention and unembedding in int8 by groups of 64, with the best logits computed again in
             bf16; if only the best logits are needed (`Batch.temperatures`), the others are estimated with
             four bits.  "bf16": as they were trained, at about two thirds of the speed
    threads  number of threads of a step; None: one for each core
    isa      amx, avx512, avx2, neon or portable; None: $GPTOSS_CPU_ISA, or the best that this processor has
    prompt_activations  bits of a prompt's activations in products with int8 and MXFP4 weights.  16: nearly
             exact, and bit-identical to decoding.  8: a scale for each 32, faster, with an error of 0.5% of a
             product.  The tokens of an answer always have 16
    ranks    the ranks that compute the model; the checkpoint is then this rank's part
    batch_invariant  has no effect, because results never depend on the batch

    After this call torch itself uses one thread in this process.

    Raises NativeLibraryMissing if there is neither a built library nor a compiler, CheckpointError for
    sizes that the kernels cannot handle, ValueError for an unknown format or instruction set.
    """
    if device.type != "cpu":
        raise ValueError(f"the cpu backend runs on the CPU, not on {device}")
    if dense not in DENSE_FORMATS:
        raise ValueError(f"dense weights can be kept as {' or '.join(DENSE_FORMATS)}, not {dense!r}")
    if prompt_activations not in PROMPT_ACTIVATIONS:
        raise ValueError(f"activations of prompts can have 16 or 8 bits, not {prompt_activations}")
    library = load()
    threads = threads or physical_cores()
    model = CpuModel(checkpoint, library, dense, threads, choose_isa(library, isa), ranks)
    torch.set_num_threads(1)  # two thread pools would compete for the same cores; torch has little to compute
    model.shorten_prompts(prompt_activations)
    model.prefetch(prefetching_helps(model))
    return model


def kernel_checks(model: CpuModel) -> Iterator[Check]:
    """Checks each instruction of a step, see cpu_checks.py."""
    from model.backends.cpu import cpu_checks

    return cpu_checks.checks(model, cpu_checks.TOKENS)


def describe(settings: Mapping[str, Any]) -> tuple[str, str | None]:
    """The instruction set and the threads in use here, and how to use a better instruction set."""
    library = load()
    used, able = choose_isa(library), isas(library)
    threads = settings.get("threads") or physical_cores()
    use = f"{used}, on {threads} threads; this processor can run {', '.join(able)}"
    return use, None if used == able[0] else f"unset GPTOSS_CPU_ISA to use {able[0]}, which is faster"


BACKEND = Backend(
    "cpu",
    build,
    defaults={"threads": None, "dense": "int8", "batch_invariant": True},
    embedding_in_file=True,
    kernel_checks=kernel_checks,
    describe=describe,
)
