"""Checks the machine: the program, the device, its kernels, the disk, the port, and who may call."""

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
"""Disk space for gpt-oss-20b."""

REFERENCE = "--backend reference works on any device, slowly"

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
            f"there is an NVIDIA driver ({driver}), but torch {_version('torch')} cannot use a GPU",
            "to use the GPU, install torch's build for CUDA, and start a container with --gpus all",
        )
    if HUGE_PAGES.exists() and "[never]" in HUGE_PAGES.read_text():
        yield Finding(
            "device",
            "huge pages are disabled, so weights are read 5 to 40% slower than the memory allows",
            f"as root: echo madvise > {HUGE_PAGES}",
        )


def kernels(settings: Settings, device: devices.Device) -> Iterator[Finding]:
    """The backend, and each of its kernels on small data."""
    name = backends.choose(device, settings.backend)
    try:
        options = backend_options(settings, device)
        backend = backends.load(device, name)
        if backend.describe is not None:
            description, advice = backend.describe(options)
            yield Finding("kernels", f"{name}: {description}", advice or "")
        yield from _probed(kernel_checks(name, device, options))
        yield from _probed(whole_model_checks(name, device, options))
    except Exception as error:  # any exception of a kernel, compiler or driver becomes a finding
        text = f"{name}: {' '.join(str(error).split()) or repr(error)}"
        yield Finding("kernels", text, REFERENCE, problem=True)


def _probed(checks: Iterable[Check]) -> Iterator[Finding]:
    """For each kernel, the worst of its checks."""
    worst: dict[str, Check] = {}
    for check in checks:
        known = worst.get(check.name)
        if known is None or (known.passed and not check.error <= known.error):  # NaN counts as the worst
            worst[check.name] = check
    for check in worst.values():
        text = f"{check.name}: differs from the reference by {check.error:.1g}"
        if check.passed:
            yield Finding("kernels", text)
        else:
            yield Finding(
                "kernels",
                f"{text} in a step of {check.tokens} tokens; up to {check.tolerance:g} could be rounding",
                f"{REFERENCE}; please report this line",
                problem=True,
            )


def disk() -> Finding:
    """Free space in the folder for downloads."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    text = f"{format_bytes(free)} free in {folder}, the folder for downloads"
    if free >= DOWNLOAD_BYTES:
        return Finding("disk", text)
    needed = format_bytes(DOWNLOAD_BYTES)
    return Finding("disk", text, f"gpt-oss-20b needs {needed}; HF_HOME sets another folder")


def port(settings: Settings) -> Finding:
    try:
        with bind(settings.host, settings.port) as bound:
            host, number = bound.getsockname()[:2]
            return Finding("port", f"{number} is free on {host}")
    except StartError as error:
        text, _, remedy = str(error).partition("; ")
        return Finding("port", text, remedy, problem=True)


LOCAL = ("127.0.0.1", "::1", "localhost")


def access(settings: Settings) -> Finding:
    try:
        keys = settings.api_keys()
    except SettingsError as error:
        return Finding("access", str(error), "write one key on each line", problem=True)
    if keys:
        return Finding("access", f"{len(keys)} API keys are accepted")
    if settings.host in LOCAL:
        return Finding("access", f"no API key: only programs on this machine can reach {settings.host}")
    return Finding(
        "access",
        f"no API key, and other machines may reach {settings.host}: anyone there can use the model",
        "set keys with --api-key-file",
    )
