"""More load than the server can handle, over real sockets, with an engine without a model."""

import asyncio
import random
import statistics
import time
from contextlib import contextmanager

import pytest

from bench import load
from bench.standin import StandIn
from engine.admission import Limits
from engine.engine import Engine
from engine.worker import Worker
from server.app import create_app
from server.settings import Settings
from tests.server.fakes import serving

RUNNING, QUEUED = 32, 64
CHAT = "/v1/chat/completions"


@contextmanager
def pressed(tokenizer, step_seconds=0.002):
    """A real server with a small engine.  Yields its port and its worker."""
    limits = Limits(
        num_pages=600, page_size=8, window=16, max_context=1024, max_running=RUNNING, max_queued=QUEUED
    )
    worker = Worker(Engine(StandIn(tokenizer, step_seconds), limits))
    app = create_app(worker, tokenizer, Settings(max_queued=QUEUED), "stand-in", 1024)
    with serving(app) as url:
        yield int(url.rpartition(":")[2]), worker


def body(**more):
    return {"messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 20, **more}


def idle(worker, seconds=30.0):
    """Whether nothing is left of any request: no sequence, and all pages are free."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stats = worker.stats()
        if not (stats.running or stats.waiting) and stats.pages_free == stats.pages_total:
            return True
        time.sleep(0.01)
    return False


async def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


def test_five_hundred_at_once_all_end_in_an_answer_or_a_429(tiny_tokenizer):
    # An answer takes a second, so the 96 places stay taken however slowly the clients come.
    with pressed(tiny_tokenizer, step_seconds=0.05) as (port, worker):
        streams = asyncio.run(load.run("127.0.0.1", port, CHAT, [body()] * 500, patience=60))
        statuses = [stream.status for stream in streams]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= RUNNING
        assert all(not stream.failed for stream in streams if stream.status == 200)
        assert idle(worker)


def test_a_429_says_when_to_come_back(tiny_tokenizer):
    async def refused(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(load.post("127.0.0.1", port, CHAT, body()))
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer

    async def crowd(port, worker):
        long = [body(max_tokens=900, ignore_eos=True)] * (RUNNING + QUEUED)
        others = asyncio.ensure_future(load.run("127.0.0.1", port, CHAT, long, patience=40))
        await until(lambda: worker.stats().waiting == QUEUED)
        answer = await refused(port)
        others.cancel()
        await asyncio.wait([others])
        return answer

    with pressed(tiny_tokenizer, step_seconds=0.05) as (port, worker):
        answer = asyncio.run(crowd(port, worker))
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"\r\nretry-after: " in answer.lower()
        assert b"rate_limit_exceeded" in answer
        assert idle(worker)


async def vanish(port, seed):
    """Request a long answer and disconnect: at once, while waiting, or after the first bytes; streamed or
    not.
    """
    draw = random.Random(seed)
    asked = body(stream=draw.random() < 0.5, max_tokens=900, ignore_eos=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(load.post("127.0.0.1", port, CHAT, asked))
    await writer.drain()
    match draw.randrange(3):
        case 0:
            pass
        case 1:
            await asyncio.sleep(draw.random() * 0.5)
        case 2:
            await asyncio.wait({asyncio.ensure_future(reader.read(200))}, timeout=0.5)
    writer.transport.abort()


@pytest.mark.exhaustive
def test_four_hundred_clients_that_vanish_leave_nothing_behind(tiny_tokenizer):
    def first_token(port):
        """Median seconds to the first token of a single request."""
        streams = [asyncio.run(load.run("127.0.0.1", port, CHAT, [body()], 10))[0] for _ in range(15)]
        return statistics.median(stream.arrivals[0] - stream.started for stream in streams)

    async def crowd(port):
        await asyncio.gather(*(vanish(port, seed) for seed in range(400)))

    with pressed(tiny_tokenizer) as (port, worker):
        before = first_token(port)
        asyncio.run(crowd(port))
        assert idle(worker)
        assert first_token(port) < 3 * before + 1
        assert idle(worker)


def test_a_reader_that_does_not_read_holds_up_nobody(tiny_tokenizer):
    async def crowd(port):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(load.post("127.0.0.1", port, CHAT, body(max_tokens=900, ignore_eos=True)))
        await writer.drain()
        writer.transport.pause_reading()
        try:
            return await load.run("127.0.0.1", port, CHAT, [body()] * 20, patience=20)
        finally:
            writer.transport.abort()

    with pressed(tiny_tokenizer) as (port, worker):
        streams = asyncio.run(crowd(port))
        assert [stream.status for stream in streams] == [200] * 20
        assert not any(stream.failed for stream in streams)
        assert idle(worker)
