"""Markdown → HTML that is safe to show, in a process of its own.

A conversation's text comes from a model, and so may be anything.  In a process of its own it cannot hold up
the engine's thread, whatever it costs (a regular expression of a highlighter holds Python's lock until it is
done), and can be ended (server/page/rendering.py).

In and out: frames of 4 bytes of length, big-endian, and as much JSON.  Texts come in; for each, its top-level
blocks go out.  All but the last of them are settled: what comes after cannot change them, so whoever reads a
text while it grows need not send them again.

HTML in the text is shown as text.  Links lead to http, https and mailto, or are no links.  A picture is a
link to it: loading it would tell its address's owner who reads what.

This file imports nothing of ours: it is run by its path.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

LENGTH = struct.Struct(">I")
HIGHLIGHTED_CHARACTERS = 20_000
"""Longer code is shown without colours."""

NESTING = 20
"""Blocks within blocks; what is deeper is shown as text."""

LINK = re.compile(r"(https?://|mailto:)[^\s]+", re.IGNORECASE)
COLOURS: HtmlFormatter[str] = HtmlFormatter(nowrap=True)


class HTML(RendererHTML):
    """What differs from the package's HTML: code with a head, links that open elsewhere, no pictures."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        language = (tokens[idx].info.split() or [""])[0][:32]
        return _code(tokens[idx].content, language)

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return _code(tokens[idx].content, "")

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[idx]
        shown = self.renderInlineAsText(token.children or [], options, env)
        source = str(token.attrGet("src") or "")
        return f'<a href="{escapeHtml(source)}"{ELSEWHERE}>{escapeHtml(shown or source)}</a>'

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return f'<a href="{escapeHtml(str(tokens[idx].attrGet("href") or ""))}"{ELSEWHERE}>'


ELSEWHERE = ' target="_blank" rel="noopener noreferrer nofollow"'


def _code(text: str, language: str) -> str:
    named = f"<span>{escapeHtml(language)}</span>"
    copy = '<button type="button">Copy</button>'
    return (
        f'<figure class="code"><figcaption>{named}{copy}</figcaption>'
        f'<pre tabindex="0"><code>{_coloured(text, language)}</code></pre></figure>\n'
    )


def _coloured(text: str, language: str) -> str:
    if not language or len(text) > HIGHLIGHTED_CHARACTERS:
        return escapeHtml(text)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return escapeHtml(text)
    return str(highlight(text, lexer, COLOURS))


def _parser() -> MarkdownIt:
    options = {"html": False, "breaks": True, "maxNesting": NESTING}
    parser = MarkdownIt("commonmark", options, renderer_cls=HTML).enable(["table", "strikethrough"])
    parser.validateLink = lambda url: LINK.fullmatch(url) is not None  # type: ignore[method-assign]
    return parser


PARSER = _parser()


def rendered(text: str) -> dict[str, Any]:
    """
    blocks         the HTML of each top-level block
    settled        how many of them, from the first, will stay as they are however the text goes on
    settled_lines  the lines of text that these are made of
    """
    env: dict[str, Any] = {}
    tokens = PARSER.parse(text, env)
    complete_lines = text.count("\n")  # the line after them may go on
    blocks: list[str] = []
    settled = settled_lines = depth = first = 0
    for i, token in enumerate(tokens):
        _tame(token)
        depth += token.nesting
        if depth:
            continue
        start = (tokens[first].map or [0])[0]
        if blocks and start < complete_lines:  # a block that has certainly begun ends those before it
            settled, settled_lines = len(blocks), start
        blocks.append(PARSER.renderer.render(tokens[first : i + 1], PARSER.options, env))
        first = i + 1
    return {"blocks": blocks, "settled": settled, "settled_lines": settled_lines}


def _tame(token: Token) -> None:
    """A table's columns are aligned by classes, since the page allows no styles in HTML; and headings begin
    below those of the page.
    """
    if style := token.attrs.pop("style", None):
        token.attrSet("class", str(style).removeprefix("text-align:"))
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"


def read(source: BinaryIO) -> Any:
    """The next frame; None at the end."""
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return json.loads(source.read(LENGTH.unpack(head)[0]))


def frame(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return LENGTH.pack(len(body)) + body


def main() -> None:
    while (texts := read(sys.stdin.buffer)) is not None:
        sys.stdout.buffer.write(frame([rendered(text) for text in texts]))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
