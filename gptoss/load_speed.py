"""Measures the time to load a checkpoint, compared with the time to read its files.

Every byte must be read once.  The time for that is measured on the same files twice: first as they are, on
the disk or in the page cache, then when they are in the page cache.  The reader does nothing with the data.
`times_reading` is the time to load, divided by the second of these.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

from gptoss.assembly import build, folder_of
from model import device as devices
from model.byte_sizes import format_bytes
from model.loading.checkpoint import Checkpoint
from server.settings import Settings

CHUNK = 1 << 20
"""Bytes of one read; they fit into the processor's cache, so that only reading is measured."""


@dataclass(frozen=True, slots=True)
class Loading:
    """
    file_bytes      size of the checkpoint's files
    found_seconds   time to read them the first time
    cached_seconds  time to read them again, from the page cache
    seconds         time from opening the checkpoint to a ready model
    peak_bytes      maximum memory of this process, including libraries and mapped files
    """

    file_bytes: int
    found_seconds: float
    cached_seconds: float
    seconds: float
    peak_bytes: int

    @property
    def times_reading(self) -> float:
        return self.seconds / self.cached_seconds

    def __str__(self) -> str:
        def line(what: str, seconds: float) -> str:
            return f"{what:>30}  {seconds:>8.2f} s  {format_bytes(self.file_bytes / seconds)}/s"

        peak, size = format_bytes(self.peak_bytes), format_bytes(self.file_bytes)
        return "\n".join(
            (
                line("reading, first time", self.found_seconds),
                line("reading, from the page cache", self.cached_seconds),
                line("loading", self.seconds) + f", {self.times_reading:.1f} times reading",
                f"{'peak memory':>30}  {peak}, for files of {size}",
            )
        )


def measure_loading(settings: Settings, device: devices.Device) -> Loading:
    """Raises StartError or CheckpointError."""
    files = sorted(Checkpoint.open(folder_of(settings)).folder.glob("*.safetensors"))
    found, cached = _read(files), _read(files)
    began = time.perf_counter()
    model = build(settings, Checkpoint.open(folder_of(settings)), device)
    devices.wait(model.device)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return Loading(sum(file.stat().st_size for file in files), found, cached, seconds, peak)


def _read(files: list[Path]) -> float:
    """Seconds to read all of them, one after the other."""
    buffer = memoryview(bytearray(CHUNK))
    began = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - began
