"""What a rank loads, and with which options.  Rank 0 sends it to the other ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from model import backends as kernels
from model import device as devices
from model.interfaces import LoadedModel
from model.loading.checkpoint import Checkpoint
from model.loading.part import Part
from model.loading.synthetic import Synthetic
from model.parallel.ranks import Group, connect


@dataclass(frozen=True, slots=True)
class Job:
    """
    device   of this rank
    options  of the backend
    threads  number of threads of this rank, if it is on a CPU, which all ranks share
    meeting  path through which the ranks find each other; see `model.parallel.ranks.connect`
    """

    rank: int
    size: int
    folder: str
    device: str
    backend: str
    options: Mapping[str, Any]
    threads: int
    meeting: str
    log_level: str
    log_format: str

    def of_rank(self, rank: int) -> Job:
        """The job of another rank, with that rank's own device."""
        return replace(self, rank=rank, device=str(devices.nth(devices.named(self.device), rank - self.rank)))

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Job:
        """The job that `str` has written as text."""
        return cls(**json.loads(text))

    def connect(self) -> Group:
        """Connect to the other ranks."""
        device = devices.find(self.device)
        devices.use(device, self.threads)
        invariant = bool(self.options.get("batch_invariant"))
        return connect(self.rank, self.size, device, Path(self.meeting), invariant)

    def build(self, group: Group, checkpoint: Checkpoint | Synthetic | None = None) -> LoadedModel:
        """This rank's part of the model.

        checkpoint  the whole checkpoint; None: the one in `folder`
        """
        device = devices.find(self.device)
        whole = Checkpoint.open(Path(self.folder)) if checkpoint is None else checkpoint
        part = part_of(whole, group)
        return kernels.load(device, self.backend).build(part, device, ranks=group, **self.options)


def part_of(whole: Checkpoint | Synthetic, group: Group) -> Checkpoint | Part:
    if isinstance(whole, Synthetic):
        return Part(whole, group)
    part = whole.part(group)
    part.on_read = whole.on_read
    return part
