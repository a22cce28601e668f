"""`gptoss bench`: prefill and decode on the user's machine, compared with the speed of its memory.

    prefill        one prompt of 512 tokens in one step
    decode         one token of one stream, after 100 and after 8000 others
    streams        one token of each of 4 and 16 streams, in one step
    engine         time of a step outside the model: scheduling, sampling, bookkeeping

Everything uses the `Model` protocol, so it is the same on every device; model/speed.py times steps and
memory.  Prints a table for users, and on the last line one object of JSON for programs.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from engine.admission import Limits
from engine.engine import Engine
from engine.request import Request, SamplingParams
from engine.runner import Runner
from gptoss.assembly import DEMO, build, folder_of, free_bytes, name_of
from gptoss.load_speed import measure_loading
from gptoss.start import StartError
from model import backends as kernels
from model import device as devices
from model.byte_sizes import format_bytes
from model.config import CheckpointError, ModelConfig
from model.loading.checkpoint import Checkpoint
from model.loading.synthetic import SIZES, Synthetic
from model.speed import Load, time_steps
from server.settings import Settings
from server.version import VERSION

if TYPE_CHECKING:
    from model.batch import Batch, KVCache
    from model.interfaces import LoadedModel

PROMPT = 512
CONTEXTS = (100, 8000)
STREAMS = (4, 16)
MOST_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Case:
    """`sequences` chunks of `length` tokens, each after `context` other tokens.

    key   its name in the JSON
    name  its name in the table
    """

    key: str
    name: str
    sequences: int
    length: int
    context: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table.  None: not measured, because memory is not the limit or its bytes are not known.

    milliseconds  of a step, the median; `fastest` is the minimum
    memory        speed of the device's memory in bytes per second, the median
    share         share of the memory's speed that the steps reached, the median
    """

    rounds: int
    milliseconds: float
    fastest: float
    tokens_per_second: float
    memory: float | None = None
    share: float | None = None


def bench(settings: Settings, asked: argparse.Namespace) -> int:
    """Raises StartError."""
    try:
        device = devices.find(settings.device)
        name, checkpoint = _weights(settings, asked.synthetic)
        if asked.load:
            if asked.synthetic:
                raise StartError("--load reads files, and --synthetic has none; give --model")
            facts = _facts(settings, device, name)
            loading = measure_loading(settings, device)
            print(f"\n{loading}")
            return _tell(facts | {"load": asdict(loading) | {"times_reading": loading.times_reading}})
        began = time.perf_counter()
        model = build(settings, checkpoint, device)
    except (CheckpointError, devices.DeviceError) as error:
        raise StartError(str(error)) from error
    facts = _facts(settings, device, name) | {"load_seconds": round(time.perf_counter() - began, 2)}
    return _tell(facts | _measure(model, asked.seconds))


def _weights(settings: Settings, synthetic: str | None) -> tuple[str, Checkpoint | Synthetic]:
    if synthetic is None:
        return name_of(settings), Checkpoint.open(folder_of(settings))
    config = ModelConfig.read(DEMO) if synthetic == "demo" else SIZES[synthetic]
    return f"random {synthetic}", Synthetic(config)


def _facts(settings: Settings, device: devices.Device, name: str) -> dict[str, Any]:
    """What is measured, and on which machine."""
    facts = {
        "gptoss": VERSION,
        "torch": version("torch"),
        "python": platform.python_version(),
        "system": platform.system(),
        "device": devices.describe(device),
        "backend": kernels.choose(device, settings.backend),
        "model": name,
    }
    print(f"{facts['model']} on {facts['device']}, {facts['backend']} kernels")
    print(f"gptoss {facts['gptoss']}, torch {facts['torch']}, Python {facts['python']}, {facts['system']}")
    return facts


def _tell(facts: dict[str, Any]) -> int:
    print(json.dumps(facts))
    return 0


