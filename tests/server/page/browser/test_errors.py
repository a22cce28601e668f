"""Every error is shown in words, the text that had arrived stays, and the request can be sent again."""

import threading

import httpx

from server.settings import Settings
from tests.server.fakes import final, serving
from tests.server.page.browser.visitor import Visitor
from tests.server.scripted import Broken, Script, assemble

KEYED = Settings(date="2025-06-28", api_key=("right-key",))
REFUSED = r"Failed to load resource"


def test_a_key_is_asked_for_and_kept_for_the_session_only(at):
    visitor = at(Script(final("in"), final("still in")), KEYED)
    visitor.allow(REFUSED)
    page = visitor.page
    page.goto(visitor.url)
    page.wait_for_selector("#key[open]")
    page.fill("#key-input", "wrong-key")
    page.click("#key-use")
    page.get_by_text("The server does not know this key.").wait_for()
    page.fill("#key-input", "right-key")
    page.press("#key-input", "Enter")
    page.get_by_text("Ask scripted").wait_for()
    assert visitor.ask("Hi") == "in"
    page.reload()
    visitor.sees("in")
    assert visitor.ask("Again") == "still in"
    assert page.evaluate("JSON.stringify(localStorage)").find("right-key") == -1
    assert page.context.cookies() == []
    assert "right-key" not in page.url
    other = visitor.another()
    visitor.allow(REFUSED)
    other.goto(visitor.url)
    other.wait_for_selector("#key[open]")


def test_without_the_key_a_message_waits_for_it(at):
    visitor = at(Script(final("in")), KEYED)
    visitor.allow(REFUSED)
    page = visitor.page
    page.goto(visitor.url)
    page.wait_for_selector("#key[open]")
    page.get_by_role("button", name="Cancel").click()
    visitor.write("Hi")
    page.wait_for_selector("#key[open]")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Enter the key").click()
    page.fill("#key-input", "right-key")
    page.press("#key-input", "Enter")
    visitor.sees("in")


def test_a_full_server_says_so_and_when_to_come_again(at):
    busy = Settings(date="2025-06-28", max_running=1, max_queued=1)
    visitor = at(Script(final("word " * 4000), final("word " * 4000), final("now"), pace=0.01), busy)
    visitor.allow(REFUSED)
    page = visitor.visit()
    body = {"messages": [{"role": "user", "content": "others"}]}
    leave = threading.Event()

    def other() -> None:
        with httpx.stream(
            "POST", visitor.url + "/v1/chat/completions", json={**body, "stream": True}, timeout=60
        ):
            leave.wait(60)

    others = [threading.Thread(target=other) for _ in range(2)]
    for each in others:
        each.start()
    while len(visitor.script.prompts) < 2:
        page.wait_for_timeout(20)
    visitor.write("Me too")
    visitor.sees("The server is busy", exact=False)
    assert "Try again in" in page.inner_text(".assistant .problem")
    leave.set()
    for each in others:
        each.join()
    visitor.server.worker.script.pace = 0
    while visitor.server.worker._streams:
        page.wait_for_timeout(20)
    page.get_by_role("button", name="Try again").click()
    visitor.sees("now")
    assert page.locator(".assistant").count() == 1


def test_a_server_that_is_gone_is_asked_again_when_it_is_back(browser):
    settings = Settings(date="2025-06-28")
    _, app = assemble(Script(), settings)
    with serving(app) as url:
        visitor = Visitor(browser, url)
        visitor.allow("ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_SOCKET")
        page = visitor.visit()
    visitor.write("Anybody?")
    visitor.sees("The server cannot be reached.", exact=False)
    _, app = assemble(Script(final("Back again")), settings)
    with serving(app, port=int(url.rsplit(":")[-1])):
        page.get_by_role("button", name="Try again").click()
        visitor.sees("Back again")
        visitor.answered()
        visitor.check()
    visitor.close()


def test_a_stream_that_is_cut_keeps_what_came(at):
    visitor = at(Script(final("The first half. " + "word " * 3000), final("Whole."), pace=0.01))
    visitor.allow("ERR_INCOMPLETE_CHUNKED_ENCODING")
    page = visitor.visit()
    visitor.write("Go")
    visitor.sees("The first half.", exact=False)
    visitor.server.cut()
    visitor.sees("The connection broke before the answer was complete.", exact=False)
    assert "The first half." in page.inner_text(".markdown")
    page.reload()
    visitor.sees("The first half.", exact=False)
    page.get_by_role("button", name="Try again").click()
    visitor.sees("Whole.")
    assert "2 / 2" in page.inner_text(".assistant footer")


def test_an_error_in_the_middle_of_a_stream_is_told(at):
    visitor = at(Script(["<|channel|>final<|message|>Half", Broken()]))
    page = visitor.visit()
    visitor.write("Go")
    visitor.sees("not finite", exact=False)
    visitor.answered()
    assert "Half" in page.inner_text(".markdown")


def test_a_prompt_that_is_too_long_is_said_to_be(at):
    visitor = at(Script(), Settings(date="2025-06-28", max_context=256))
    visitor.allow(REFUSED)
    page = visitor.visit()
    visitor.write("word " * 400)
    problem = page.locator(".assistant .problem")
    problem.wait_for()
    assert "tokens" in problem.inner_text()
    assert problem.get_attribute("role") == "alert"
