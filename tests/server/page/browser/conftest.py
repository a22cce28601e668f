"""A user with a browser: Debian's Chromium, and a server with a script or with the demo model.

`make test-page` runs these tests.  Other runs leave them out, because they need Chromium and a minute.  A
test fails if there is a line on the console, a request to another origin, or a violation of the page's
policy.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from server.settings import Settings
from tests.docs.reader import Server as Serving
from tests.server.page.browser.visitor import Visitor
from tests.server.scripted import Script, scripted

if TYPE_CHECKING:
    from playwright.sync_api import Browser

if os.environ.get("TEST_PAGE") != "all":
    collect_ignore_glob = ["test_*.py"]

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "there is no Chromium: apt-get install chromium, or set CHROMIUM to its path"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def at(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """`at(script, settings)`: a user at the page of a server with a scripted model."""
    with ExitStack() as opened:
        visitors = []

        def visiting(script: Script, settings: Settings | None = None) -> Visitor:
            server = opened.enter_context(scripted(script, settings))
            visitor = Visitor(browser, server.url, server)
            opened.callback(visitor.close)
            visitors.append(visitor)
            return visitor

        yield visiting
        for visitor in visitors:
            visitor.check()


@pytest.fixture(scope="session")
def demo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of `gptoss serve` with the demo model."""
    running = Serving("gptoss serve", tmp_path_factory.mktemp("demo"))
    yield running.url
    running.close()


@pytest.fixture
def demo(browser: Browser, demo_url: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, demo_url)
    yield visitor
    visitor.check()
    visitor.close()
