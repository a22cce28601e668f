"""Chatting: a user writes, stops an answer, asks again, edits and deletes."""

import re

from tests.server.fakes import Pause, final
from tests.server.page.browser.visitor import until
from tests.server.scripted import Script

MARKDOWN = """## Plants

They turn **light** into *sugar*; see [more](https://a.example/plants).

1. Light is caught
   - mostly red
2. Water is split

| Stage | Light |
|:------|------:|
| first | yes   |

```python
def f(x):
    return x
```
"""

HOSTILE = """<script>window.hacked = 1</script>
<img src=x onerror="window.hacked = 2">
<svg onload="window.hacked = 3"></svg>

[link](javascript:window.hacked=4) <a href="javascript:window.hacked=5">link</a>

![pixel](https://evil.example/pixel.png)

<style>body { display: none }</style> <iframe src="https://evil.example"></iframe>

```html
<script>window.hacked = 6</script>
```
"""


def test_an_answer_appears_with_its_thought_folded_and_its_figures(at):
    visitor = at(Script(final("Hello! **How** are you?", "They greet me.")))
    page = visitor.visit()
    assert "Ask scripted" in page.inner_text("#welcome")
    assert visitor.ask("Good morning") == "Hello! How are you?"
    assert page.inner_text(".user .bubble") == "Good morning"
    assert not page.is_visible("#welcome")
    summary = page.locator(".thought summary")
    until(page, "/Thought for [0-9.]+ s · [0-9]+ token/.test(document.querySelector('summary').textContent)")
    assert not page.is_visible(".thought p")
    summary.click()
    assert page.inner_text(".thought p") == "They greet me."
    assert re.fullmatch(
        r"[0-9]+ tokens · [0-9.]+ tokens/s · first after [0-9.]+ s", page.inner_text(".assistant .figures")
    )
    assert page.input_value("#title") == "Good morning"
    assert page.inner_text("#conversations") == "Good morning"
    assert page.title() == "Good morning – gptoss"


def test_the_next_message_comes_with_all_before_it(at):
    visitor = at(Script(final("one"), final("two")))
    visitor.visit()
    visitor.ask("first")
    visitor.ask("second")
    assert re.search(
        r"user<\|message\|>first<.*final<\|message\|>one<.*user<\|message\|>second<",
        visitor.script.prompts[1],
    )


def test_markdown_is_rendered_and_code_has_colours_and_a_copy_button(at):
    visitor = at(Script(final(MARKDOWN)))
    page = visitor.visit()
    visitor.ask("Plants?")
    answer = page.locator(".assistant .markdown")
    assert answer.locator("h4").inner_text() == "Plants"
    assert answer.locator("ol > li > ul > li").inner_text() == "mostly red"
    assert answer.locator("td").all_inner_texts() == ["first", "yes"]
    assert answer.locator("td.right").evaluate("e => getComputedStyle(e).textAlign") == "right"
    link = answer.locator("a")
    assert link.get_attribute("href") == "https://a.example/plants"
    assert (link.get_attribute("target"), "noopener" in link.get_attribute("rel")) == ("_blank", True)
    colours = [
        answer.locator(each).first.evaluate("e => getComputedStyle(e).color") for each in ("code .k", "pre")
    ]
    assert colours[0] != colours[1]
    answer.locator("figure button").click()
    assert visitor.clipboard() == "def f(x):\n    return x\n"
    page.locator(".assistant footer").get_by_text("Copy").click()
    assert visitor.clipboard() == MARKDOWN


