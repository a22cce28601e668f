"""The CPU time of the server itself: many concurrent streams over HTTP, without a model, or with the demo
model or another one.

Without a model (bench/standin.py), all CPU time is that of the engine, the server and the operating system.
`cpu_us_per_token` is the CPU time of the server's process (user and system, all threads) for each streamed
token.  `http_over_offline` compares the speed with that of the same requests to an engine in this process,
without HTTP.  This process sends the requests, on the same machine: of two cores, one is left for the server.

With `--step-ms 0`, steps follow each other without a pause, and tokens that arrive together share a chunk.
With `--step-ms 17`, about the time of a GPU, each token has a chunk of its own; `events_per_token` shows
this.

    python -m bench.serve --streams 64 --step-ms 16 | tail -1 | jq .cpu_us_per_token
    python -m bench.serve --target demo --streams 16 --tokens 32
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench import load, standin
from engine.engine import Engine
from engine.request import Request, SamplingParams, Token
from language.tokenizer import Tokenizer

PROMPT = "Tell me about the sea."


def main() -> None:
    asked = arguments()
    server = start(asked)
    try:
        wait_until_ready(asked.port, server)
        rounds = [measure(asked, server.pid) for _ in range(asked.rounds + 1)][1:]  # without the first round
    finally:
        server.terminate()
        server.wait(30)
    result = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    result["http_over_offline"] = result["tokens_per_second"] / offline(asked)
    spread = [min(r["cpu_us_per_token"] for r in rounds), max(r["cpu_us_per_token"] for r in rounds)]
    report(asked, result, spread)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--target", default="standin", help="standin (no model), demo, or the folder of a model"
    )
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each answer")
    parser.add_argument("--step-ms", type=float, default=0.0, help="time of a step without a model")
    parser.add_argument(
        "--rounds", type=int, default=5, help="number of measured rounds, of which the median is reported"
    )
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument(
        "--tokenizer", type=Path, default=standin.DEMO_TOKENIZER, help="tokenizer to use without a model"
    )
    return parser.parse_args()


def start(asked: argparse.Namespace) -> subprocess.Popen[bytes]:
    if asked.target != "standin":
        words = [
            "server",
            "serve",
            f"--port={asked.port}",
            f"--max-running={asked.streams}",
            "--log-level=warning",
        ]
        if asked.target != "demo":
            words.append(f"--model={asked.target}")
    else:
        words = [
            "bench.standin",
            f"--port={asked.port}",
            f"--step-ms={asked.step_ms}",
            f"--running={asked.streams}",
        ]
        words.append(f"--tokenizer={asked.tokenizer}")
    return subprocess.Popen([sys.executable, "-m", *words])


def wait_until_ready(port: int, server: subprocess.Popen[bytes], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not become ready")


def body(asked: argparse.Namespace) -> dict[str, Any]:
    """A request whose answer has the maximum length."""
    return {
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": asked.tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }


def measure(asked: argparse.Namespace, pid: int) -> dict[str, float]:
    """Request all streams at once, and read them to their ends."""
    before = cpu_seconds(pid)
    bodies = [body(asked)] * asked.streams
    streams = asyncio.run(load.run("127.0.0.1", asked.port, "/v1/chat/completions", bodies, patience=300))
    used = cpu_seconds(pid) - before
    seen = load.summary(streams)
    if seen["good"] != asked.streams:
        raise SystemExit(f"only {seen['good']:g} of {asked.streams} streams ended well")
    tokens = asked.streams * asked.tokens
    return {
        **seen,
        "tokens_per_second": seen["events_per_second"] * tokens / seen["events"],
        "events_per_token": seen["events"] / tokens,
        "cpu_us_per_token": 1e6 * used / tokens,
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def offline(asked: argparse.Namespace) -> float:
    """Tokens per second of the same requests without HTTP."""
    engine = make_engine(asked)
    rates = []
    prompt = Tokenizer(asked.tokenizer).encode(PROMPT)
    for turn in range(asked.rounds):
        for stream in range(asked.streams):
            sampling = SamplingParams(temperature=0)
            engine.add(Request(f"{turn}-{stream}", prompt, asked.tokens, sampling=sampling))
        begun, tokens = time.perf_counter(), 0
        while engine.busy:
            tokens += sum(isinstance(event, Token) for event in engine.step())
        rates.append(tokens / (time.perf_counter() - begun))
    return statistics.median(rates)


def make_engine(asked: argparse.Namespace) -> Engine:
    if asked.target == "standin":
        return standin.engine(Tokenizer(asked.tokenizer), asked.step_ms / 1e3, asked.streams)
    from gptoss.assembly import assemble
    from server.settings import Settings

    model = None if asked.target == "demo" else Path(asked.target)
    return assemble(Settings(model=model, max_running=asked.streams)).engine


def report(asked: argparse.Namespace, result: dict[str, float], spread: list[float]) -> None:
    print(
        f"{asked.streams} streams of {asked.tokens} tokens, {asked.target}, step {asked.step_ms:g} ms;",
        end=" ",
    )
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}; medians of {asked.rounds} rounds")
    for name, value in result.items():
        print(f"  {name:20}{value:12.3f}")
    print(f"  cpu_us_per_token from {spread[0]:.1f} to {spread[1]:.1f}")
    print(json.dumps({"target": asked.target, "streams": asked.streams, "step_ms": asked.step_ms, **result}))


if __name__ == "__main__":
    main()
