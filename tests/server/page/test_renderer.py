"""Markdown becomes safe HTML, and settled blocks do not change."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.page.renderer import rendered

KNOWN = {
    "p": set(),
    "br": set(),
    "hr": set(),
    **{f"h{level}": set() for level in range(3, 7)},
    **{tag: set() for tag in ("em", "strong", "s", "code", "ul", "li", "blockquote", "table")},
    **{tag: set() for tag in ("thead", "tbody", "tr", "figcaption")},
    "ol": {"start"},
    "th": {"class"},
    "td": {"class"},
    "a": {"href", "target", "rel"},
    "span": {"class"},
    "figure": {"class"},
    "button": {"type"},
    "pre": {"tabindex"},
}


class Elements(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def html(text):
    return "".join(rendered(text)["blocks"])


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1))",
        "[a](JaVaScRiPt:alert(1))",
        "[a](\u0001javascript:alert(1))",
        "[a](data:text/html,<script>alert(1)</script>)",
        "[a](vbscript:x) [b](file:///etc/passwd) [c](//evil.example) [d](/v1/models)",
        "![a](https://evil.example/pixel.png)",
        "![a](javascript:alert(1))",
        '[a](https://a.example/"onmouseover="alert(1))',
        "<https://a.example/?q=<script>>",
        "```<script>\nx\n```",
        '```"onclick="alert(1)\n<script>alert(1)</script>\n```',
        "```html\n<script>alert(1)</script>\n```",
        "| <b>a</b> | [x](javascript:1) |\n|---|---|\n| <svg onload=alert(1)> | y |",
        "&lt;script&gt; &#x3c;script&#x3e;",
    ],
)
def test_nothing_hostile_survives(hostile):
    check(hostile)


@given(st.text(alphabet=st.sampled_from("ab<>&\"'`*_~|[]()!#-+=1.:/\\ \n\t\u00e9"), max_size=200))
def test_whatever_is_written_only_known_elements_come_out(text):
    check(text)


def check(text):
    for tag, attributes in Elements(html(text)).found:
        assert tag in KNOWN, tag
        assert set(attributes) <= KNOWN[tag], (tag, attributes)
        if tag == "a":
            assert re.match(r"https?://|mailto:", attributes["href"], re.IGNORECASE)
            assert attributes["rel"] == "noopener noreferrer nofollow"


def test_a_picture_is_a_link_to_it():
    assert re.fullmatch(
        r'<p><a href="https://a.example/c.png" target="_blank" rel="[a-z ]+">a cat</a></p>\n',
        html("![a cat](https://a.example/c.png)"),
    )


def test_tables_are_aligned_without_styles():
    found = html("| a | b |\n|--:|:-:|\n| 1 | 2 |")
    assert '<th class="right">a</th>' in found
    assert '<td class="center">2</td>' in found
    assert "style" not in found


def test_code_is_coloured_if_its_language_is_known():
    assert '<span class="k">def</span>' in html("```python\ndef f(): pass\n```")
    assert "<code>def f(): pass\n</code>" in html("```no-such-language\ndef f(): pass\n```")


def test_lines_of_a_paragraph_stay_lines_and_headings_are_below_those_of_the_page():
    assert html("a\nb") == "<p>a<br />\nb</p>\n"
    assert html("# a") == "<h3>a</h3>\n"


TEXT = """Some text
in two lines.

A line
#that goes on, since this is no heading

# A heading
- a list

  with a paragraph
- more

| a | b |
|---|---|
| 1 | 2 |
text behind it
===

```python
x = 1

y = 2
```
> quoted
lazily

1. one
2. two

   ***

the end
"""


def test_what_is_settled_does_not_change_however_the_text_goes_on():
    """The text grows one character at a time, and only unsettled lines are sent again."""
    settled, blocks, sent = 0, [], 0
    lines_of = TEXT.split("\n")
    for end in range(1, len(TEXT) + 1):
        tail = "\n".join(TEXT[:end].split("\n")[settled:])
        sent = max(sent, len(tail))
        found = rendered(tail)
        blocks += found["blocks"][: found["settled"]]
        settled += found["settled_lines"]
    assert blocks + rendered("\n".join(lines_of[settled:]))["blocks"] == rendered(TEXT)["blocks"]
    assert sent < len(TEXT) / 2


@given(st.text(alphabet=st.sampled_from("ab *->`#|=1.\n"), max_size=80), st.text(max_size=20))
def test_settled_blocks_are_those_of_any_longer_text(text, more):
    found = rendered(text)
    whole = rendered(text + more)["blocks"]
    assert whole[: found["settled"]] == found["blocks"][: found["settled"]]


def test_deep_nesting_ends():
    assert len(html("> " * 5000 + "a")) < 100_000
    assert len(html("[" * 5000)) < 100_000
