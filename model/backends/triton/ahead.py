"""Compiles all kernels of a model before its first step, with one process for each core.

Triton compiles a kernel when it is first launched, in about a second, and holds the GIL meanwhile.  A model
has about seventy kernels, depending on the sizes of its steps: more than a minute on one core.  A kernel that
is not compiled at the start delays answers when a batch first has its size.  So every possible launch is made
once, with shapes only (outlines.py).  Other processes compile for a GPU that they do not use, and this
process finds the results in Triton's cache on disk.

    python -m model.backends.triton.ahead JOB 3/8      # share 3 of 8: what `compiled` starts
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver as nvidia
from triton.errors import TritonError
from triton.runtime.jit import JITFunction

from model.backends.triton import outlines
from model.backends.triton.kernels import dependent_launch, fp8
from model.config import ModelConfig

log = logging.getLogger(__name__)

PROCESSES = 16
"""Maximum number of processes, because each takes about 500 MB."""

SOURCES = Path(__file__).parent
"""The folder of all kernels and of the code that launches them."""

SECONDS = 300.0
"""Time for the processes; kernels that they have not compiled by then are compiled in this process."""


Seen = Callable[[Any, dict[str, Any], Any], object]
"""Called with the function that was launched, its operands by name, and the compiled kernel."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that determines which kernels are needed: the model's sizes and options, and the GPU.

    config  sizes of one rank's part
    ranks   number of ranks that compute the model
    """

    config: ModelConfig
    dense: str
    kv_cache_dtype: str
    batch_invariant: bool
    full_dtype: str
    capability: tuple[int, int]
    multiprocessors: int
    ranks: int = 1

    @classmethod
    def on(
        cls,
        gpu: torch.device,
        config: ModelConfig,
        dense: str,
        kv_cache_dtype: str,
        batch_invariant: bool,
        ranks: int = 1,
    ) -> Job:
        properties = torch.cuda.get_device_properties(gpu)
        capability = properties.major, properties.minor
        options = (dense, kv_cache_dtype, batch_invariant)
        return cls.of(capability, properties.multi_processor_count, config, *options, ranks)

    @classmethod
    def of(
        cls,
        capability: tuple[int, int],
        multiprocessors: int,
        config: ModelConfig,
        dense: str,
        kv_cache_dtype: str,
        batch_invariant: bool,
        ranks: int = 1,
    ) -> Job:
        """A job for a GPU that this machine need not have."""
        full = fp8.storage_on(capability) if kv_cache_dtype == "fp8" else torch.bfloat16
        name = str(full).removeprefix("torch.")
        return cls(config, dense, kv_cache_dtype, batch_invariant, name, capability, multiprocessors, ranks)

    @classmethod
    def read(cls, text: str) -> Job:
        """The job that `str` has written as text."""
        fields = json.loads(text)
        config, capability = ModelConfig(**fields.pop("config")), tuple(fields.pop("capability"))
        return cls(config=config, capability=capability, **fields)

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @property
    def mark(self) -> Path:
        """A file in Triton's cache.  If it exists, all kernels of the job are in the cache."""
        sources = b"".join(path.read_bytes() for path in sorted(SOURCES.rglob("*.py")))
        what = f"{self} {triton.__version__} {torch.__version__}".encode()
        return Path(triton.knobs.cache.dir) / f"gptoss-{hashlib.sha256(what + sources).hexdigest()[:32]}"

    def compile(self) -> None:
        """Compile all kernels for the GPU of Triton's driver, or read them from the cache."""
        model = outlines.outline(
            replace(self.config, num_layers=min(2, self.config.num_layers)),  # one of each kind
            self.dense,
            self.kv_cache_dtype,
            self.batch_invariant,
            getattr(torch, self.full_dtype),
            self.multiprocessors,
            self.capability,
            self.ranks,
        )
        outlines.launch_all(model, (False, True) if self.capability >= dependent_launch.OLDEST else (False,))


