"""How much time the host adds to a decode step of the real engine on a GPU, with and without overlap."""

from __future__ import annotations

import statistics
import time
from typing import Any

from bench.gpu.load import Decode
from engine.admission import Limits
from engine.engine import Engine
from engine.request import Request, SamplingParams
from engine.runner import Runner
from model.backends.triton.triton_model import TritonModel
from model.batch import pages_for

SAMPLING = {
    "greedy": SamplingParams(temperature=0),
    "top_p": SamplingParams(top_p=0.95, seed=1),
    "penalty": SamplingParams(repetition_penalty=1.1, frequency_penalty=0.1, seed=1),
}

TOKENS_PER_STEP = 2048
"""Maximum tokens of a step while prompts are computed."""


def measure(
    model: TritonModel, streams: int, context: int, steps: int, turns: int = 30
) -> list[dict[str, Any]]:
    """The rows of the table, one for each kind of sampling: milliseconds of the engine's steps without and
    with overlap, and the microseconds by which they are longer than the model's own.

    steps  number of measured steps of the engine, after some to warm up
    turns  number of measured steps of the model alone
    """
    alone = Decode(model, streams, context)
    device, _ = alone.seconds(turns)
    alone.close()
    rows = []
    for name, sampling in SAMPLING.items():
        row: dict[str, Any] = {"streams": streams, "context": context, "sampling": name}
        for order in ("in turn", "overlapped"):
            seconds = _step_seconds(model, streams, context, steps, sampling, order == "overlapped")
            key = order.replace(" ", "_")
            row[f"{key}_ms"] = round(1e3 * seconds, 3)
            row[f"{key}_exposed_us"] = round(1e6 * (seconds - device), 1)
        rows.append(row)
    return rows


def _step_seconds(
    model: TritonModel, streams: int, context: int, steps: int, sampling: SamplingParams, overlaps: bool
) -> float:
    """Seconds of a step of `streams` sequences with about `context` tokens each: the median."""
    window, size = model.config.sliding_window, model.page_size
    prompt = max(1, context - steps // 2)
    reading = streams * (
        1 + prompt // (TOKENS_PER_STEP - streams)
    )  # steps in which the first sequences already answer
    answer = reading + steps + 20
    full = streams * -(-(prompt + answer) // size)
    banded = streams * (-(-window // size) + 2) + -(-TOKENS_PER_STEP // size)
    pages = pages_for(banded, full, model.page_bytes)
    limits = Limits(
        num_pages=pages,
        page_size=size,
        window=window,
        max_context=model.config.max_context,
        max_running=streams,
        max_tokens_per_step=TOKENS_PER_STEP,
        prefix_cache=False,
    )
    engine = Engine(Runner(model, pages, overlaps=overlaps), limits)
    for n in range(streams):
        tokens = [(n + 7 * i) % model.config.vocab_size for i in range(prompt)]
        engine.add(Request(str(n), tokens, answer, sampling=sampling))
    while engine.stats().prompt_tokens < streams * prompt:
        engine.step()
    walls: list[float] = []
    while len(walls) < steps + 5:
        began = time.perf_counter()
        engine.step()
        walls.append(time.perf_counter() - began)
    assert engine.stats().running == streams, "pages ran out, or an answer ended"
    if model.graphs is not None:
        model.graphs.forget()  # graphs keep a reference to the cache
    return statistics.median(walls[5:])
