"""Conversations are stored in the browser: found again, renamed, exported and imported."""

import json
import time

from tests.server.fakes import final
from tests.server.page.browser.visitor import until
from tests.server.scripted import Script


def titles(page):
    return page.locator("#conversations button").all_inner_texts()


def test_a_conversation_is_there_after_a_reload_and_in_the_list(at):
    visitor = at(Script(final("one", "hm"), final("two"), final("three")))
    page = visitor.visit()
    visitor.ask("first")
    page.reload()
    visitor.sees("one")
    assert page.inner_text(".thought summary").startswith("Thought for")
    page.click("#new")
    assert page.locator(".message").count() == 0
    visitor.ask("second")
    assert titles(page) == ["second", "first"]
    page.locator("#conversations").get_by_text("first").click()
    visitor.sees("one")
    assert page.locator("#conversations [aria-current]").inner_text() == "first"
    visitor.ask("third")
    assert titles(page) == ["first", "second"]


def test_the_search_finds_words_of_titles_and_messages(at):
    visitor = at(Script(final("Bananas are yellow"), final("Limes are green")))
    page = visitor.visit()
    visitor.ask("first question")
    page.click("#new")
    visitor.ask("second question")
    for words, found in [
        ("YELLOW banana", ["first question"]),
        ("second", ["second question"]),
        ("question", 2),
        ("red", []),
    ]:
        page.fill("#search", words)
        assert (titles(page) if isinstance(found, list) else len(titles(page))) == found
    assert page.inner_text("#conversations") == "Nothing found"


def test_a_conversation_is_renamed_and_deleted(at):
    visitor = at(Script(final("one")))
    page = visitor.visit()
    visitor.ask("first")
    page.fill("#title", "A better name")
    page.press("#title", "Tab")
    assert titles(page) == ["A better name"]
    page.reload()
    visitor.sees("one")
    assert page.input_value("#title") == "A better name"
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#delete")
    page.wait_for_selector("#welcome")
    assert titles(page) == []
    page.reload()
    page.wait_for_selector("#welcome")
    assert titles(page) == []


def test_what_is_exported_can_be_imported_in_another_browser(at, tmp_path):
    visitor = at(Script(final("one"), final("another one"), final("two")))
    page = visitor.visit()
    visitor.ask("first: a <b>bold</b> start")
    page.get_by_role("button", name="Regenerate").click()
    visitor.sees("another one")
    visitor.answered()
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "first-a-b-bold-b-start.json"
    file = tmp_path / "one.json"
    download.value.save_as(file)
    assert json.loads(file.read_text())["format"] == "gptoss-conversations"
    other = visitor.page = visitor.another()
    visitor.visit()
    other.set_input_files("#import", file)
    other.get_by_text("1 conversation imported").wait_for()
    other.click("#conversations button")
    visitor.sees("another one")
    other.get_by_role("button", name="Version before").click()
    assert visitor.ask("go on") == "two"
    with other.expect_download() as download:
        other.click("#export-all")
    download.value.save_as(file)
    assert len(json.loads(file.read_text())["conversations"]) == 1


def test_a_file_that_is_damaged_is_refused_with_its_fault(at, tmp_path):
    visitor = at(Script())
    page = visitor.visit()
    whole = {"format": "gptoss-conversations", "version": 1}
    circle = {"nodes": {"a": {"role": "user", "text": "x"}}, "children": {"root": ["a"], "a": ["a"]}}
    for content, fault in [
        ("not JSON", "it is not JSON"),
        ("[]", "it has no conversations of this page"),
        (json.dumps({**whole, "version": 2}), "it comes from a newer version"),
        (
            json.dumps({**whole, "conversations": [{"children": {"root": ["__proto__"]}}]}),
            "messages is damaged",
        ),
        (json.dumps({**whole, "conversations": [circle]}), "goes in a circle"),
    ]:
        (tmp_path / "damaged.json").write_text(content)
        page.set_input_files("#import", tmp_path / "damaged.json")
        page.get_by_text(fault).wait_for()
    assert titles(page) == []


