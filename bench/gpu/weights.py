"""How fast weights come from files in the page cache to the GPU, by the very path that the server takes.

A checkpoint of some of the model's layers is written to a temporary folder once; all that is measured reads
it, after one round that does not count.  The ceiling is the link: pinned memory copied in large pieces, in
the same run.  Between the two lie, each measured by itself:

    reading      files into buffers by so many threads, and nothing else
    arriving     the same, and the copies to the GPU: every tensor of the checkpoint is there
    weights      the same, and each in the form that kernels read: what a server waits for

The seconds of a whole model are its bytes over the rate of `weights`, a layer being like another.
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
"""Of the model, if there are so many and they fit: 6 GB of 20b."""

READERS = (1, 4, 8, 12, 16)
ROUNDS = 5
COPIES, LINK_BYTES = 16, 64 << 20


def measure(config: ModelConfig, device: torch.device, dense: str) -> dict[str, Any]:
    """`dense` as the server's flag.  Rates are in 10^9 bytes of the files per second, medians."""
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
    """On the device, in whose memory each is made too, and on the disk."""
    room = [shutil.disk_usage(folder).free]
    if device.type == "cuda":
        room.append(free_bytes(device))
    layers = min(LAYERS, config.num_layers)
    while layers and Synthetic(replace(config, num_layers=layers)).nbytes > 0.7 * min(room):
        layers -= 1
    return layers


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Median of several rounds, after one that does not count.  What a round returns is let go of: each has
    to take its memory of the GPU anew, as a server does."""
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
    """A device that has no memory, and to which nothing is copied."""

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
    """Bytes per second of pinned memory that is copied in large pieces."""
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
