"""The engine's thread and the event loop, both real.

A `Gate` between the engine and its runner lets a test stop the engine in the middle of a step.
"""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest

from engine.admission import Limits
from engine.engine import Engine
from engine.errors import (
    DeadlineExceeded,
    EngineDied,
    OutOfMemory,
    PromptTooLong,
    QueueFull,
    ShuttingDown,
    UnknownToken,
)
from engine.request import Finish, Request
from engine.worker import StepTimeout, Worker
from tests.tools.traffic.historian import GREEDY, VOCABULARY, answer, make_engine

pytestmark = pytest.mark.usefixtures("order")

LIMITS = Limits(
    num_pages=100,
    page_size=4,
    window=6,
    max_context=200,
    max_running=4,
    max_tokens_per_step=16,
    max_queued=4,
)


class Gate:
    """Runs the runner's steps while it is open.  The next step raises `fault`, if there is one."""

    vocab_size = VOCABULARY

    def __init__(self, engine: Engine):
        self.runner = engine._runner
        self.open = threading.Event()
        self.open.set()
        self.inside = threading.Event()  # a step is waiting, or was
        self.fault: BaseException | None = None

    @property
    def overlaps(self):
        return self.runner.overlaps

    def run(self, plan):
        self.pass_through()
        return self.runner.run(plan)

    def launch(self, plan, previous=None):
        self.pass_through()
        return self.runner.launch(plan, previous)

    def pass_through(self):
        self.inside.set()
        assert self.open.wait(10), "nobody opened the gate"
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault

    async def entered(self) -> None:
        await until(self.inside.is_set)


async def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.001)


@asynccontextmanager
async def running(limits: Limits = LIMITS, **options):
    engine = make_engine(limits)
    gate = engine._runner = Gate(engine)
    engine._overlapping = gate if gate.overlaps else None
    worker = Worker(engine, **options)
    worker.start()
    try:
        yield worker, gate
    finally:
        gate.open.set()
        worker.stop()
        assert worker.died is not None or not worker._thread.is_alive()


def ask(id: str, prompt=(1, 2, 3), max_tokens=5, **options) -> Request:
    return Request(id, list(prompt), max_tokens, sampling=GREEDY, **options)


async def collect(stream) -> list[int]:
    return [token.id async for tokens in stream for token in tokens]


def all_free(worker: Worker):
    return lambda: worker.stats().pages_free == worker.stats().pages_total and not worker.stats().running


def test_many_streams_each_get_their_own_answer_and_all_pages_come_back():
    async def scenario():
        async with running() as (worker, _):
            prompts = [[n, 2 * n, 3] for n in range(8)]
            streams = [worker.submit(ask(str(n), prompt, 30)) for n, prompt in enumerate(prompts)]
            answers = await asyncio.gather(*map(collect, streams))
            assert answers == [answer(prompt, 30, LIMITS.window) for prompt in prompts]
            await until(all_free(worker))

    asyncio.run(scenario())


def test_a_look_yields_everything_that_has_arrived():
    async def scenario():
        async with running() as (worker, _):
            stream = worker.submit(ask("a", max_tokens=9))
            await until(lambda: len(stream._arrived) == 9)
            looks = [tokens async for tokens in stream]
            assert [len(tokens) for tokens in looks] == [9]
            assert looks[0][-1].finish is Finish.LENGTH

    asyncio.run(scenario())


@pytest.mark.parametrize("phase", ["before the engine knows", "queued", "prefilling", "decoding", "ended"])
def test_closing_frees_the_pages_in_every_phase(phase):
    async def scenario():
        async with running() as (worker, gate):
            if phase == "queued":  # behind four others, which fill the batch
                gate.open.clear()
                others = [worker.submit(ask(f"other {n}", max_tokens=100)) for n in range(4)]
                await gate.entered()
            if phase == "prefilling":
                gate.open.clear()
            stream = worker.submit(ask("mine", range(50), max_tokens=100))
            if phase == "prefilling":
                await gate.entered()
            if phase in ("decoding", "ended"):
                await anext(stream)
            if phase == "ended":
                await collect(stream)
            stream.close()
            stream.close()
            assert await collect(stream) == []
            gate.open.set()
            if phase == "queued":
                for other in others:
                    other.close()
            await until(all_free(worker))
            assert await collect(worker.submit(ask("next"))) == answer([1, 2, 3], 5, LIMITS.window)

    asyncio.run(scenario())


def test_closing_wakes_whoever_is_reading():
    async def scenario():
        async with running() as (worker, gate):
            gate.open.clear()
            stream = worker.submit(ask("a"))
            reader = asyncio.create_task(collect(stream))
            await gate.entered()
            stream.close()
            assert await asyncio.wait_for(reader, 20) == []

    asyncio.run(scenario())


def test_what_can_never_run_is_refused_at_once():
    async def scenario():
        async with running() as (worker, _):
            with pytest.raises(PromptTooLong, match="has 200 tokens; at most 199 fit"):
                worker.submit(ask("a", [1] * 200))
            with pytest.raises(UnknownToken, match="token 97 does not exist: the model knows 0 to 96"):
                worker.submit(ask("a", [1, 97]))

    asyncio.run(scenario())


