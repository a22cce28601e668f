"""Rank 0: start the other ranks, load its own part meanwhile, and lead."""

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
    model    what the engine runs: all ranks together
    weights  bytes of each rank's, by rank
    free     bytes of the device that nobody has taken, for each rank: of a CPU's memory, its share
    devices  one for each rank
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
                f"--tensor-parallel {size} takes a GPU for each rank, from {device} on; there are {count}"
            )
    if settings.prefix_cache_dir is not None:
        raise StartError("--prefix-cache-dir does not work with --tensor-parallel yet")


def start(
    settings: Settings, checkpoint: Checkpoint, device: devices.Device, options: dict[str, Any]
) -> Started:
    """All ranks, with their parts loaded.  Raises StartError or CheckpointError."""
    size = settings.tensor_parallel
    name = kernels.choose(device, settings.backend)
    threads = max(1, (settings.threads or devices.physical_cores()) // size)
    if "threads" in kernels.load(device, name).defaults:
        options = options | {"threads": threads}
    meeting = Path(tempfile.mkdtemp(prefix="gptoss-")) / "ranks"  # in a folder that nobody else may enter
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
    others.answers("here")
    group = others.while_they_live(job.connect)
    model = others.while_they_live(lambda: job.build(group, checkpoint))
    if device.type == "cpu":  # for this thread too, as the CPU backend has its own threads
        devices.use(device, 1 if job.backend == "cpu" else job.threads)
    weights = [model.weight_bytes, *others.answers("loaded")]
    others.tell({"do": "measure"})
    free = others.answers("free")
    if device.type == "cuda":
        free.insert(0, devices.free_bytes(device))
    else:
        free = [min(free) // job.size] * job.size  # of one memory
    lead = leader(model, checkpoint.config, group, others.tell, others.explain)
    return Started(lead, others, weights, free, [job.of_rank(rank).device for rank in range(job.size)])


def end(others: Others) -> None:
    """End all other ranks, and forget that there were any: another model may then be started here."""
    others.close()
    disconnect()
