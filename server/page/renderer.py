"""Markdown → HTML that is safe to show, in a separate process.

The text of a conversation comes from a model, so it may be anything.  A separate process cannot delay the
engine's thread, however long it takes (a regular expression of a highlighter holds the GIL until it is done),
and can be killed (server/page/rendering.py).

Input and output: frames of a length in 4 bytes, big-endian, and JSON of that length.  The input is a list of
texts; the output has the top-level blocks of each.  All blocks but the last few are settled: text that is
added later cannot change them, so a growing text need not be sent again from its beginning.

HTML in the text is shown as text.  Links are kept only for http, https and mailto.  An image becomes a link
to it, because loading it would reveal to its host who reads the conversation.

This file is run by its path, so it imports nothing of ours.
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
"""Maximum nesting of blocks; deeper ones are shown as text."""

LINK = re.compile(r"(https?://|mailto:)[^\s]+", re.IGNORECASE)
COLOURS: HtmlFormatter[str] = HtmlFormatter(nowrap=True)


class HTML(RendererHTML):
    """Differences from the package's HTML: code has a caption, links open in a new tab, images are links."""

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
    settled        number of first blocks that do not change, whatever text is added
    settled_lines  number of lines of text in these blocks
    """
    env: dict[str, Any] = {}
    tokens = PARSER.parse(text, env)
    complete_lines = text.count("\n")  # the last line may be incomplete
    blocks: list[str] = []
    settled = settled_lines = depth = first = 0
    for i, token in enumerate(tokens):
        _tame(token)
        depth += token.nesting
        if depth:
            continue
        start = (tokens[first].map or [0])[0]
        if blocks and start < complete_lines:  # a block that has begun ends those before it
            settled, settled_lines = len(blocks), start
        blocks.append(PARSER.renderer.render(tokens[first : i + 1], PARSER.options, env))
        first = i + 1
    return {"blocks": blocks, "settled": settled, "settled_lines": settled_lines}


def _tame(token: Token) -> None:
    """Align the columns of a table with classes, because the page's policy forbids inline styles, and begin
    headings two levels lower, below those of the page.
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
