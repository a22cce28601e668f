"""The device that a model runs on: which one, its memory, its name, the speed of its memory."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from model.byte_sizes import format_bytes

Device = torch.device

METER_BYTES = 1 << 28
"""Bytes that are read or copied to measure the memory's speed: far more than fit into a processor's caches.
"""


class DeviceError(Exception):
    """The device does not exist.  The message is one line that says which devices there are."""


def find(name: str | None) -> torch.device:
    """The named device (`cpu`, `cuda:1`), or for None the first GPU if there is one.  Raises DeviceError."""
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"there is no device {name!r}; there are cpu, cuda, cuda:1 and so on") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not supported; cpu and cuda are")
    if device.type == "cpu":
        return device
    index, count = device.index or 0, torch.cuda.device_count()
    if index >= count:
        raise DeviceError(f"there is no device {name!r}: torch {torch.__version__} sees {count} GPUs")
    return torch.device("cuda", index)


def named(name: str) -> torch.device:
    """The device with this name, whether it exists on this machine or not."""
    return torch.device(name)


def nth(first: torch.device, number: int) -> torch.device:
    """The GPU with the index of `first` plus `number`; for a CPU, `first` itself."""
    return first if first.type == "cpu" else torch.device("cuda", (first.index or 0) + number)


def gpus() -> int:
    """Number of GPUs that torch can use."""
    return torch.cuda.device_count()


def use(device: torch.device, threads: int) -> None:
    """Make a GPU this thread's current device, or set the number of torch's threads on the CPU."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(threads)


def free_bytes(gpu: torch.device) -> int:
    """Free memory of a GPU."""
    return torch.cuda.mem_get_info(gpu)[0]


def wait(device: torch.device) -> None:
    """Wait until the device has finished, before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe(device: torch.device) -> str:
    """The name of the GPU or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def physical_cores() -> int:
    """Physical cores that this process may use, within its CPU quota.  Hyper-threads are not counted."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add(tuple((topology / name).read_text() for name in ("physical_package_id", "core_id")))
        except OSError:
            cores.add((str(cpu),))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        limit = len(cores) if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        limit = len(cores)
    return min(len(cores), limit)


def abilities(gpu: torch.device) -> str:
    """Facts about a GPU: compute capability, memory, driver."""
    major, minor = torch.cuda.get_device_capability(gpu)
    free, total = torch.cuda.mem_get_info(gpu)
    facts = f"compute capability {major}.{minor}, {format_bytes(free)} of {format_bytes(total)} free"
    return f"{facts}, driver {nvidia_driver() or 'unknown'}, CUDA {torch.version.cuda}"


def nvidia_driver() -> str | None:
    """The version of the NVIDIA driver in this system's kernel, whether torch can use it or not."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    return next((word for word in first.split() if re.fullmatch(r"\d+(\.\d+)+", word)), first)


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures the speed of a device's memory.

    kind     "read", or "copy" (bytes read and bytes written both count)
    measure  measures now, and returns bytes per second
    """

    kind: str
    measure: Callable[[], float]


def copy_meter(device: torch.device) -> Meter:
    """A meter that copies within the device's memory."""
    source, target = (torch.ones(METER_BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    copies = 1 if device.type == "cpu" else 20  # enough that clock and launch overhead do not matter

    def measure() -> float:
        wait(device)
        start = time.perf_counter()
        for _ in range(copies):
            target.copy_(source)
        wait(device)
        return 2 * copies * source.nbytes / (time.perf_counter() - start)

    return Meter("copy", measure)