def _measure(model: LoadedModel, seconds: float) -> dict[str, Any]:
    """All results, each printed as soon as it is known."""
    choices = dict(model.settings)
    told = "".join(f", {key} {value}" for key, value in choices.items())
    print(f"{format_bytes(model.weight_bytes)} of weights{told}\n")
    print(f"{'':>30}  {'step':>10}  {'tokens/s':>9}  share of the memory's speed")
    results: dict[str, Any] = {}
    for case in _cases(model):
        if (missing := _lacks(model, case)) is not None:
            print(f"{case.name:>30}  too little memory: its KV cache needs {format_bytes(missing)}")
            results[case.key] = None
            continue
        measured = _time(model, case, seconds)
        results[case.key] = asdict(measured)
        print(_line(case.name, measured), flush=True)
    outside = _outside(model)
    print(f"{'engine, outside the model':>30}  {1e3 * outside:>7.2f} ms  for each step")
    if any(result and (result["share"] or 0) > 1 for result in results.values()):
        print("More than the memory's speed: the data of such a step stays in the processor's caches.")
    facts = {"weight_bytes": model.weight_bytes, **choices, "results": results}
    return facts | {"engine_milliseconds": round(1e3 * outside, 3)}


def _cases(model: LoadedModel) -> list[Case]:
    limit = model.config.max_context - 1
    prompt = min(PROMPT, limit)
    cases = [Case(f"prefill_{prompt}", f"prefill, {prompt} tokens", 1, prompt, 0)]
    for context in sorted({min(each, limit) for each in CONTEXTS}):
        cases.append(Case(f"decode_{context}", f"decode, after {context}", 1, 1, context))
    first = min(CONTEXTS[0], limit)
    for streams in STREAMS:
        cases.append(Case(f"streams_{streams}", f"decode, {streams} streams", streams, 1, first))
    return cases


def _lacks(model: LoadedModel, case: Case) -> int | None:
    """Bytes that the case's KV cache needs, if there is less memory."""
    needed = Load.cache_bytes(model, case.sequences, case.context + case.length)
    return needed if needed > 0.9 * free_bytes(model.device) else None


def _time(model: LoadedModel, case: Case, seconds: float) -> Measured:
    load = Load(model, case.sequences, case.length, case.context)
    if case.length > 1:
        timing = time_steps(load, rounds=MOST_ROUNDS, patience=seconds)
    else:
        # The experts that a batch of several chooses are not known here, nor the bytes that it reads.
        read = model.decode_bytes(case.context)
        needed = None if case.sequences > 1 else lambda: read
        measure = model.meter().measure
        timing = time_steps(
            load, rounds=MOST_ROUNDS, patience=seconds, memory_speed=lambda _: measure(), needed=needed
        )
    return Measured(
        rounds=len(timing.seconds),
        milliseconds=round(1e3 * statistics.median(timing.seconds), 3),
        fastest=round(1e3 * min(timing.seconds), 3),
        tokens_per_second=round(timing.tokens_per_second, 2),
        memory=statistics.median(timing.speeds) if timing.speeds else None,
        share=round(statistics.median(timing.shares), 3) if timing.shares else None,
    )


def _line(name: str, measured: Measured) -> str:
    line = f"{name:>30}  {measured.milliseconds:>7.1f} ms  {measured.tokens_per_second:>9.1f}"
    if measured.share is not None and measured.memory is not None:
        line += f"  {measured.share:.0%} of {format_bytes(measured.memory)}/s"
    return line


class _Watched:
    """A model that records the time of its last forward pass."""

    def __init__(self, model: LoadedModel):
        self._model = model
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forward(self, batch: Batch, cache: KVCache) -> Any:
        start = time.perf_counter()
        logits = self._model.forward(batch, cache)
        devices.wait(self._model.device)
        self.seconds = time.perf_counter() - start
        return logits


def _outside(model: LoadedModel, steps: int = 20) -> float:
    """Seconds of a step of one greedy stream outside the model: the median."""
    watched = _Watched(model)
    prompt = list(range(min(100, model.config.vocab_size, model.config.max_context // 2)))
    answer = min(steps, model.config.max_context - len(prompt))
    pages = 2 * (-(-(len(prompt) + answer) // model.page_size) + 1)
    engine = Engine(
        Runner(cast("LoadedModel", watched), pages),
        Limits(pages, model.page_size, model.config.sliding_window, max_context=model.config.max_context),
    )
    engine.add(Request("bench", prompt, max_tokens=answer, sampling=SamplingParams(temperature=0.0)))
    outside = []
    while engine.busy:
        start = time.perf_counter()
        engine.step()
        outside.append(time.perf_counter() - start - watched.seconds)
    return statistics.median(outside[2:] or outside)  # without the steps of the prompt and of the first token
