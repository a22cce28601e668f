"""A user with a browser, whose page is checked."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.server.scripted import Scripted

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
WAIT_MS = 50_000
"""Time limit of every wait, long enough for a busy machine."""

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 780}


@dataclass
class Watch:
    """Records what must not happen in a page: lines on the console, requests to other origins, violations.

    allowed  regular expressions of expected lines on the console
    """

    url: str
    allowed: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext) -> None:
        context.on("console", lambda message: self.seen.append(message.text))
        context.on("weberror", lambda error: self.seen.append(f"an exception: {error.error}"))
        context.on("request", lambda request: self._asked(request.url))

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url + "/", "blob:")):
            self.seen.append(f"a request to {url}")

    def check(self) -> None:
        found = [line for line in self.seen if not any(re.search(each, line) for each in self.allowed)]
        assert not found, found


def until(page: Page, true: str) -> None:
    """Wait until an expression, or the result of a function, is true in the page.

    Playwright's `wait_for_function` evaluates text in the page, which the page's policy forbids.
    """
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(true):
        assert time.monotonic() < end, f"it did not come true in {WAIT_MS / 1000:g} s: {true}"
        page.wait_for_timeout(20)


class Visitor:
    """A user at the page of one server.

    url      of the server
    script   of its model; None: the demo model
    console  expected lines on the console, see `Watch.allowed`
    """

    def __init__(self, browser: Browser, url: str, server: Scripted | None = None):
        self.url, self.server = url, server
        self.script = server.script if server else None
        self._browser = browser
        self._watches: list[tuple[Watch, BrowserContext]] = []
        self.page = self.another()

    def another(self, **options: Any) -> Page:
        """A page of a new browser, without stored data."""
        context = self._browser.new_context(viewport=options.pop("viewport", DESKTOP), **options)
        context.set_default_timeout(WAIT_MS)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=self.url)
        watch = Watch(self.url)
        watch.over(context)
        self._watches.append((watch, context))
        return context.new_page()

    def allow(self, pattern: str) -> None:
        for watch, _ in self._watches:
            watch.allowed.append(pattern)

    def visit(self, path: str = "/") -> Page:
        self.page.goto(self.url + path)
        if path.startswith("/#") or path == "/":
            until(self.page, "document.activeElement?.id === 'input'")
        return self.page

    def write(self, text: str) -> None:
        self.page.fill("#input", text)
        self.page.press("#input", "Enter")

    def ask(self, text: str) -> str:
        """Send a message, wait until the answer is complete, and return its text."""
        before = self.page.locator(".assistant").count()
        self.write(text)
        return self.answered(before)

    def answered(self, before: int | None = None) -> str:
        """Wait until no answer is running.  Returns the text of the last answer."""
        page = self.page
        if before is not None:
            until(page, f"document.querySelectorAll('.assistant').length > {before}")
        until(page, "document.querySelector('#stop').hidden")
        until(page, "!document.querySelector('[aria-busy=true]')")
        last = page.locator(".assistant").last
        return last.locator(".markdown").inner_text()

    def sees(self, text: str, exact: bool = True) -> None:
        """Wait until a message contains an element with this text; not `exact`: with this text in it."""
        self.page.locator("#messages").get_by_text(text, exact=exact).first.wait_for()

    def clipboard(self) -> str:
        return str(self.page.evaluate("navigator.clipboard.readText()"))

    def close(self) -> None:
        for _, context in self._watches:
            context.close()

    def check(self) -> None:
        for watch, _ in self._watches:
            watch.check()


def faults(page: Page) -> list[str]:
    """The serious and critical problems that axe-core finds."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{each['id']} ({each['impact']}): {node['html']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