def three_hundred():
    nodes, children, parent = {}, {}, "root"
    for i in range(300):
        role = "user" if i % 2 == 0 else "assistant"
        text = (
            f"Question {i}?"
            if role == "user"
            else f"Answer **{i}**:\n\n```python\nprint({i})\n```\n\n- a\n- b\n"
        )
        nodes[str(i)] = {"role": role, "text": text}
        children[parent], parent = [str(i)], str(i)
    return {"title": "Long", "settings": {}, "nodes": nodes, "children": children, "updated": 1}


def test_three_hundred_messages_are_shown_and_answered(at, tmp_path):
    visitor = at(Script(final("the last")))
    page = visitor.visit()
    file = tmp_path / "long.json"
    file.write_text(
        json.dumps({"format": "gptoss-conversations", "version": 1, "conversations": [three_hundred()]})
    )
    page.set_input_files("#import", file)
    page.get_by_text("1 conversation imported").wait_for()
    began = time.monotonic()
    page.locator("#conversations").get_by_text("Long").click()
    until(page, "document.querySelectorAll('.markdown pre .nb').length === 150")
    took = time.monotonic() - began
    assert took < 15, took
    last = page.locator(".assistant").last.locator("strong")
    assert last.inner_text() == "299"
    until(
        page,
        """() => {
        const log = document.querySelector('#log');
        return log.scrollHeight - log.scrollTop - log.clientHeight < 2;
    }""",
    )
    assert visitor.ask("One more") == "the last"
    assert page.locator(".message").count() == 302
    page.evaluate("document.querySelector('#log').scrollTop = 0")
    page.get_by_role("button", name="To the end").click()
    until(page, "document.querySelector('#to-end').hidden")


def test_an_answer_goes_on_while_another_conversation_is_read(at):
    visitor = at(Script(final("word " * 120 + "end"), final("quick"), pace=0.01))
    page = visitor.visit()
    visitor.write("slow")
    page.wait_for_selector(".markdown p")
    page.click("#new")
    assert page.locator("#conversations .busy").count() == 1
    visitor.ask("fast")
    until(page, "!document.querySelector('#conversations .busy')")
    page.locator("#conversations").get_by_text("slow").click()
    assert visitor.answered().endswith("word end")


def test_a_conversation_that_is_deleted_while_it_is_answered_stays_deleted(at):
    visitor = at(Script(final("word " * 2000), pace=0.01))
    page = visitor.visit()
    visitor.write("Go on")
    page.wait_for_selector(".markdown p")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#delete")
    page.wait_for_selector("#welcome")
    until(page, "!document.querySelector('#conversations .busy')")
    page.reload()
    page.wait_for_selector("#welcome")
    assert titles(page) == []


def test_the_list_keeps_the_focus_of_keys(at):
    visitor = at(Script(final("one"), final("two")))
    page = visitor.visit()
    visitor.ask("first")
    page.click("#new")
    visitor.ask("second")
    page.locator("#conversations button").nth(1).focus()
    page.keyboard.press("Enter")
    visitor.sees("one")
    assert page.evaluate("document.activeElement.textContent") == "first"


def test_nothing_is_asked_twice_at_once(at):
    visitor = at(Script(final("word " * 2000), pace=0.01))
    page = visitor.visit()
    visitor.write("Go on")
    page.wait_for_selector(".markdown p")
    visitor.write("And now?")
    page.get_by_text("An answer is still running: stop it first.").wait_for()
    assert page.input_value("#input") == "And now?"
    page.locator(".user").get_by_role("button", name="Edit").click()
    page.keyboard.press("Enter")
    assert page.locator(".message").count() == 2
    page.click("#stop")
    visitor.answered()
    assert len(visitor.script.prompts) == 1
