"""Light and dark, wide and narrow, with a screen reader: nothing overflows, and axe-core finds no serious
problem.
"""

import json

import pytest

from tests.server.fakes import call, final
from tests.server.page.browser.test_chat import MARKDOWN
from tests.server.page.browser.test_settings import TOOL, settings
from tests.server.page.browser.visitor import DESKTOP, PHONE, faults, until
from tests.server.scripted import Script

STATES = ["welcome", "chat", "call", "edit", "settings", "server", "sidebar", "docs"]


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_readable_and_no_wider_than_the_screen(at, scheme, viewport):
    visitor = at(Script(final(MARKDOWN, "A thought."), call("get_weather", '{"city": "Oslo"}')))
    page = visitor.page = visitor.another(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    visitor.visit()

    def check(state):
        assert faults(page) == [], state
        wide, shown = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= shown, state
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    colour = check("welcome")
    assert (sum(map(int, colour[4:-1].split(", "))) < 3 * 128) == (scheme == "dark")
    visitor.ask("Plants, please, and a word that is very long: " + "x" * 200)
    page.locator(".thought summary").click()
    check("chat")
    page.get_by_role("button", name="Edit").click()
    check("edit")
    page.get_by_role("button", name="Cancel").click()
    page.click("[popovertarget=settings]")
    check("settings")
    page.keyboard.press("Escape")
    settings(page, tools=json.dumps([TOOL]))
    visitor.ask("Weather?")
    check("call")
    if viewport == PHONE:
        page.click("#menu")
        assert page.is_visible("#search")
        check("sidebar")
        page.keyboard.press("Escape")
        page.wait_for_selector("#search", state="hidden")
    page.click("#to-server")
    page.wait_for_selector(".plot svg")
    check("server")
    page.goto(visitor.url + "/docs")
    page.locator(".operation summary").first.click()
    check("docs")


def test_the_theme_can_be_chosen_and_stays(at):
    visitor = at(Script())
    page = visitor.page = visitor.another(color_scheme="light")
    visitor.visit()
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    chosen = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert chosen != before
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == chosen


def test_a_screen_reader_hears_that_it_is_answered_and_what(at):
    visitor = at(Script(final("Hello there")))
    page = visitor.visit()
    page.evaluate("""() => {
        window.heard = [];
        const spoken = document.querySelector('#spoken');
        new MutationObserver(() => heard.push(spoken.textContent)).observe(spoken, {childList: true});
    }""")
    visitor.ask("Hi")
    until(page, "heard.includes('Hello there')")
    assert page.evaluate("heard[0]") == "Answering"
    assert page.get_attribute("#spoken", "role") == "status"


def test_everything_can_be_reached_by_keys_alone(at):
    visitor = at(Script(final("Hello")))
    page = visitor.visit()
    visitor.ask("Hi")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    wanted = {
        "new",
        "search",
        "import",
        "export-all",
        "to-chat",
        "to-server",
        "theme",
        "title",
        "input",
        "attach",
        "send",
    }
    assert wanted <= reached, wanted - reached
    assert {"Copy", "Edit", "Regenerate", "Delete", "Settings"} <= reached


def test_the_first_paint_waits_for_nothing(at):
    """The page is drawn before the server has answered any request but those for files."""
    visitor = at(Script())
    page = visitor.visit()
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 5000, painted
    sizes = page.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".filter(each => /[/]page[/]|navigation/.test(each.name + each.entryType))"
        ".reduce((sum, each) => sum + each.decodedBodySize, 0)"
    )
    assert 20_000 < sizes <= 60 * 1024
