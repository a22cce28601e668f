"""CPU time of the engine itself per token, with a model that computes nothing.

The model always returns the same logits.  So the measured time is that of planning, building the batch,
choosing tokens and recording them, on the engine's thread.  On a GPU, it is added to the time of each step.

With --overlap, the model edits logits and chooses tokens, and steps are launched ahead, as on a GPU.  Then
the measured time is what the host does in a step, except for launching kernels.  If it is shorter than the
GPU's step, it adds nothing to that.

    python -m bench.engine_overhead --running 64 | tail -1 | jq .decode_us_per_token
    python -m bench.engine_overhead --running 1 --overlap
"""

import argparse
import cProfile
import itertools
import json
import platform
import pstats
import statistics
import time
from dataclasses import replace

import torch
from torch import Tensor

from engine.admission import Limits
from engine.engine import Engine
from engine.request import Request, SamplingParams
from engine.runner import Runner
from model.batch import Batch, KVCache
from model.draws import Draws
from model.loading.synthetic import GPT_OSS_20B
from model.logit_edits import Edits

PAGE_SIZE = 32
ROWS = 512


class EverySecondToken:
    """A constraint that allows every second token."""

    def __init__(self, vocab_size: int):
        self._words = memoryview(b"\x55\x55\x55\x55" * -(-vocab_size // 32))

    def mask(self) -> memoryview:
        return self._words

    def ready(self, seconds: float | None = 0) -> bool:
        return True

    def accept(self, token: int) -> None:
        pass


KINDS = {
    "greedy": SamplingParams(temperature=0),
    "sampled": SamplingParams(),
    # Small penalties, because the same logits are penalised again in every step.
    "penalised": SamplingParams(repetition_penalty=1.001, presence_penalty=0.001, frequency_penalty=0.001),
    "masked": SamplingParams(),
}


class NoModel:
    """A model without weights that computes nothing."""

    device = torch.device("cpu")
    page_size, page_bytes, weight_bytes, cache_format = PAGE_SIZE, 1, 0, "nothing"

    def __init__(self, vocab_size: int):
        self.config = replace(GPT_OSS_20B, vocab_size=vocab_size)
        self._logits = torch.randn(ROWS, vocab_size, generator=torch.Generator().manual_seed(0))

    def new_cache(self, num_pages: int) -> KVCache:
        nothing = torch.empty(1, num_pages, 0, 1, 1)
        return KVCache(nothing, nothing)

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        return self._logits[: len(batch.samples)]


class SamplingModel(NoModel):
    """A model that samples, without editing logits: its tokens were drawn in advance."""

    def __init__(self, vocab_size: int):
        super().__init__(vocab_size)
        noise = torch.Generator().manual_seed(0)
        # Even numbers, which the mask of `EverySecondToken` allows.
        chosen = torch.randint(vocab_size // 2, (997, 1, ROWS), generator=noise) * 2
        self._chosen = itertools.cycle(torch.cat((chosen, torch.ones_like(chosen)), 1))

    def edit(self, logits: Tensor, edits: Edits, latest: Tensor | None = None) -> None:
        pass

    def choose(self, logits: Tensor, draws: Draws, batch: Batch) -> Tensor:
        chosen: Tensor = next(self._chosen)
        return chosen[:, : len(logits)]


def measure(
    running: int, prompt: int, steps: int, vocab_size: int, kind: str, overlap: bool, profile: bool
) -> dict[str, float]:
    limits = Limits(
        num_pages=running * 2 * (prompt + steps + PAGE_SIZE) // PAGE_SIZE + 16,
        page_size=PAGE_SIZE,
        window=GPT_OSS_20B.sliding_window,
        max_context=GPT_OSS_20B.max_context,
        max_running=running,
        max_tokens_per_step=max(512, running),
    )
    model = SamplingModel(vocab_size) if overlap else NoModel(vocab_size)
    engine = Engine(Runner(model, limits.num_pages, overlaps=overlap), limits)
    for n in range(running):
        tokens = [(7 * n + i) % vocab_size for i in range(prompt)]
        constraint = EverySecondToken(vocab_size) if kind == "masked" else None
        engine.add(Request(str(n), tokens, steps, sampling=KINDS[kind], constraint=constraint))
    started = time.thread_time()
    while engine.stats().prompt_tokens < running * prompt:
        engine.step()
    prefill = time.thread_time() - started

    decodes = []
    profiler = cProfile.Profile()
    while engine.stats().running == running:
        if profile:
            profiler.enable()
        started = time.thread_time()
        events = engine.step()
        decodes.append((time.thread_time() - started) / max(1, len(events)))
        profiler.disable()
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(18)
    decodes = sorted(decodes[10:])
    return {
        "decode_us_per_token": 1e6 * statistics.median(decodes),
        "decode_us_per_token_p90": 1e6 * decodes[len(decodes) * 9 // 10],
        "prefill_us_per_token": 1e6 * prefill / (running * prompt),
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--running", type=int, default=64, help="sequences that decode together")
    parser.add_argument("--prompt", type=int, default=1000, help="tokens of each prompt")
    parser.add_argument("--steps", type=int, default=500, help="tokens of each answer")
    parser.add_argument(
        "--vocabulary", type=int, default=1000, help="number of tokens; with few, choosing takes little time"
    )
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of sampling, separated by commas")
    parser.add_argument(
        "--overlap", action="store_true", help="as on a GPU: the model chooses, steps are launched ahead"
    )
    parser.add_argument("--profile", action="store_true", help="print a profile; this makes steps slower")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}")
    outcome: dict[str, dict[str, float]] = {}
    for name in arguments.kinds.split(","):
        sizes = (arguments.running, arguments.prompt, arguments.steps, arguments.vocabulary)
        figures = measure(*sizes, name, arguments.overlap, arguments.profile)
        outcome[name] = figures
        print(name, *(f"{key} {value:.2f}" for key, value in figures.items()), sep="  ")
    print(json.dumps({**vars(arguments), **outcome}))


if __name__ == "__main__":
    main()
