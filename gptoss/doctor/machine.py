"""What is here to serve with: the program, the device, its kernels, the disk, the port, and who may call."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from engine import memory
from gptoss.assembly import backend_options
from gptoss.doctor.findings import Finding
from gptoss.serve import bind
from gptoss.start import StartError
from model import backends
from model import device as devices
from model.byte_sizes import format_bytes
from model.check import Check
from model.self_check import kernel_checks, whole_model_checks
from server.settings import Settings, SettingsError

DOWNLOAD_BYTES = 14e9
"""What gpt-oss-20b takes on the disk."""

REFERENCE = "--backend reference computes the same anywhere, slowly"

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def program() -> Finding:
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "triton", "llguidance"))
    system = f"Python {platform.python_version()}, {platform.system()} {platform.release()}"
    return Finding("program", f"gptoss {version('gptoss')}, {versions}, {system} on {platform.machine()}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def device(device: devices.Device) -> Iterator[Finding]:
    name = devices.describe(device)
    if device.type == "cuda":
        yield Finding("device", f"{device}: {name}, {devices.abilities(device)}")
        return
    free = format_bytes(memory.free_host_bytes())
    yield Finding("device", f"{device}: {name}, {devices.physical_cores()} cores, {free} of memory free")
    if (driver := devices.nvidia_driver()) is not None:
        yield Finding(
            "device",
            f"there is an NVIDIA driver ({driver}), but torch {_version('torch')} is not to use a GPU",
            "unless --device cpu is meant: install torch's build for CUDA; give a container --gpus all",
        )
    if HUGE_PAGES.exists() and "[never]" in HUGE_PAGES.read_text():
        yield Finding(
            "device",
            "this system gives no huge pages, so weights are read at 5 to 40% less than the memory's speed",
            f"echo madvise > {HUGE_PAGES}, as root",
        )


def kernels(settings: Settings, device: devices.Device) -> Iterator[Finding]:
    """The backend, and each of its kernels run on small data."""
    name = backends.choose(device, settings.backend)
    try:
        options = backend_options(settings, device)
        backend = backends.load(device, name)
        if backend.describe is not None:
            told, advice = backend.describe(options)
            yield Finding("kernels", f"{name}: {told}", advice or "")
        yield from _probed(kernel_checks(name, device, options))
        yield from _probed(whole_model_checks(name, device, options))
    except Exception as error:  # whatever a kernel, its compiler or its driver may raise: that is the finding
        told = f"{name}: {' '.join(str(error).split()) or repr(error)}"
        yield Finding("kernels", told, REFERENCE, problem=True)


def _probed(checks: Iterable[Check]) -> Iterator[Finding]:
    """Of each kernel the worst of its checks."""
    worst: dict[str, Check] = {}
    for check in checks:
        known = worst.get(check.name)
        if known is None or (known.passed and not check.error <= known.error):  # a NaN is worse than all
            worst[check.name] = check
    for check in worst.values():
        told = f"{check.name}: differs from the reference by {check.error:.1g}"
        if check.passed:
            yield Finding("kernels", told)
        else:
            yield Finding(
                "kernels",
                f"{told} in a step of {check.tokens} tokens; {check.tolerance:g} could be rounding",
                f"{REFERENCE}; please report this line",
                problem=True,
            )


def disk() -> Finding:
    """Where models are downloaded to."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    told = f"{format_bytes(free)} free in {folder}, where models are downloaded to"
    if free >= DOWNLOAD_BYTES:
        return Finding("disk", told)
    needed = format_bytes(DOWNLOAD_BYTES)
    return Finding("disk", told, f"gpt-oss-20b needs {needed}; HF_HOME names another place")


def port(settings: Settings) -> Finding:
    try:
        with bind(settings.host, settings.port) as bound:
            host, number = bound.getsockname()[:2]
            return Finding("port", f"{number} is free on {host}")
    except StartError as error:
        told, _, remedy = str(error).partition("; ")
        return Finding("port", told, remedy, problem=True)


LOCAL = ("127.0.0.1", "::1", "localhost")


def access(settings: Settings) -> Finding:
    try:
        keys = settings.api_keys()
    except SettingsError as error:
        return Finding("access", str(error), "one key on each line", problem=True)
    if keys:
        return Finding("access", f"{len(keys)} API keys open the door")
    if settings.host in LOCAL:
        return Finding("access", f"no API key: only programs of this machine reach {settings.host}")
    return Finding(
        "access",
        f"no API key, and {settings.host} can be reached from other machines: whoever does may use the model",
        "--api-key-file names a file of keys",
    )
