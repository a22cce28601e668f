"""All kernels of a model compiled before its first step, by as many processes as there are cores.

Triton compiles a kernel when it is first launched, in about a second, and holds Python's lock meanwhile.  A
model has some seventy, by the sizes of its steps: more than a minute on one core; and what the start leaves
out delays answers when a batch first has that size.  So every launch that may ever come is made once, of
shapes alone (outlines.py).  Other processes compile for a GPU that they do not see, and what they made is
found in Triton's cache on disk.

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
"""At most: each takes some 500 MB."""

SOURCES = Path(__file__).parent
"""Of all kernels, and of what launches them."""

SECONDS = 300.0
"""For all of them; what they have not compiled by then is compiled here."""


Seen = Callable[[Any, dict[str, Any], Any], object]
"""Called with the function that was launched, its operands by name, and what it became."""


@dataclass(frozen=True, slots=True)
class Job:
    """What decides which kernels there are: a model's sizes and options, and the GPU it is on.

    config  of one rank's part
    ranks   how many compute the model together
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
        """For a GPU that need not be here."""
        full = fp8.storage_on(capability) if kv_cache_dtype == "fp8" else torch.bfloat16
        name = str(full).removeprefix("torch.")
        return cls(config, dense, kv_cache_dtype, batch_invariant, name, capability, multiprocessors, ranks)

    @classmethod
    def read(cls, text: str) -> Job:
        """What `str` wrote."""
        fields = json.loads(text)
        config, capability = ModelConfig(**fields.pop("config")), tuple(fields.pop("capability"))
        return cls(config=config, capability=capability, **fields)

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @property
    def mark(self) -> Path:
        """A file beside Triton's own, which says that they are all there."""
        sources = b"".join(path.read_bytes() for path in sorted(SOURCES.rglob("*.py")))
        what = f"{self} {triton.__version__} {torch.__version__}".encode()
        return Path(triton.knobs.cache.dir) / f"gptoss-{hashlib.sha256(what + sources).hexdigest()[:32]}"

    def compile(self) -> None:
        """All kernels, for the GPU of Triton's driver: those that the cache has are read."""
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
    """Behind it, all kernels of the job are compiled: by other processes, while what is inside runs.

    seen  what this process does with each of them then; None to load it onto its GPU
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
    with suppress(OSError):  # a cache that can only be read: the processes will start in vain again
        mark.touch()


def started(job: Job, count: int) -> list[subprocess.Popen[bytes]]:
    """Processes that compile a share of the job each; fewer if they cannot be started."""
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
    """Until they are done.  What one leaves out is compiled here, later."""
    end = time.monotonic() + SECONDS
    try:
        failed = sum(process.wait(max(0.0, end - time.monotonic())) != 0 for process in processes)
    except subprocess.TimeoutExpired:
        log.warning("processes that compile the Triton kernels are not done after %.0f s", SECONDS)
        return
    if failed:
        log.warning("%d of %d processes that compile the Triton kernels failed", failed, len(processes))


@contextmanager
def compiling(seen: Seen | None = None) -> Iterator[None]:
    """Inside, launches compile and do no more; `seen` is told of each."""
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
    """Builds what launches a kernel, into the cache: up to Triton 3.6 a C file, which takes gcc 0.3 s."""
    if kernel is not None and hasattr(nvidia, "make_launcher"):
        try:
            nvidia.CudaLauncher(kernel.src, kernel.metadata)
        except (OSError, RuntimeError, AssertionError, ImportError) as error:  # as without a driver's library
            log.warning("what launches %s will be built at its first launch: %s", kernel.name, error)


def loaded(function: Any, named: dict[str, Any], kernel: Any) -> None:
    """Puts a kernel onto the device, and what launches it into this process, before any step waits for it."""
    if kernel is not None:
        try:
            kernel._init_handles()
        except (
            RuntimeError,
            TritonError,
        ) as error:  # too large: its launch will say so
            log.warning("%s cannot be loaded: %s", kernel.name, str(error).splitlines()[0])


class OfflineDriver:
    """A driver of a GPU that is not there: enough of one for Triton to compile for it."""

    def __init__(self, capability: int):
        """
        capability  90 for 9.0
        """
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


def main(job: Job, share: int, shares: int) -> None:
    """Compiles one of so many shares of a job."""

    def of_another(*, key: str, fn: Any, **_: Any) -> bool:
        return zlib.crc32(f"{fn.name} {key}".encode()) % shares != share

    major, minor = job.capability
    triton.runtime.driver.set_active(OfflineDriver(10 * major + minor))
    triton.knobs.runtime.jit_cache_hook = of_another
    with compiling(with_launcher), torch.inference_mode():
        job.compile()


if __name__ == "__main__":
    main(Job.read(sys.argv[1]), *map(int, sys.argv[2].split("/")))
