"""Rank 0: starts the other ranks, loads its own part meanwhile, and leads the computation."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss.ranks.channel import RankLost
from gptoss.ranks.job import Job
from gptoss.ranks.others import Others
from gptoss.start import StartError
from model import backends as kernels
from model import device as devices
from model.loading.checkpoint import Checkpoint
from model.parallel.lead import Leader, leader
from model.parallel.ranks import check_divisible, disconnect
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Started:
    """
    model    the model for the engine: all ranks together
    weights  bytes of the weights of each rank
    free     free bytes on the device of each rank; on a CPU, each rank's share of the free memory
    devices  the device of each rank
    """

    model: Leader
    others: Others
    weights: list[int]
    free: list[int]
    devices: list[str]


def check(settings: Settings, checkpoint: Checkpoint, device: devices.Device) -> None:
    """Raises StartError or CheckpointError if the model cannot be split as asked."""
    size = settings.tensor_parallel
    check_divisible(checkpoint.config, size)
    if device.type == "cuda":
        count = devices.gpus()
        if (device.index or 0) + size > count:
            raise StartError(
                f"--tensor-parallel {size} needs {size} GPUs, from {device} on; there are {count} in all"
            )
    if settings.prefix_cache_dir is not None:
        raise StartError("--prefix-cache-dir does not work with --tensor-parallel yet")


def start(
    settings: Settings, checkpoint: Checkpoint, device: devices.Device, options: dict[str, Any]
) -> Started:
    """Starts all ranks, and waits until their parts are loaded.  Raises StartError or CheckpointError."""
    size = settings.tensor_parallel
    name = kernels.choose(device, settings.backend)
    threads = max(1, (settings.threads or devices.physical_cores()) // size)
    if "threads" in kernels.load(device, name).defaults:
        options = options | {"threads": threads}
    meeting = Path(tempfile.mkdtemp(prefix="gptoss-")) / "ranks"  # mkdtemp's folder is only for this user
    job = Job(
        rank=0,
        size=size,
        folder=str(checkpoint.folder),
        device=str(device),
        backend=name,
        options=options,
        threads=threads,
        meeting=str(meeting),
        log_level=settings.log_level,
        log_format=settings.log_format,
    )
    others = Others(job)
    try:
        return _loaded(job, others, checkpoint, device)
    except BaseException as error:
        end(others)
        if isinstance(error, RankLost):
            raise StartError(str(error)) from error
        raise


def _loaded(job: Job, others: Others, checkpoint: Checkpoint, device: devices.Device) -> Started:
    others.wait_for_replies("here")
    group = others.run_unless_lost(job.connect)
    model = others.run_unless_lost(lambda: job.build(group, checkpoint))
    if device.type == "cpu":  # torch's number of threads belongs to a thread: set it in this one too
        devices.use(device, 1 if job.backend == "cpu" else job.threads)
    weights = [model.weight_bytes, *others.wait_for_replies("loaded")]
    others.broadcast({"do": "measure"})
    free = others.wait_for_replies("free")
    if device.type == "cuda":
        free.insert(0, devices.free_bytes(device))
    else:
        free = [min(free) // job.size] * job.size  # all ranks share one memory
    lead = leader(model, checkpoint.config, group, others.broadcast, others.explain)
    return Started(lead, others, weights, free, [job.of_rank(rank).device for rank in range(job.size)])


def end(others: Others) -> None:
    """End all other ranks and disconnect from them, so that another model can be started in this process."""
    others.close()
    disconnect()
