"""The time of each kernel in a decode step on the GPU, from the driver's tracer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.load import Decode
from model.backends.triton.triton_model import TritonModel

Span = tuple[float, float, str]
"""Beginning and end of a kernel in microseconds, and its name."""


def measure(model: TritonModel, streams: int, context: int, steps: int) -> list[dict[str, Any]]:
    """Trace steps as the engine runs them.  Returns the rows of `table`."""
    load = Decode(model, streams, context)
    on_gpu = model.device.type == "cuda"
    for turn in range(3):
        model.forward(load.batch(turn), load.cache)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        for turn in range(steps):
            model.forward(load.batch(turn), load.cache)
        torch.cuda.synchronize()
    load.close()
    kind = "CUDA" if on_gpu else "CPU"
    events = [event for event in seen.events() or () if event.device_type.name == kind]
    spans = ((event.time_range.start, event.time_range.end, event.name) for event in events)
    return [{"streams": streams, **row} for row in table(spans, steps)]


def table(spans: Iterable[Span], steps: int) -> list[dict[str, Any]]:
    """A row for each kernel: how often it runs in a step, and its microseconds in a step.  The kernel that
    takes the most time is first.

    The last row is the time in which no kernel ran.  If kernels begin early (dependent_launch.py), the sum is
    larger than the elapsed time, because each kernel waits for the previous one.
    """
    launches: dict[str, int] = {}
    busy: dict[str, float] = {}
    idle, over = 0.0, None
    for begin, end, name in sorted(spans):
        launches[name] = launches.get(name, 0) + 1
        busy[name] = busy.get(name, 0.0) + end - begin
        idle += max(0.0, begin - over) if over is not None else 0.0
        over = end if over is None else max(over, end)
    rows = [(name, launches[name], busy[name]) for name in sorted(busy, key=lambda name: -busy[name])]
    return [
        {"kernel": name[:40], "launches": round(count / steps, 1), "us": round(us / steps, 2)}
        for name, count, us in (*rows, ("(none)", 0, idle))
    ]
