"""A runner without a model, to measure only the engine and the server.

Each answer is a harmony header, and then the same word until `max_tokens` is reached.  Steps can take a given
time: then the thread sleeps without the GIL, as while it waits for a GPU.

    python -m bench.standin --port 8123 --step-ms 17        the real server with this runner
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import uvicorn

from engine.admission import Limits
from engine.engine import Engine
from engine.request import Plan, Sampled
from engine.worker import Worker
from language.tokenizer import Tokenizer
from server.app import create_app
from server.settings import Settings

DEMO_TOKENIZER = Path(__file__).parent.parent / "demo" / "weights" / "tokenizer.json"


class StandIn:
    """A `StepRunner` whose steps take `step_seconds`; 0: no time."""

    def __init__(self, tokenizer: Tokenizer, step_seconds: float = 0.0):
        self.vocab_size = max(tokenizer.size, *tokenizer.specials.values()) + 1
        self._header = [
            tokenizer.special("<|channel|>"),
            *tokenizer.encode("final"),
            tokenizer.special("<|message|>"),
        ]
        self._word = tokenizer.encode(" the")[0]
        self._step_seconds = step_seconds
        self._due = 0.0

    def run(self, plan: Plan) -> Sampled:
        if self._step_seconds:
            # Like a busy GPU: a step begins when the previous one has ended, if it was launched by then.
            self._due = max(self._due, time.perf_counter() - self._step_seconds) + self._step_seconds
            time.sleep(max(0.0, self._due - time.perf_counter()))
        header, word, sampling = self._header, self._word, (c.sequence for c in plan.chunks if c.samples)
        return Sampled([header[s.answered] if s.answered < len(header) else word for s in sampling])


def engine(tokenizer: Tokenizer, step_seconds: float, running: int) -> Engine:
    """An engine with this runner, and room for `running` long answers at once."""
    pages = running * 64
    limits = Limits(
        num_pages=2 * pages,
        page_size=32,
        window=128,
        max_context=131072,
        max_running=running,
        max_queued=1024,
    )
    return Engine(StandIn(tokenizer, step_seconds), limits)


def main() -> None:
    parser = argparse.ArgumentParser(description="The server around a stand-in for the model")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--step-ms", type=float, default=0.0)
    parser.add_argument("--running", type=int, default=256)
    parser.add_argument("--tokenizer", type=Path, default=DEMO_TOKENIZER)
    asked = parser.parse_args()
    tokenizer = Tokenizer(asked.tokenizer)
    worker = Worker(engine(tokenizer, asked.step_ms / 1e3, asked.running))
    app = create_app(worker, tokenizer, Settings(max_queued=1024), "stand-in", max_context=131072)
    uvicorn.run(app, port=asked.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
