"""Measures whether decode steps are faster on this GPU if each kernel begins while the previous one ends.

dependent_launch.py explains such launches.  They are used if they are faster, and results are bit-identical.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from model.backends.triton.kernels import dependent_launch
from model.backends.triton.triton_model import TritonModel
from model.batch import Batch, pages_for

log = logging.getLogger(__name__)

STEPS = 20
"""A measured time is the mean of this many replays."""


def pays(model: TritonModel) -> bool:
    """Whether decode steps of one token are faster with such launches.  Takes about a second."""
    if model.graphs is None or torch.cuda.get_device_capability(model.device) < dependent_launch.OLDEST:
        return False
    try:
        apart, overlapping, same = measure(model)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        log.warning("kernels will not overlap: %s", str(error).splitlines()[0])
        return False
    log.info("a token takes %.2f ms, or %.2f if kernels overlap", 1e3 * apart, 1e3 * overlapping)
    if not same:
        log.warning("kernels will not overlap, because results would not be bit-identical on this GPU")
    return same and overlapping < apart


def measure(model: TritonModel) -> tuple[float, float, bool]:
    """Seconds of a decode step of one token, run through a graph as in the engine: without and with
    overlapping kernels; and whether the logits of both are bit-identical.
    """
    seconds: dict[bool, list[float]] = {False: [], True: []}
    logits: dict[bool, Tensor] = {}
    chosen = model.pdl
    try:
        with torch.inference_mode():
            for model.pdl in (False, True, False, True):
                logits[model.pdl], took = _step(model)
                seconds[model.pdl].append(took)
    finally:
        model.pdl = chosen
    return min(seconds[False]), min(seconds[True]), torch.equal(logits[False], logits[True])


def _step(model: TritonModel) -> tuple[Tensor, float]:
    """Logits of a sequence's first token, and the seconds of a step, run through a new graph."""
    assert model.graphs is not None
    cache, device = model.new_cache(pages_for(1, 1, model.page_bytes)), model.device
    batch = Batch.of([(0, 1)], torch.tensor([[[0]], [[1]]], device=device), model.page_size)
    try:
        logits = model.forward(batch, cache).clone()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(STEPS):
            model.forward(batch, cache)
        end.record()
        end.synchronize()
        return logits, start.elapsed_time(end) / STEPS / 1e3
    finally:
        model.graphs.forget()
