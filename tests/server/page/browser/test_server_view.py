"""The view "Server" shows the model and live metrics, and /docs describes the API, both offline."""

import subprocess

from server.settings import Settings
from tests.server.fakes import final
from tests.server.page.browser.visitor import until
from tests.server.scripted import Script


def plot(page, name):
    return page.locator(".plot").filter(has_text=name)


def test_figures_are_drawn_as_they_change(at):
    visitor = at(Script(final("word " * 600), pace=0.01))
    page = visitor.visit()
    visitor.write("Go on")
    page.click("#to-server")
    until(page, "document.querySelectorAll('.plot svg').length === 6")
    until(
        page,
        "/[1-9][0-9.]* tokens.s now/.test(document.querySelector('.plot svg').getAttribute('aria-label'))",
    )
    assert plot(page, "Requests running").locator("strong").inner_text() == "1"
    facts = page.locator("dd").all_inner_texts()
    assert facts[:2] == ["scripted", "131,072 tokens"]
    assert "none, kernels: scripted" in facts
    first = plot(page, "Writing").locator("polyline").first.get_attribute("points")
    until(page, f"document.querySelector('.plot polyline').getAttribute('points') !== {first!r}")
    page.click("#to-chat")
    page.keyboard.press("Escape")


def test_a_snippet_works_as_it_is_pasted(at):
    visitor = at(Script(final("Hello from a shell")))
    page = visitor.visit()
    page.click("#to-server")
    page.locator("#server figure.code button").click()
    done = subprocess.run(["bash", "-c", visitor.clipboard()], capture_output=True, text=True, timeout=30)
    assert "Hello from a shell" in done.stdout, done.stderr
    page.get_by_role("button", name="Python", exact=True).click()
    assert f'base_url="{visitor.url}/v1"' in page.inner_text("#server pre")


def test_the_demo_shows_its_device_and_memory(demo):
    page = demo.visit()
    page.click("#to-server")
    page.wait_for_selector("dt")
    assert {"model", "device", "memory", "cache"} <= set(page.locator("dt").all_inner_texts())


def test_the_docs_list_the_api_and_try_it(at):
    visitor = at(Script(final("Hello from the docs")))
    page = visitor.page
    page.goto(visitor.url + "/docs")
    page.wait_for_selector(".operation")
    listed = {text.replace("\n", " ") for text in page.locator(".operation > summary").all_inner_texts()}
    assert any("POST" in each and "/v1/chat/completions" in each for each in listed)
    chat = page.locator(".operation").first
    chat.locator("summary").click()
    assert "messages" in chat.locator("tbody").inner_text()
    chat.get_by_role("button", name="Send").click()
    page.get_by_text("Hello from the docs").wait_for()
    model = page.locator(".operation").filter(has_text="/v1/models/{id}")
    model.locator("summary").click()
    model.get_by_label("id").fill("scripted")
    model.get_by_role("button", name="Send").click()
    model.get_by_text('"owned_by": "gptoss"').wait_for()


def test_the_docs_take_a_key(at):
    visitor = at(Script(), Settings(date="2025-06-28", api_key=("right-key",)))
    visitor.allow("Failed to load resource")
    page = visitor.page
    page.goto(visitor.url + "/docs")
    page.get_by_text("cannot be read: a valid key is needed").wait_for()
    page.fill("#key-input", "right-key")
    page.press("#key-input", "Enter")
    page.wait_for_selector(".operation")
    assert page.url == visitor.url + "/docs"
