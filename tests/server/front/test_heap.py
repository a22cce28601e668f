"""Memory that requests have used is returned to the system."""

import asyncio
import gc

import pytest

from server.front import heap
from server.front.heap import GROWN_BYTES, Heap, resident_bytes
from server.settings import Settings
from tests.server.fakes import final, live
from tests.server.test_endings import HI, wait_for


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(heap, "WAIT_SECONDS", 0.01)


def test_a_while_after_a_request_memory_is_given_back_if_there_is_more_of_it():
    unused, trims = [10 * GROWN_BYTES], []

    async def run():
        subject = Heap(lambda: trims.append(len(trims)), lambda: unused[0])

        async def use():
            for _ in range(3):
                subject.was_used()
            await asyncio.sleep(0.1)

        await use()
        assert len(trims) == 1, "once for all that came meanwhile"
        unused[0] += GROWN_BYTES - 1
        await use()
        assert len(trims) == 1, "for so little it is not worth it"
        unused[0] += 1
        await use()
        assert len(trims) == 2
        unused[0] -= 2 * GROWN_BYTES  # as when a large block is given out that nobody has written to
        await use()
        unused[0] += GROWN_BYTES
        await use()
        assert len(trims) == 3
        subject.was_used()
        subject.close()
        unused[0] += 9 * GROWN_BYTES
        await asyncio.sleep(0.1)
        assert len(trims) == 3

    asyncio.run(run())


def test_every_request_counts_also_one_that_is_refused(tiny_tokenizer, monkeypatch):
    told = []
    monkeypatch.setattr(Heap, "was_used", lambda self: told.append(self))
    with live(tiny_tokenizer, final("x"), settings=Settings()) as server:
        server.http.post("/v1/chat/completions", json=HI)
        server.http.get("/nowhere")
        assert wait_for(lambda: len(told) == 2)


def test_what_is_free_goes_back_and_is_not_resident_any_more():
    """With small blocks, and a used one after them, so that the heap cannot simply shrink."""
    gc.collect()
    blocks = [bytearray(100_000) for _ in range(1000)]
    last = bytearray(100_000)
    full = resident_bytes()
    del blocks
    asyncio.run(_use())
    assert resident_bytes() < full - 50 * 2**20
    assert last


def test_what_is_freed_after_the_peak_goes_back_too():
    """The first look may come while the memory is in use; the process does not grow any more after it."""
    gc.collect()
    subject = Heap()
    blocks = [bytearray(100_000) for _ in range(1000)]
    last = bytearray(100_000)
    asyncio.run(_use(subject))
    full = resident_bytes()
    del blocks
    asyncio.run(_use(subject))
    assert resident_bytes() < full - 50 * 2**20
    assert last


async def _use(subject=None):
    (subject or Heap()).was_used()
    await asyncio.sleep(0.05)
    await asyncio.get_running_loop().shutdown_default_executor()
