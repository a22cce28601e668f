"""Runs all attacks of docs/security.md at once, and measures how they affect other clients.

It starts a server with the demo model or another one.  `--streams` ordinary clients stream one answer after
the other: first alone, then together with the attackers.  Each attacker repeats one attack: endless headers
and trailers, clients that send slowly or never read, pipelined requests, very many connections, multiplied
prompts, dense JSON, lists of wrong elements, long texts, colliding names, costly schemas, references to
stored items, large answers, hostile Markdown.  /health is requested every 50 ms.

Reported are the answers that were lost, the gaps between tokens, and the server's memory.  The KV cache and
the store of responses always grow to their limits.  These limits are low here, so that the memory that
remains at the end was left by attacks.

    python -m bench.attack --seconds 300 | tail -1 | jq
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
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import load

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES, COUNT = "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"
CONVERSATIONS = "/v1/conversations"
HOST = "127.0.0.1"
SETTINGS = ["--store-size", "16MiB"]
QUESTION = {"messages": [{"role": "user", "content": "Hello, who are you?"}]}
HONEST = {**QUESTION, "stream": True, "max_tokens": 200, "ignore_eos": True}
HEAD = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"


def chat(**more: Any) -> dict[str, Any]:
    return {**QUESTION, "max_tokens": 8, **more}


def tool(name: str, **schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **schema}}}


def dense(part: bytes, size: int = 2**20) -> bytes:
    return b'{"messages":[' + part * (size // len(part)) + b"0]}"


def bodies() -> dict[str, tuple[str, bytes]]:
    """The attacks that consist of one body: name → path and body."""

    def written(path: str, body: dict[str, Any]) -> tuple[str, bytes]:
        return path, json.dumps(body).encode()

    slow = {f"p{i}": {"type": "string", "pattern": f"^(a|b){{{i},60}}c+$"} for i in range(40)}
    strict = {"name": "n", "schema": {"type": "object", "properties": slow}, "strict": True}
    return {
        "multiplied": written(COMPLETIONS, {"prompt": ["a"] * 20_000, "n": 128}),
        "zeros": (CHAT, dense(b"0,")),
        "arrays": (CHAT, dense(b"[],")),
        "nested": (CHAT, dense(b"[" * 50 + b"]" * 50 + b",")),
        "metadata": written(CHAT, chat(metadata={str(i): [] for i in range(40_000)})),
        "long text": written(CHAT, chat(messages=[{"role": "user", "content": "some words " * 100_000}])),
        "long raw": written("/tokenize", {"prompt": "a" * 1_000_000}),
        "names": written(
            CHAT,
            chat(
                tools=[tool("a" + format(i, "09b").replace("0", ".").replace("1", "-")) for i in range(512)]
            ),
        ),
        "enums": written(
            CHAT, chat(tools=[tool("f", properties={"p": {"enum": [f"v{i}" for i in range(20_000)]}})])
        ),
        "schema": written(CHAT, chat(response_format={"type": "json_schema", "json_schema": strict})),
        "many answers": written(CHAT, chat(n=64, max_tokens=64)),
        "large answers": written(CHAT, chat(n=8, max_tokens=500, logprobs=True, top_logprobs=20)),
        "items": (RESPONSES, b'{"input":[' + b"0," * 500_000 + b"0]}"),
        "tools of a response": (RESPONSES, b'{"input":"a","tools":[' + b"{}," * 900 + b"0]}"),
        "text of a response": written(RESPONSES, {"input": "some words " * 100_000, "store": False}),
        "arguments of a response": written(
            RESPONSES,
            {
                "input": [
                    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "[1]" * 300_000},
                    {"type": "function_call_output", "call_id": "c", "output": "x"},
                ]
            },
        ),
        "blocks": written(
            MESSAGES,
            {
                "max_tokens": 1,
                "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 30_000}],
            },
        ),
        "messages": (MESSAGES, b'{"max_tokens":1,"messages":[' + b"0," * 500_000 + b"0]}"),
        "counted": written(
            COUNT, {"messages": [{"role": "user", "content": "a"}], "system": "some words " * 100_000}
        ),
        "kept": written(CONVERSATIONS, {"items": [{"role": "user", "content": "x" * 200_000}] * 20}),
        "Markdown": written("/page/markdown", {"texts": ["> " * 5_000 + "*_" * 5_000]}),
        "a name of a megabyte": written(CHAT, chat(model="\x00" * 2**20)),
    }


async def post_body(port: int, path: str, body: bytes) -> None:
    """Send a request and read its answer, for a limited time."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        )
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        if random.random() < 0.2:
            return  # disconnect at once
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                while await reader.read(2**16):
                    pass
    finally:
        writer.transport.abort()


