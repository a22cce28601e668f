"""The CPU time of a streamed token behind Ray Serve, compared with the same application without Ray.

The model is replaced (bench/standin.py): it computes nothing, and its steps take `--step-ms`, so that each
token is sent as a separate event.  Measured is the CPU time of all processes that a token passes: the
server's, or those of Ray's HTTP proxy and of the replica.  The time to the first event includes reading the
body to find its session.

    python -m bench.ray_proxy --streams 32 | tail -1 | jq .ray_over_direct
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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve

from bench import load, standin
from bench.serve import body, cpu_seconds, wait_until_ready
from engine.worker import Worker
from language.tokenizer import Tokenizer
from server.app import create_app
from server.settings import Settings

ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
PATH = "/v1/chat/completions"


@serve.ingress()
class StandIn:
    """A replica with the engine of bench/standin.py."""

    def __init__(self, step_ms: float, running: int):
        self._step_ms, self._running = step_ms, running

    def __serve_build_asgi_app__(self) -> FastAPI:
        tokenizer = Tokenizer(standin.DEMO_TOKENIZER)
        worker = Worker(standin.engine(tokenizer, self._step_ms / 1e3, self._running))
        return create_app(worker, tokenizer, Settings(max_queued=1024), "stand-in", max_context=131072)


def main() -> None:
    parser = argparse.ArgumentParser(description="What Ray Serve costs a streamed token")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--step-ms", type=float, default=30.0)
    parser.add_argument(
        "--rounds", type=int, default=3, help="number of measured rounds, of which the medians are reported"
    )
    parser.add_argument("--port", type=int, default=8124)
    asked = parser.parse_args()
    direct, through = of_server(asked), of_ray(asked)
    report(asked, direct, through)


def of_server(asked: argparse.Namespace) -> dict[str, float]:
    words = [f"--port={asked.port}", f"--step-ms={asked.step_ms}", f"--running={asked.streams}"]
    server = subprocess.Popen([sys.executable, "-m", "bench.standin", *words])
    try:
        wait_until_ready(asked.port, server)
        return rounds(asked, {"server": server.pid}, asked.port)
    finally:
        server.terminate()
        server.wait(30)


def of_ray(asked: argparse.Namespace) -> dict[str, float]:
    os.environ |= {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deploy.ray.sticky:middlewares",
        "RAY_worker_niceness": "0",  # the same as the server's
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": asked.port + 1})
        deployment = serve.deployment(
            StandIn,
            max_ongoing_requests=1000,
            request_router_config={"request_router_class": ROUTER},
        )
        serve.run(deployment.bind(asked.step_ms, asked.streams), route_prefix="/")
        processes = {"proxy": process("ray::ProxyActor"), "replica": process("ray::ServeReplica")}
        return rounds(asked, processes, asked.port + 1)
    finally:
        serve.shutdown()
        ray.shutdown()


def process(name: str) -> int:
    """Id of the process with this name."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.read_bytes().startswith(name.encode()):
            return int(path.parent.name)
    raise SystemExit(f"there is no process {name}")


def rounds(asked: argparse.Namespace, processes: dict[str, int], port: int) -> dict[str, float]:
    """The medians of all rounds but the first."""
    found = [one_round(asked, processes, port) for _ in range(asked.rounds + 1)][1:]
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def one_round(asked: argparse.Namespace, processes: dict[str, int], port: int) -> dict[str, float]:
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    bodies: list[dict[str, Any]] = [body(asked)] * asked.streams
    streams = asyncio.run(load.run("127.0.0.1", port, PATH, bodies, patience=300))
    used = {name: cpu_seconds(pid) - before[name] for name, pid in processes.items()}
    seen = load.summary(streams)
    if seen["good"] != asked.streams:
        raise SystemExit(f"only {seen['good']:g} of {asked.streams} streams ended well")
    tokens = asked.streams * asked.tokens
    first = [1e3 * (stream.arrivals[0] - stream.started) for stream in streams]
    return {
        **{f"{name}_us_per_token": 1e6 * seconds / tokens for name, seconds in used.items()},
        "us_per_token": 1e6 * sum(used.values()) / tokens,
        "events_per_token": seen["events"] / tokens,
        "tokens_per_second": seen["events_per_second"] * tokens / seen["events"],
        "first_event_ms": statistics.median(first),
    }


def report(asked: argparse.Namespace, direct: dict[str, float], through: dict[str, float]) -> None:
    print(f"{asked.streams} streams of {asked.tokens} tokens, steps of {asked.step_ms:g} ms;", end=" ")
    print(f"Ray {version('ray')}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, figures in ("direct", direct), ("through Ray", through):
        print(name)
        for figure, value in figures.items():
            print(f"  {figure:26}{value:12.2f}")
    facts = {"streams": asked.streams, "step_ms": asked.step_ms, "direct": direct, "ray": through}
    print(json.dumps(facts | {"ray_over_direct": through["us_per_token"] / direct["us_per_token"]}))


if __name__ == "__main__":
    main()
