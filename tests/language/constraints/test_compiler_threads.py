"""Many schemas that take long to compile delay other new schemas, and nothing else."""

import asyncio
import threading

import pytest

from engine.errors import QueueFull
from language.constraints import AnswerSpec, SchemaError
from language.constraints.grammar import Compiler
from language.constraints.sandbox import CompilerSandbox
from language.constraints.threads import CompilerThreads
from language.harmony.messages import ResponseFormat, Tool
from server.settings import Settings
from tests.language.constraints.drawn_answers import speaker_of
from tests.server.fakes import final, live

FLOOD = 50  # more than any machine has threads in asyncio's shared pool: at most 32
LONG_WAIT = 60.0


def new_schemas(name, count):
    """Specs with new schemas."""
    schemas = [{"type": "object", "properties": {f"{name}_{i}": {}}} for i in range(count)]
    return [AnswerSpec(response_format=ResponseFormat("new", schema)) for schema in schemas]


@pytest.fixture
def constraints():
    return speaker_of("small").constraints


@pytest.fixture
def turn(constraints):
    """Held as long as the process that compiles schemas is busy."""
    return constraints._compiler._sandbox._turn


def with_threads(constraints, scenario, max_waiting=FLOOD):
    async def run():
        threads = CompilerThreads(constraints, max_waiting)
        try:
            async with asyncio.timeout(LONG_WAIT):
                await scenario(threads)
        finally:
            threads.close()

    asyncio.run(run())


def test_a_flood_of_new_schemas_delays_no_other_work(constraints, turn):
    (known,) = new_schemas("known", 1)
    any_object = [
        AnswerSpec(tools=(Tool("now"),)),
        AnswerSpec(response_format="json_object"),
        AnswerSpec(reasoning=False),
    ]

    async def scenario(threads):
        await threads.compile(known)
        with turn:
            flood = [asyncio.ensure_future(threads.compile(spec)) for spec in new_schemas("flood", FLOOD)]
            for spec in (known, *any_object):
                assert await threads.compile(spec) is not None
            assert await asyncio.to_thread(lambda: "shared") == "shared"
            assert not any(each.done() for each in flood)
        assert all(await asyncio.gather(*flood))

    with_threads(constraints, scenario)


def test_a_flood_of_new_schemas_does_not_stand_before_a_large_request(constraints, monkeypatch):
    """The large request holds one of two slots, for which other large requests wait."""
    turns = threading.Semaphore(0)
    monkeypatch.setattr(
        CompilerSandbox, "why_not", lambda self, lark: "" if turns.acquire(timeout=LONG_WAIT) else "late"
    )

    async def scenario(threads):
        *specs, large = new_schemas("beside", 20)
        flood = [asyncio.ensure_future(threads.compile(spec)) for spec in specs]
        await asyncio.wait(flood, timeout=0.1)
        compiling = asyncio.ensure_future(threads.compile(large, large=True))
        for _ in range(3):  # of those that were there before it, at most two have their turn first
            turns.release()
            await asyncio.wait([compiling], timeout=0.1)
        async with asyncio.timeout(LONG_WAIT):
            await compiling
        assert sum(each.done() for each in flood) <= 2
        for _ in flood:
            turns.release()
        await asyncio.gather(*flood)

    with_threads(constraints, scenario)


def test_more_new_schemas_than_may_wait_are_refused(constraints, turn):
    async def scenario(threads):
        with turn:
            flood = [asyncio.ensure_future(threads.compile(spec)) for spec in new_schemas("waiting", 4)]
            done, waiting = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        assert [type(each.exception()) for each in done] == [QueueFull]
        assert all(await asyncio.gather(*waiting))
        (late,) = new_schemas("late", 1)
        assert await threads.compile(late)

    with_threads(constraints, scenario, max_waiting=3)


def test_an_objection_is_the_same_by_both_ways(constraints):
    impossible = {"type": "object", "properties": {"x": {"type": "string", "pattern": "("}}}
    spec = AnswerSpec(response_format=ResponseFormat("bad", impossible), strict_response=True)

    async def scenario(threads):
        said = []
        for _ in range(2):  # a stranger's, then known
            with pytest.raises(SchemaError) as error:
                await threads.compile(spec)
            said.append(str(error.value))
        assert said[0] == said[1]

    with_threads(constraints, scenario)


def test_what_waits_at_the_end_is_cancelled(constraints, turn):
    async def scenario(threads):
        with turn:
            flood = [asyncio.ensure_future(threads.compile(spec)) for spec in new_schemas("end", 4)]
            _, waiting = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)  # one is refused
            threads.close()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        cancelled = [end for end in ends if isinstance(end, asyncio.CancelledError)]
        assert len(cancelled) >= 2  # the third may have begun

    with_threads(constraints, scenario, max_waiting=3)


def test_waiting_for_a_turn_has_an_end(tiny_tokenizer, monkeypatch):
    ours = threading.Event()
    monkeypatch.setattr(CompilerSandbox, "why_not", lambda self, lark: "" if ours.wait(LONG_WAIT) else "late")
    schema = {"name": "flag", "schema": {"type": "object", "properties": {"off": {}}}}
    body = {
        "messages": [{"role": "user", "content": "Off?"}],
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    settings = Settings(date="2025-06-28", request_timeout=0.1)
    with live(tiny_tokenizer, final('{"off":1}'), settings=settings) as server:
        try:
            refused = server.http.post("/v1/chat/completions", json=body)
        finally:
            ours.set()
        assert refused.status_code == 504
        assert refused.json()["error"]["code"] == "deadline_exceeded"
        assert not server.worker.requests


def test_the_server_compiles_there_and_its_threads_end_with_it(tiny_tokenizer, monkeypatch):
    places = []
    try_body = Compiler.try_body

    def noted(self, *given):
        try_body(self, *given)  # raises where the schema has not been checked yet
        places.append(threading.current_thread())

    monkeypatch.setattr(Compiler, "try_body", noted)
    schema = {"name": "flag", "schema": {"type": "object", "properties": {"on": {"type": "boolean"}}}}
    with live(tiny_tokenizer, final('{"on":true}'), settings=Settings(date="2025-06-28")) as server:
        for _ in range(2):
            server.openai().chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "On?"}],
                response_format={"type": "json_schema", "json_schema": schema},
            )
    new, known = places
    assert new.name.startswith("gptoss-new-schemas")
    assert known.name.startswith("gptoss-constraints")
    for thread in places:
        thread.join(LONG_WAIT)
        assert not thread.is_alive()