def test_nothing_that_a_model_writes_is_run_or_loaded(at):
    visitor = at(Script(final(HOSTILE, "<img src=x onerror='window.hacked = 7'>")))
    page = visitor.visit()
    text = visitor.ask("<b>Hack me</b><script>window.hacked = 8</script>")
    assert page.evaluate("window.hacked") is None
    assert "<script>window.hacked = 1</script>" in text
    assert page.is_visible("#input")
    markdown = page.locator(".markdown")
    assert markdown.locator("script, img, svg, style, iframe").count() == 0
    assert [link.get_attribute("href") for link in markdown.locator("a").all()] == [
        "https://evil.example/pixel.png"
    ]
    assert "<b>Hack me</b>" in page.inner_text(".user .bubble")
    page.reload()
    page.wait_for_selector(".markdown p")
    assert page.evaluate("window.hacked") is None


def test_what_is_settled_is_not_drawn_again_while_the_rest_is_written(at):
    paragraphs = "".join(f"Paragraph {i} has a few *words* in it.\n\n" for i in range(12))
    visitor = at(Script(final(paragraphs + "The end."), pace=0.005))
    page = visitor.visit()
    visitor.write("Tell me")
    page.wait_for_selector(".markdown p:nth-child(4)")
    page.evaluate("document.querySelector('.markdown p').mark = 'the same'")
    visitor.answered()
    assert page.evaluate("document.querySelector('.markdown p').mark") == "the same"
    assert page.locator(".markdown p").count() == 13


def test_a_reference_that_is_defined_at_the_end_is_a_link_in_the_end(at):
    visitor = at(Script(final("See [the page][1].\n\nMore.\n\n[1]: https://a.example/\n")))
    page = visitor.visit()
    visitor.ask("Where?")
    assert page.locator(".markdown a").get_attribute("href") == "https://a.example/"


def test_an_answer_is_stopped_by_the_button_and_by_escape(at):
    endless = final("word " * 3000)
    visitor = at(Script(endless, endless, final("fine"), pace=0.01))
    page = visitor.visit()
    for stop in (lambda: page.click("#stop"), lambda: page.keyboard.press("Escape")):
        before = page.locator(".assistant").count()
        visitor.write("Go on")
        until(page, f"/word/.test(document.querySelectorAll('.markdown')[{before}]?.textContent)")
        stop()
        assert "word" in visitor.answered(before)
        assert "You stopped this answer." in page.locator(".assistant").last.inner_text()
    assert visitor.ask("And now?") == "fine"


def test_asking_again_keeps_the_first_answer_beside_the_second(at):
    visitor = at(Script(final("first"), final("second"), final("third")))
    page = visitor.visit()
    visitor.ask("Hi")
    page.get_by_role("button", name="Regenerate").click()
    visitor.sees("second")
    visitor.answered()
    assert "2 / 2" in page.inner_text(".assistant footer")
    page.get_by_role("button", name="Version before").click()
    visitor.sees("first")
    visitor.ask("More")  # continues the version that is shown
    assert "final<|message|>first<" in visitor.script.prompts[-1]
    assert "second" not in visitor.script.prompts[-1]


def test_editing_a_message_makes_a_branch_and_the_old_one_stays(at):
    visitor = at(Script(final("an apple"), final("tasty"), final("a pear")))
    page = visitor.visit()
    visitor.ask("Name a red fruit")
    visitor.ask("And how is it?")
    page.locator(".user").first.get_by_role("button", name="Edit").click()
    field = page.get_by_label("Edit your message")
    assert field.input_value() == "Name a red fruit"
    field.fill("Name a green fruit")
    field.press("Enter")
    visitor.sees("a pear")
    visitor.answered()
    assert page.locator(".message").count() == 2
    assert "red" not in visitor.script.prompts[-1]
    page.locator(".user").get_by_role("button", name="Version before").click()
    visitor.sees("tasty")
    assert page.locator(".message").count() == 4


def test_a_message_is_deleted_with_what_follows_it(at):
    visitor = at(Script(final("one"), final("two")))
    page = visitor.visit()
    visitor.ask("first")
    visitor.ask("second")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.locator(".user").last.get_by_role("button", name="Delete").click()
    assert page.locator(".message").count() == 4
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator(".user").last.get_by_role("button", name="Delete").click()
    until(page, "document.querySelectorAll('.message').length === 2")
    page.reload()
    visitor.sees("one")
    assert page.locator(".message").count() == 2


