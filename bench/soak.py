"""Sends mixed traffic to a server for a long time, and checks that its memory does not grow.

Several kinds of clients run at once, each in a loop: clients that read their answers (streamed or not, chats
and completions, short and long prompts); clients that disconnect (before the first byte, during the answer,
without reading); clients that send invalid requests; and clients that continue a conversation, for the prefix
cache.  Every few seconds the resident memory and the number of threads are recorded.  At the end, the server
must be idle according to /metrics, and have as many open file descriptors as at the beginning.

The memory does not grow if the median of the last quarter of the time is at most `--growth` above the median
of the second quarter.  The first quarter does not count, because caches and allocators grow to their usual
size.

    python -m bench.soak --minutes 30 | tail -1 | jq
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import load
from bench.serve import wait_until_ready

WORDS = (
    "the",
    "sea",
    "is",
    "wide",
    "and",
    "the",
    "name",
    "of",
    "this",
    "ship",
    "was",
    "never",
    "written",
    "down",
)


BAD = ("error", "late", "cut", "no answer", "500", "TimeoutError")
"""Outcomes that are errors under any load."""


@dataclass(slots=True)
class Samples:
    """Measurements of the server's process, one every few seconds."""

    seconds: list[float] = field(default_factory=list)
    resident_mib: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self, pid: int, began: float) -> None:
        status = Path(f"/proc/{pid}/status").read_text()
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        self.seconds.append(time.monotonic() - began)
        self.resident_mib.append(int(facts["VmRSS"].split()[0]) / 1024)
        self.threads.append(int(facts["Threads"]))


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def quarters(values: list[float]) -> tuple[float, float]:
    """Medians of the second and of the last quarter of the values."""
    size = len(values) // 4
    return statistics.median(values[size : 2 * size]), statistics.median(values[3 * size :])


