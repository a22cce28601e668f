"""The speed of loading weights from files in the page cache to the GPU, with the code that the server uses.

A checkpoint with some layers of the model is written to a temporary folder, and then read several times; the
first time is not counted.  The upper limit is the speed of the link, measured in the same run by copying
pinned memory in large pieces.  Measured separately:

    reading      reading the files into buffers, with different numbers of threads
    arriving     the same, and copying all tensors to the GPU
    weights      the same, and converting them to the kernels' format: the time that a server waits

The time for a whole model is calculated from the speed of `weights`, because all layers are alike.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.gpu.load import Random
from bench.synthetic import Synthetic, write
from model.backends.triton.weights import Reader
from model.config import ModelConfig
from model.device import free_bytes, wait
from model.loading import upload
from model.loading.checkpoint import Checkpoint
from model.loading.shards import open_all
from model.loading.upload import Buffer, SharedMemory, Uploads

LAYERS = 8
"""Maximum number of layers: 6 GB of 20b."""

READERS = (1, 4, 8, 12, 16)
ROUNDS = 5
COPIES, LINK_BYTES = 16, 64 << 20


def measure(config: ModelConfig, device: torch.device, dense: str) -> dict[str, Any]:
    """The results.  Speeds are medians, in 10^9 bytes of the files per second.

    dense  as the server's flag
    """
    with tempfile.TemporaryDirectory(prefix="gptoss-bench-") as place:
        layers = _layers_that_fit(config, device, Path(place))
        if not layers:
            return {"skipped": f"not one layer fits on {device} and in {place}"}
        began = time.perf_counter()
        some = replace(config, num_layers=layers)
        write(Path(place), Random(some, device.type), "hf")
        found = {"layers": layers, "gb": _rounded(Synthetic(some).nbytes / 1e9)}
        found["write_seconds"] = _rounded(time.perf_counter() - began)
        return found | _measure(config, Path(place), device, dense)


def _measure(config: ModelConfig, folder: Path, device: torch.device, dense: str) -> dict[str, Any]:
    opening = _seconds(partial(Checkpoint.open, folder), device)
    nbytes = Checkpoint.open(folder).nbytes
    reading = {n: nbytes / _seconds(partial(_read, folder, n), device) for n in READERS}
    arriving = nbytes / _seconds(partial(_arrive, folder, device), device)
    weights = _seconds(lambda: Reader(Checkpoint.open(folder), device, torch.bfloat16, dense).all(), device)
    link = _link(device)
    return {
        "open_seconds": _rounded(opening),
        "link_gb_s": _rounded(link / 1e9),
        "reading_gb_s": {n: _rounded(rate / 1e9) for n, rate in reading.items()},
        "arriving_gb_s": _rounded(arriving / 1e9),
        "gb_s": _rounded(nbytes / weights / 1e9),
        "share_of_link": _rounded(nbytes / weights / link),
        "whole_gb": _rounded(Synthetic(config).nbytes / 1e9),
        "whole_seconds": _rounded(Synthetic(config).nbytes / nbytes * weights),
    }


def _layers_that_fit(config: ModelConfig, device: torch.device, folder: Path) -> int:
    """Number of layers for which there is room on the disk, and on the device, which also generates them."""
    room = [shutil.disk_usage(folder).free]
    if device.type == "cuda":
        room.append(free_bytes(device))
    layers = min(LAYERS, config.num_layers)
    while layers and Synthetic(replace(config, num_layers=layers)).nbytes > 0.7 * min(room):
        layers -= 1
    return layers


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Median seconds of several rounds, after one that is not counted.  The memory of each round's result is
    freed, so that each round allocates its own, as a server does.
    """
    seconds = []
    for _ in range(ROUNDS + 1):
        if device.type == "cuda":
            torch.cuda.empty_cache()
        wait(device)
        began = time.perf_counter()
        kept = run()
        wait(device)
        seconds.append(time.perf_counter() - began)
        del kept
    return statistics.median(seconds[1:])


class _Nowhere(SharedMemory):
    """Stands for a device, but copies nothing."""

    def __init__(self) -> None:
        super().__init__(torch.device("meta"))

    def send(self, buffer: Buffer, size: int, target: torch.Tensor) -> None:
        pass


def _read(folder: Path, threads: int) -> None:
    regions = [stored.region for stored in open_all(folder).values()]
    with Uploads(regions, _Nowhere(), threads) as uploads:
        deque(uploads, maxlen=0)


def _arrive(folder: Path, device: torch.device) -> None:
    checkpoint = Checkpoint.open(folder)
    with checkpoint.onto(device) as tensors:
        for name in checkpoint.names:
            tensors.read(name)


def _link(device: torch.device) -> float:
    """Bytes per second of copying pinned memory to the device in large pieces."""
    channel = upload.channel(device)
    with torch.inference_mode(), channel.thread():
        buffer, target = channel.buffer(LINK_BYTES), channel.place(LINK_BYTES)

        def copies() -> None:
            for _ in range(COPIES):
                channel.send(buffer, LINK_BYTES, target)

        try:
            return COPIES * LINK_BYTES / _seconds(copies, device)
        finally:
            buffer.close()


def _rounded(number: float) -> float:
    return float(f"{number:.3g}")