async def flood(port: int, start: bytes, piece: bytes, seconds: float = 10.0) -> None:
    """Send `piece` again and again, until the server closes the connection or the time is up."""
    _, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(start)
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(seconds):
                while True:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)  # drain() does not yield if it need not wait
    finally:
        writer.transport.abort()


async def drip(port: int) -> None:
    """Open two hundred connections that each send a byte of a header per second."""
    writers = []
    try:
        for _ in range(200):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.write(HEAD)
            writers.append(writer)
        for _ in range(20):
            await asyncio.sleep(1)
            for writer in writers:
                with suppress(OSError):
                    writer.write(b"x")
    finally:
        for writer in writers:
            writer.transport.abort()


async def never_read(port: int) -> None:
    _, writer = await asyncio.open_connection(HOST, port, limit=1)
    try:
        writer.write(
            load.post(HOST, port, CHAT, {**HONEST, "max_tokens": 1000, "logprobs": True, "top_logprobs": 20})
        )
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(20)
    finally:
        writer.transport.abort()


async def refer(port: int) -> None:
    """Store an item, and send a request that refers to it ten thousand times."""
    item = {"role": "user", "content": "some words " * 10_000, "id": f"msg_{random.getrandbits(64):x}"}
    await post_body(port, CONVERSATIONS, json.dumps({"items": [item]}).encode())
    named = {"type": "item_reference", "id": item["id"]}
    for body in ({"input": [named] * 9_000}, {"input": [named] * 5, "store": False, "max_output_tokens": 1}):
        await post_body(port, RESPONSES, json.dumps(body).encode())


def attacks(port: int) -> dict[str, Callable[[], Awaitable[None]]]:
    chunked = f"POST {CHAT} HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    ahead = load.post(HOST, port, CHAT, chat(max_tokens=100)).replace(b"Connection: close\r\n", b"")
    found: dict[str, Callable[[], Awaitable[None]]] = {
        "fields": lambda: flood(port, HEAD, b"a:b\r\n" * 1000),
        "one value": lambda: flood(port, HEAD + b"a: ", b"x" * 5000),
        "trailers": lambda: flood(port, chunked + b"2\r\n{}\r\n0\r\n", b"a:b\r\n" * 1000),
        "tiny chunks": lambda: flood(port, chunked, b"1\r\n \r\n" * 1000),
        "ahead": lambda: flood(port, ahead, (HEAD + b"\r\n") * 100),
        "drip": lambda: drip(port),
        "never read": lambda: never_read(port),
        "references": lambda: refer(port),
    }
    for name, (path, body) in bodies().items():
        found[name] = lambda path=path, body=body: post_body(port, path, body)  # type: ignore[misc]
    return found


async def attack_only(port: int, seconds: float) -> dict[str, int]:
    """Repeat every attack.  Returns how often each was made."""
    until, rounds = time.perf_counter() + seconds, Counter[str]()

    async def repeat(name: str, attack: Callable[[], Awaitable[None]]) -> None:
        while time.perf_counter() < until:
            with suppress(OSError):
                await attack()
            rounds[name] += 1
            await asyncio.sleep(0.05)

    await asyncio.gather(*(repeat(name, attack) for name, attack in attacks(port).items()))
    return dict(rounds)