@contextmanager
def compiled(job: Job, seen: Seen | None = None) -> Iterator[None]:
    """A context after which all kernels of the job are compiled: other processes compile while its body runs.

    seen  called for each kernel afterwards; None: loads it onto the GPU
    """
    mark = job.mark
    processes: list[subprocess.Popen[bytes]] = []
    try:
        if not mark.exists():
            processes = started(job, min(PROCESSES, len(os.sched_getaffinity(0))))
        yield
        waited(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    with compiling(seen or loaded), torch.inference_mode():
        job.compile()
    with suppress(OSError):  # the cache is read-only: the next start will start the processes again
        mark.touch()


def started(job: Job, count: int) -> list[subprocess.Popen[bytes]]:
    """Starts processes that compile a share of the job each; fewer than `count` if they cannot be started."""
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    environment = os.environ | {"PYTHONPATH": places, "CUDA_VISIBLE_DEVICES": ""}
    nothing: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for share in range(count):
            command = [sys.executable, "-m", "model.backends.triton.ahead", str(job), f"{share}/{count}"]
            processes.append(subprocess.Popen(command, env=environment, **nothing))
    except OSError as error:
        log.warning("%d processes compile the Triton kernels, not %d: %s", len(processes), count, error)
    return processes


def waited(processes: list[subprocess.Popen[bytes]]) -> None:
    """Waits until the processes have ended.  Kernels that they did not compile are compiled later, in this
    one.
    """
    end = time.monotonic() + SECONDS
    try:
        failed = sum(process.wait(max(0.0, end - time.monotonic())) != 0 for process in processes)
    except subprocess.TimeoutExpired:
        log.warning("the processes that compile the Triton kernels have not finished after %.0f s", SECONDS)
        return
    if failed:
        log.warning("%d of %d processes that compile the Triton kernels failed", failed, len(processes))


@contextmanager
def compiling(seen: Seen | None = None) -> Iterator[None]:
    """A context in which launches only compile; `seen` is called for each."""
    run = JITFunction.run

    def compile_only(self: Any, *operands: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        kernel = run(self, *operands, grid=grid, warmup=True, **named)
        if seen is not None:
            seen(self.fn, named, kernel)
        return kernel

    JITFunction.run = compile_only
    try:
        yield
    finally:
        JITFunction.run = run


def with_launcher(function: Any, named: dict[str, Any], kernel: Any) -> None:
    """Builds the launcher of a kernel in the cache: up to Triton 3.6 this is a C file, which takes
    gcc 0.3 s.
    """
    if kernel is not None and hasattr(nvidia, "make_launcher"):
        try:
            nvidia.CudaLauncher(kernel.src, kernel.metadata)
        except (OSError, RuntimeError, AssertionError, ImportError) as error:  # e.g. no driver library
            log.warning("the launcher of %s will be built at its first launch: %s", kernel.name, error)


def loaded(function: Any, named: dict[str, Any], kernel: Any) -> None:
    """Loads a kernel onto the device, and its launcher into this process, so that no step has to
    wait for it.
    """
    if kernel is not None:
        try:
            kernel._init_handles()
        except (
            RuntimeError,
            TritonError,
        ) as error:  # the kernel is too large: its launch will raise the error
            log.warning("%s cannot be loaded: %s", kernel.name, str(error).splitlines()[0])


class OfflineDriver:
    """A substitute for the driver of a GPU that this machine does not have, sufficient for Triton to
    compile.
    """

    def __init__(self, capability: int):
        """
        capability  compute capability times ten: 90 for 9.0
        """
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


def main(job: Job, share: int, shares: int) -> None:
    """Compiles share number `share` of `shares` of a job."""

    def of_another(*, key: str, fn: Any, **_: Any) -> bool:
        return zlib.crc32(f"{fn.name} {key}".encode()) % shares != share

    major, minor = job.capability
    triton.runtime.driver.set_active(OfflineDriver(10 * major + minor))
    triton.knobs.runtime.jit_cache_hook = of_another
    with compiling(with_launcher), torch.inference_mode():
        job.compile()


if __name__ == "__main__":
    main(Job.read(sys.argv[1]), *map(int, sys.argv[2].split("/")))
