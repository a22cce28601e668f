"""Takes the screenshots of the page in the documentation: light, dark, and on a phone.

make pictures
"""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.server.fakes import final
from tests.server.page.browser.conftest import CHROMIUM, FLAGS
from tests.server.page.browser.visitor import PHONE, Visitor
from tests.server.scripted import Script, scripted

DOCS = Path(__file__).parents[4] / "docs"
WIDE = {"width": 1100, "height": 800}

QUESTIONS = ["Plan a weekend in Oslo", "Explain the prefix cache", "Proofread this letter"]
ANSWER = """A prefix cache keeps the **keys and values** of prompts that were computed before.
When the next prompt begins with the same tokens, only the rest is computed:

| Prompt | Tokens | Found | Computed |
|:--|--:|--:|--:|
| first question | 7,511 | 0 | 7,511 |
| second question | 7,640 | 7,488 | 152 |

```python
def found(prompt: list[int], page_size: int) -> int:
    \"\"\"Tokens at the beginning that need not be computed.\"\"\"
    pages = 0
    while (hash(tuple(prompt[: (pages + 1) * page_size]))) in cache:
        pages += 1
    return pages * page_size
```
"""
THOUGHT = "They want to know what a prefix cache is. A definition, an example with numbers, some code."


def main() -> None:
    answers = [final("Of course!"), final("Gladly."), final(ANSWER, THOUGHT)]
    script = Script(*answers, *[final("Yes. " * 60)] * 3)
    with scripted(script) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        visitor = Visitor(browser, server.url, server)
        page = visitor.page = visitor.another(viewport=WIDE, color_scheme="light", reduced_motion="reduce")
        visitor.visit()
        for question in (QUESTIONS[0], QUESTIONS[2]):
            visitor.ask(question)
            page.click("#new")
        visitor.ask(QUESTIONS[1])
        page.evaluate("document.activeElement.blur()")
        page.mouse.move(0, 0)
        taken(page, "page-light")
        page.emulate_media(color_scheme="dark")
        taken(page, "page-dark")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(PHONE)
        taken(page, "page-phone")
        visitor.close()
        browser.close()


def taken(page: Page, name: str) -> None:
    page.wait_for_timeout(300)
    page.screenshot(path=DOCS / f"{name}.png")


if __name__ == "__main__":
    main()