class Run:
    """One server, its clients, and the measurements."""

    def __init__(self, port: int, pid: int):
        self._port, self._pid = port, pid
        self.failures: Counter[str] = Counter()
        self.health: list[float] = []
        self.peak_mib = 0.0

    async def honest(self, until: float, streams: list[load.Stream]) -> None:
        while time.perf_counter() < until:
            stream = await load.stream_once(HOST, self._port, CHAT, HONEST, patience=120)
            streams.append(stream)
            if stream.failed or stream.status != 200:
                self.failures[f"{stream.status} {stream.end}"] += 1
                await asyncio.sleep(0.2)

    async def watch(self, until: float) -> None:
        while time.perf_counter() < until:
            began = time.perf_counter()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(30):
                    reader, writer = await asyncio.open_connection(HOST, self._port)
                    writer.write(HEAD + b"connection: close\r\n\r\n")
                    if await reader.read():
                        self.health.append(time.perf_counter() - began)
                    writer.close()
            self.peak_mib = max(self.peak_mib, resident_mib(self._pid))
            await asyncio.sleep(0.05)


def resident_mib(pid: int) -> float:
    (line,) = [
        each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS")
    ]
    return int(line.split()[1]) / 1024


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def quantiles(streams: list[load.Stream]) -> dict[str, float]:
    gaps = sorted(b - a for s in streams for a, b in zip(s.arrivals, s.arrivals[1:], strict=False))
    return {"p50_ms": 1e3 * statistics.median(gaps), "p99_ms": 1e3 * gaps[int(0.99 * (len(gaps) - 1))]}


async def measure(port: int, pid: int, streams: int, seconds: float, niceness: int) -> dict[str, Any]:
    run = Run(port, pid)

    async def phase(length: float) -> list[load.Stream]:
        until = time.perf_counter() + length
        seen: list[load.Stream] = []
        await asyncio.gather(*(run.honest(until, seen) for _ in range(streams)), run.watch(until))
        return seen

    await phase(5)  # to warm up
    idle, open_before = resident_mib(pid), descriptors(pid)
    alone = quantiles(await phase(max(10.0, seconds / 10)))
    run.health.clear()
    run.failures.clear()
    # The attackers are in another process, so that they do not delay the measurements in this one.
    command = ["nice", "-n", str(niceness), sys.executable, "-m", "bench.attack", "--against", str(port)]
    command += ["--seconds", str(seconds)]
    attackers = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    under = await phase(seconds)
    told, _ = await attackers.communicate()
    await asyncio.sleep(25)  # until lingering connections are closed
    health = sorted(run.health)
    return {
        "seconds": seconds,
        "honest_answers": len(under),
        "honest_failures": dict(run.failures),
        "gap_alone": alone,
        "gap_attacked": quantiles(under),
        "health_p50_ms": 1e3 * statistics.median(health),
        "health_p99_ms": 1e3 * health[int(0.99 * (len(health) - 1))],
        "health_worst_ms": 1e3 * health[-1],
        "idle_mib": idle,
        "peak_mib": run.peak_mib,
        "after_mib": resident_mib(pid),
        "descriptors_before": open_before,
        "descriptors_after": descriptors(pid),
        "rounds": json.loads(told),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument(
        "--nice", type=int, default=19, help="niceness of the attackers; with 19, the server has"
        " priority, nearly as if they ran on other machines",
    )  # fmt: skip
    parser.add_argument("--model", help="a checkpoint with its tokenizer; the demo model by default")
    parser.add_argument("--kv-cache-memory", default="64MiB", help="of the server; a larger model needs more")
    parser.add_argument("--against", type=int, metavar="PORT", help="only attack the server on this port")
    asked = parser.parse_args()
    if asked.against:
        print(json.dumps(asyncio.run(attack_only(asked.against, asked.seconds))))
        return
    command = [sys.executable, "-m", "gptoss", "serve", "--port", "0", "--log-level", "error", *SETTINGS]
    command += ["--kv-cache-memory", asked.kv_cache_memory]
    if asked.model:
        command += ["--model", asked.model]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = ""
        while not line.startswith("listening on "):
            line = server.stdout.readline()
            assert line, "the server did not start"
        port = int(line.rpartition(":")[2])
        seen = asyncio.run(measure(port, server.pid, asked.streams, asked.seconds, asked.nice))
        for name, value in seen.items():
            print(f"{name:20} {value}")
        print(json.dumps(seen))
    finally:
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    main()