def test_a_full_queue_refuses_at_once_and_accepts_again_when_somebody_leaves():
    async def scenario():
        async with running() as (worker, gate):
            gate.open.clear()
            streams = [worker.submit(ask(str(n), max_tokens=100)) for n in range(8)]
            with pytest.raises(QueueFull, match=r"^8 requests are running or waiting already"):
                worker.submit(ask("one too many"))
            streams[3].close()
            streams[3] = worker.submit(ask("now it fits", max_tokens=100))
            gate.open.set()
            lengths = [len(tokens) for tokens in await asyncio.gather(*map(collect, streams))]
            assert lengths == [100] * 8

    asyncio.run(scenario())


def test_a_deadline_ends_its_own_request_only():
    async def scenario():
        async with running() as (worker, gate):
            gate.open.clear()
            hurried = worker.submit(ask("hurried", timeout_seconds=0.02))
            patient = worker.submit(ask("patient"))
            await asyncio.sleep(0.03)
            gate.open.set()
            with pytest.raises(DeadlineExceeded, match=r"within 0\.02 s"):
                await collect(hurried)
            assert len(await collect(patient)) == 5
            await until(all_free(worker))

    asyncio.run(scenario())


def test_death_of_the_engine_reaches_every_stream():
    async def scenario():
        async with running() as (worker, gate):
            gate.open.clear()
            streams = [worker.submit(ask(str(n))) for n in range(8)]
            await gate.entered()
            gate.fault = ZeroDivisionError("a bug")
            gate.open.set()
            for stream in streams:
                with pytest.raises(EngineDied):
                    await asyncio.wait_for(collect(stream), 20)
            assert isinstance(worker.died, ZeroDivisionError)
            with pytest.raises(EngineDied):
                worker.submit(ask("later"))

    asyncio.run(scenario())


def test_a_step_that_hangs_is_found_out():
    async def scenario():
        async with running(step_timeout_seconds=0.05) as (worker, gate):
            gate.open.clear()
            stream = worker.submit(ask("a"))
            with pytest.raises(EngineDied):
                await asyncio.wait_for(collect(stream), 20)
            assert isinstance(worker.died, StepTimeout)

    asyncio.run(scenario())


def test_running_out_of_memory_once_is_not_noticed():
    async def scenario():
        async with running() as (worker, gate):
            gate.fault = OutOfMemory()
            assert await collect(worker.submit(ask("a", range(30)))) == answer(
                list(range(30)), 5, LIMITS.window
            )

    asyncio.run(scenario())


def test_draining_lets_the_quick_finish_and_ends_the_slow():
    async def scenario():
        async with running() as (worker, gate):
            quick = worker.submit(ask("quick", max_tokens=3))
            assert len(await collect(quick)) == 3
            gate.open.clear()
            slow = worker.submit(ask("slow", max_tokens=100))
            started = time.monotonic()
            draining = asyncio.create_task(worker.drain(0.05))
            await asyncio.sleep(0)
            assert worker.draining
            with pytest.raises(ShuttingDown):
                worker.submit(ask("late"))
            await asyncio.wait_for(draining, 20)
            assert time.monotonic() - started >= 0.05
            with pytest.raises(ShuttingDown):
                await collect(slow)

    asyncio.run(scenario())


def test_draining_an_idle_worker_takes_no_time():
    async def scenario():
        async with running() as (worker, _):
            await collect(worker.submit(ask("a")))
            await asyncio.wait_for(worker.drain(60), 20)

    asyncio.run(scenario())


def test_stopping_ends_open_streams():
    async def scenario():
        async with running() as (worker, gate):
            gate.open.clear()
            stream = worker.submit(ask("a"))
            await gate.entered()
            threading.Timer(0.02, gate.open.set).start()
            await asyncio.to_thread(worker.stop)
            with pytest.raises(ShuttingDown):
                await asyncio.wait_for(collect(stream), 20)

    asyncio.run(scenario())


def test_an_idle_worker_sleeps():
    async def scenario():
        async with running() as (worker, _):
            await collect(worker.submit(ask("a")))
            turns = 0
            turn = worker._run_once

            def counted():
                nonlocal turns
                turns += 1
                turn()

            worker._run_once = counted
            await asyncio.sleep(0.05)
            assert turns <= 1  # the one it waits in

    asyncio.run(scenario())


def test_a_slow_reader_holds_up_nobody():
    async def scenario():
        async with running() as (worker, _):
            slow = worker.submit(ask("slow", max_tokens=50))
            assert len(await collect(worker.submit(ask("quick", max_tokens=100)))) == 100
            assert len(await collect(slow)) == 50

    asyncio.run(scenario())


def test_one_crossing_per_step():
    """For any number of streams, because waking the event loop takes most of the server's time per token."""

    async def scenario():
        async with running() as (worker, gate):
            gate.open.clear()
            streams = [worker.submit(ask(str(n), max_tokens=20)) for n in range(4)]
            loop = asyncio.get_running_loop()
            crossings = 0
            cross = loop.call_soon_threadsafe

            def counted(*args):
                nonlocal crossings
                crossings += 1
                return cross(*args)

            loop.call_soon_threadsafe = counted
            gate.open.set()
            assert len(await collect(streams[0])) == 20
            assert crossings <= worker.stats().steps + 1

    asyncio.run(scenario())
