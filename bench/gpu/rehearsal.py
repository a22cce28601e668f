"""Runs bench.gpu without a GPU, with a tiny model in Triton's interpreter, to test its parts and their
handling of faults.

The times mean nothing.  `GPTOSS_PLANT=check=tolerance,decode=crash` injects a fault into each named part:

    tolerance  checks fail, as if kernels computed wrong results
    exception  an exception is raised in the middle of the part
    hang       the part never ends
    crash      the process of the part dies, as by a fault in native code
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from bench.gpu import engine as gpu_engine
from bench.gpu import kernels as gpu_kernels
from model.backends.triton import triton_checks
from model.backends.triton.kernels import dense, experts_few
from model.backends.triton.triton_model import TritonModel
from model.check import SMALL

FAULTS = ("tolerance", "exception", "hang", "crash")
CONFIG = replace(
    SMALL,
    hidden_size=64,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    num_experts=3,
    experts_per_token=2,
    intermediate_size=32,
    sliding_window=7,
    initial_context_length=256,
)
"""A very small model, because the interpreter takes seconds for a step."""
DECODES = ((1, 20),)
PREFILLS = (5,)
STREAMS, CONTEXT, STEPS = (1,), 20, 1
PROFILED = (1,), 20, 1


class Event:
    """Replaces torch.cuda.Event; uses the host's clock."""

    def __init__(self, enable_timing: bool = False):
        self._at = 0.0

    def record(self) -> None:
        self._at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: Event) -> float:
        return 1e3 * (later._at - self._at)


class Graph:
    """Replaces torch.cuda.CUDAGraph: a capture runs its operations once, and a replay does nothing."""

    def replay(self) -> None:
        pass


@contextmanager
def _captured(graph: Graph, **_: Any) -> Iterator[None]:
    yield


def pieces(model: TritonModel) -> Iterator[gpu_kernels.Piece]:
    yield from gpu_kernels._few(model, 1)
    yield from gpu_kernels._many(model, 4)


def begin() -> None:
    """Replace the clock and the graphs of a GPU in this process."""
    assert os.environ.get("TRITON_INTERPRET") == "1", "kernels are interpreted from their definition on"
    told = SimpleNamespace(
        name="none: a rehearsal", major=9, minor=0, multi_processor_count=4, total_memory=2**33
    )
    for name, value in {
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": _captured,
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda *_: (2**33, 2**33),
        "get_device_properties": lambda *_: told,
        "get_device_capability": lambda *_: (8, 0),
    }.items():
        mock.patch.object(torch.cuda, name, value).start()
    mock.patch.object(gpu_kernels, "pieces", pieces).start()
    mock.patch.object(triton_checks, "TOKENS", (1, 9)).start()
    mock.patch.object(gpu_engine, "SAMPLING", {"greedy": gpu_engine.SAMPLING["greedy"]}).start()
    for tile in (experts_few.GATE_UP_TILE, experts_few.DOWN_TILE, dense.ROW_TILE, dense.SMALL_TILE):
        mock.patch.dict(
            tile, {"BN": 64}
        ).start()  # the time of the interpreter depends on the number of programs
    torch.set_num_threads(1)  # several threads would wait for each other on a busy machine


def planted(part: str) -> None:
    """Inject the fault that `GPTOSS_PLANT` names for this part, if it names one."""
    faults = dict(each.split("=") for each in os.environ.get("GPTOSS_PLANT", "").split(",") if each)
    acts: dict[str, Callable[[], None]] = {
        "tolerance": lambda: triton_checks.TOLERANCE.update(dict.fromkeys(triton_checks.TOLERANCE, -1.0)),
        "exception": _raise,
        "hang": lambda: time.sleep(1e6),
        "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    }
    if part in faults:
        acts[faults[part]]()


def _raise() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered (planted)")
