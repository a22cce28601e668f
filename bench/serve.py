"""What the server itself costs: many concurrent streams over real HTTP, against a stand-in for the model,
the demo model, or one on disk.

The stand-in computes nothing, so every microsecond is the engine's, the server's or the kernel's.
`cpu_us_per_token` is the CPU time of the whole server process (user and system, all threads) over the tokens
it streamed; `http_over_offline` compares with the same requests given straight to an engine in this process.
The load comes from this process, on the same machine: with two cores, one is left for the server.

With `--step-ms 0` steps follow each other as fast as the engine goes, and tokens that arrive together share a
chunk; a pace (`--step-ms 17`: what a GPU would take) gives one chunk per token: `events_per_token` shows it.

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
        rounds = [measure(asked, server.pid) for _ in range(asked.rounds + 1)][1:]  # the first one warms up
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
    parser.add_argument("--target", default="standin", help="standin, demo, or a model's folder")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--step-ms", type=float, default=0.0, help="how long a step of the stand-in takes")
    parser.add_argument("--rounds", type=int, default=5, help="counted; the median is reported")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--tokenizer", type=Path, default=standin.DEMO_TOKENIZER, help="of the stand-in")
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
    """One request; the answer is as long as it may become."""
    return {
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": asked.tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }


def measure(asked: argparse.Namespace, pid: int) -> dict[str, float]:
    """All streams at once, from the first connection to the last byte."""
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
    """User and system time of a process, all its threads."""
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
