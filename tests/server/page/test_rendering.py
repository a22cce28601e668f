"""The rendering process: one for all texts, replaced when it fails, ended with the server."""

import asyncio
import os
import signal
import time

import pytest

from server.errors import ApiError
from server.page import rendering
from server.page.rendering import Rendering


def run(use, **options):
    """Call `use` with a Rendering, which is closed afterwards."""

    async def whole():
        renders = Rendering(**options)
        try:
            return await use(renders)
        finally:
            renders.close()

    return asyncio.run(whole())


def html(found):
    return ["".join(each["blocks"]) for each in found]


def test_texts_go_in_and_html_comes_out():
    async def use(renders):
        first = await renders.render(["*a*", "b\ud83d" + "\udd2c"])
        pid = renders._process.pid
        assert html(await renders.render(["c"])) == ["<p>c</p>\n"]
        assert renders._process.pid == pid, "a process for each text"
        return first

    assert html(run(use))[0] == "<p><em>a</em></p>\n"


def test_a_long_text_fills_no_pipe():
    text = "a *b* c\n\n" * 30_000

    async def use(renders):
        return await renders.render([text])

    assert len(run(use, seconds=60.0)[0]["blocks"]) == 30_000


@pytest.mark.exhaustive
def test_one_that_takes_too_long_is_given_up_and_the_next_is_rendered():
    async def use(renders):
        await renders.render(["warm"])
        os.kill(renders._process.pid, signal.SIGSTOP)
        assert await renders.render(["never", "seen"]) == [None, None]
        renders._seconds = 60.0
        return await renders.render(["again"])

    assert html(run(use, seconds=5.0)) == ["<p>again</p>\n"]


def test_one_that_died_is_replaced():
    async def use(renders):
        await renders.render(["a"])
        renders._process.kill()
        renders._process.wait()
        return await renders.render(["b"])

    assert html(run(use)) == ["<p>b</p>\n"]


def test_the_process_ends_with_its_owner():
    async def use(renders):
        await renders.render(["a"])
        return renders._process

    process = run(use)
    assert process.poll() is not None


def test_closing_does_not_wait_for_a_text():
    async def use(renders):
        await renders.render(["a"])
        os.kill(renders._process.pid, signal.SIGSTOP)
        stuck = asyncio.ensure_future(renders.render(["b"]))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        renders.close()
        assert await stuck == [None]
        return time.monotonic() - began

    async def whole():
        return await use(Rendering(seconds=60.0))

    assert asyncio.run(whole()) < 30


def test_more_than_a_few_at_once_are_refused(monkeypatch):
    monkeypatch.setattr(rendering, "MAX_WAITING", 2)

    async def use(renders):
        asked = [asyncio.ensure_future(renders.render([str(i)])) for i in range(4)]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = run(use)
    refused = [each for each in found if isinstance(each, ApiError)]
    assert len(refused) == 2
    assert {each.status for each in refused} == {429}


def test_a_client_that_leaves_does_not_disturb_the_next():
    async def use(renders):
        await renders.render(["a"])
        left = asyncio.ensure_future(renders.render(["x" * 50_000]))
        await asyncio.sleep(0)
        left.cancel()
        found = await renders.render(["b"])
        with pytest.raises(asyncio.CancelledError):
            await left
        return found

    assert html(run(use)) == ["<p>b</p>\n"]