class Client:
    """A client that chooses randomly, from a seed, what to do next."""

    def __init__(self, port: int, seed: int, outcomes: Counter[str]):
        self._port, self._outcomes = port, outcomes
        self._random = random.Random(seed)
        self._history: list[dict[str, str]] = []

    async def visit(self, until: float) -> None:
        moods = [
            self._patient,
            self._completion,
            self._whole,
            self._conversation,
            self._vanish,
            self._nonsense,
        ]
        while time.monotonic() < until:
            mood = self._random.choice(moods)
            try:
                outcome = await asyncio.wait_for(mood(), 120)
            except (OSError, asyncio.IncompleteReadError) as error:
                outcome = type(error).__name__
            self._outcomes[f"{mood.__name__.strip('_')}: {outcome}"] += 1
            await asyncio.sleep(self._random.expovariate(4))

    def _text(self, longest: int) -> str:
        return " ".join(self._random.choices(WORDS, k=self._random.randint(1, longest)))

    def _chat(self, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": self._text(200)}]
        return {"messages": messages, "max_tokens": self._random.randint(1, 64), **more}

    async def _stream(self, path: str, body: dict[str, Any]) -> str:
        stream = await load.stream_once("127.0.0.1", self._port, path, {**body, "stream": True}, 100)
        return f"200, then {stream.end}" if stream.status == 200 and stream.failed else str(stream.status)

    async def _patient(self) -> str:
        return await self._stream("/v1/chat/completions", self._chat(n=self._random.choice([1, 1, 3])))

    async def _completion(self) -> str:
        body = {
            "prompt": self._text(100),
            "max_tokens": 20,
            "logprobs": 2,
            "seed": self._random.randint(0, 9),
        }
        return await self._stream("/v1/completions", body)

    async def _whole(self) -> str:
        return await self._send(load.post("127.0.0.1", self._port, "/v1/chat/completions", self._chat()))

    async def _conversation(self) -> str:
        if len(self._history) > 12:
            self._history.clear()
        self._history.append({"role": "user", "content": self._text(20)})
        outcome = await self._stream("/v1/chat/completions", {"messages": self._history, "max_tokens": 12})
        self._history.append({"role": "assistant", "content": self._text(10)})
        return outcome

    async def _vanish(self) -> str:
        body = self._chat(stream=self._random.random() < 0.7, ignore_eos=True, max_tokens=500)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(load.post("127.0.0.1", self._port, "/v1/chat/completions", body))
        if self._random.random() < 0.5:
            await writer.drain()
            await asyncio.sleep(self._random.random())
            if self._random.random() < 0.5:
                await asyncio.wait({asyncio.ensure_future(reader.read(100))}, timeout=1)
        writer.transport.abort()
        return "left"

    async def _nonsense(self) -> str:
        body: dict[str, Any] = self._random.choice(
            [{}, {"messages": 1}, {"messages": []}, {"messages": [{"role": "x"}]}]
        )
        return await self._send(load.post("127.0.0.1", self._port, "/v1/chat/completions", body))

    async def _send(self, request: bytes) -> str:
        """The status of a request, after its whole answer was read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request)
            answer = await reader.read()
            return answer[9:12].decode() if answer else "no answer"
        finally:
            writer.close()


async def traffic(asked: argparse.Namespace, pid: int) -> tuple[Samples, Counter[str]]:
    began = time.monotonic()
    until = began + 60 * asked.minutes
    outcomes: Counter[str] = Counter()
    samples = Samples()
    clients = [
        asyncio.create_task(Client(asked.port, i, outcomes).visit(until)) for i in range(asked.clients)
    ]
    while time.monotonic() < until:
        samples.take(pid, began)
        await asyncio.sleep(asked.every)
    await asyncio.gather(*clients)
    return samples, outcomes


async def left_over(port: int) -> dict[str, float]:
    """Gauges that are not zero a second after all clients have disconnected."""
    await asyncio.sleep(1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    gauges = dict(
        line.split(" ") for line in text.splitlines() if line.startswith("gptoss_") and "{" not in line
    )
    return {name: float(gauges[f"gptoss_{name}"]) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--every", type=float, default=5, help="seconds between two measurements")
    parser.add_argument("--growth", type=float, default=0.02, help="maximum growth of memory, as a share")
    parser.add_argument("--port", type=int, default=8124)
    parser.add_argument("--model", help="folder of a checkpoint; default: the demo")
    asked = parser.parse_args()
    words = [sys.executable, "-m", "gptoss", "serve", f"--port={asked.port}", "--log-level=warning"]
    words += ["--max-running=8", "--max-queued=16", "--kv-cache-memory=24MiB"]
    words += [f"--model={asked.model}"] if asked.model else []
    server = subprocess.Popen(words)
    try:
        wait_until_ready(asked.port, server)
        before = descriptors(server.pid)
        samples, outcomes = asyncio.run(traffic(asked, server.pid))
        left = asyncio.run(left_over(asked.port))
        left["descriptors"] = descriptors(server.pid) - before
    finally:
        server.terminate()
        code = server.wait(60)
    report(asked, samples, outcomes, left, code)


def report(
    asked: argparse.Namespace, samples: Samples, outcomes: Counter[str], left: dict[str, float], code: int
) -> None:
    """Print a table and one line of JSON; exit with 1 if memory grew, or something was left."""
    for outcome, count in sorted(outcomes.items()):
        print(f"  {outcome:36}{count:8}")
    memory = quarters(samples.resident_mib)
    threads = quarters([float(n) for n in samples.threads])
    print(f"resident MiB, second and last quarter: {memory[0]:.1f} {memory[1]:.1f}")
    print(f"threads: {threads[0]:g} {threads[1]:g}; left over: {left}; exit code {code}")
    good = (
        memory[1] <= memory[0] * (1 + asked.growth)
        and threads[1] <= threads[0] + 2
        and not any(value > 0 for value in left.values())
        and not any(outcome.endswith(BAD) for outcome in outcomes)
        and code == 0
    )
    result = {"minutes": asked.minutes, "requests": outcomes.total(), "resident_mib": memory, "flat": good}
    print(json.dumps({**result, "threads": threads, "left_over": left, "exit": code}))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