def test_keys_send_break_lines_and_lead_back_to_the_box(at):
    visitor = at(Script(final("ok")))
    page = visitor.visit()
    page.keyboard.type("a")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("b")
    assert page.input_value("#input") == "a\nb"
    page.keyboard.press("Enter")
    visitor.answered(0)
    assert page.locator(".bubble p").evaluate("e => e.textContent") == "a\nb"
    page.locator("#log").focus()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "input"
    assert page.input_value("#input") == ""
    page.keyboard.type("/")
    assert page.input_value("#input") == "/"


def test_text_files_come_along_and_others_are_refused(at, tmp_path):
    visitor = at(Script(final("read"), final("read too")))
    page = visitor.visit()
    notes, picture = tmp_path / "notes.md", tmp_path / "picture.png"
    notes.write_text("Some ```fenced``` notes: Grüße")
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\0")
    page.set_input_files("#attach", [notes, picture])
    page.get_by_text("picture.png cannot be attached: it is no text.").wait_for()
    assert page.inner_text("#files li").startswith("notes.md")
    visitor.ask("What is this?")
    assert "File: notes.md\n````\nSome ```fenced``` notes: Grüße\n````" in visitor.script.prompts[0]
    assert page.inner_text(".user summary") == "notes.md"
    page.evaluate("""() => {
        const data = new DataTransfer();
        data.items.add(new File(["dropped words"], "dropped.txt"));
        document.body.dispatchEvent(new DragEvent("dragover", {dataTransfer: data, bubbles: true}));
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
    }""")
    page.get_by_role("button", name="Remove dropped.txt").wait_for()
    visitor.ask("")
    assert "dropped words" in visitor.script.prompts[1]


def test_an_answer_of_nothing_is_said_to_be_one(at):
    visitor = at(Script("<|return|>", final("", "I have nothing to say.")))
    page = visitor.visit()
    for _ in range(2):
        visitor.ask("Say nothing")
        assert "The answer is empty." in page.locator(".assistant").last.inner_text()
    page.get_by_role("button", name="Regenerate").first.wait_for()


def test_a_long_thought_counts_its_seconds_while_it_lasts(at):
    thought = "<|channel|>analysis<|message|>" + "hm, " * 40
    visitor = at(
        Script([thought, Pause(2.5), "<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"])
    )
    page = visitor.visit()
    visitor.write("Is it?")
    until(
        page,
        "/^Thinking… [1-9]/.test(document.querySelector('.thought summary')?.textContent)",
    )
    assert visitor.answered(0) == "Yes."
    assert re.match(r"Thought for [0-9.]+ s", page.inner_text(".thought summary"))


def test_a_long_prompt_has_a_bar_while_it_is_read(at):
    visitor = at(Script(final("Done."), reading=0.004))
    page = visitor.visit()
    visitor.write("word " * 1200)
    until(
        page,
        """() => {
        const bar = document.querySelector('progress');
        const said = /Reading the prompt: [0-9,]+ of [0-9,]+ tokens/;
        return bar && bar.value > 0 && bar.value < bar.max && said.test(bar.parentNode.textContent);
    }""",
    )
    assert visitor.answered(0) == "Done."
    assert page.locator("progress").count() == 0


def test_the_demo_model_answers_and_remembers(demo):
    page = demo.visit()
    page.click("[popovertarget=settings]")
    page.fill("[name=temperature]", "0")
    page.keyboard.press("Escape")
    assert "Ask gptoss-demo" in page.inner_text("#welcome")
    assert demo.ask("What is the capital of France?") == "The capital of France is Paris."
    page.click("#new")
    demo.ask("My name is Ada.")
    assert "Ada" in demo.ask("What is my name?")
