"""Whether the kernels should prefetch weights: processors differ, so it is measured when a model is built.

On one core of Zen 5, a prototype read 29 GB/s with prefetching and 8 without.  On Zen 4, whose own
prefetchers recognise these streams, a step of one token takes 6% longer with prefetching (bench/LOG.md), but
a step of several 7 to 17% longer without, so these always prefetch.  Results are bit-identical either way.
"""

from __future__ import annotations

import logging
import statistics
import time
from typing import TYPE_CHECKING

import torch

from model.speed import Load

if TYPE_CHECKING:
    from model.backends.cpu.cpu_model import CpuModel

log = logging.getLogger(__name__)

ROUNDS = 6
"""Pairs of steps to time; one second in all for gpt-oss-20b.  The number is even, because the second of a
pair finds more in the caches, and each variant is second equally often.
"""


def prefetching_helps(model: CpuModel) -> bool:
    """Times steps of one token, alternating with and without, so that other programs disturb both equally."""
    load = Load(model, 1, 1, 0)
    ratios = []
    with torch.inference_mode():
        model.forward(load.batch(0), load.cache)
        for turn in range(ROUNDS):
            batch = load.batch(turn)
            seconds = {}
            for wanted in (True, False) if turn % 2 else (False, True):
                model.prefetch(wanted)
                start = time.perf_counter()
                model.forward(batch, load.cache)
                seconds[wanted] = time.perf_counter() - start
            ratios.append(seconds[True] / seconds[False])
    ratio = statistics.median(ratios)
    log.debug(
        "a step that prefetches weights takes %.2f times as long as one without: %s",
        ratio,
        "off" if ratio > 1 else "on",
    )
    return ratio <= 1
