"""The documentation as data: its pages, their fenced blocks, headings and links.

The words after a block's language say what it is for:

    ```bash                      runs, and exits with 0
    ```bash exit 2               runs, and exits with 2
    ```bash serve                starts a server for the rest of the page
    ```bash norun: a reason      is not run, but its `gptoss` commands are checked
    ```console norun: a reason   the same, with a `$` before each command
    ```python                    runs, after the page's earlier ones, in the same namespace
    ```json prints               the output of the block before: the same keys and types
    ```json prints exactly       the same values too
    ```text prints               the same text
    ```toml                      a settings file

In an output, `…` stands for anything: a part of a line, whole lines, a value, further items or keys.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

RUNNABLE = ("bash", "python")
HOW = {
    "bash": r"|exit \d+|serve|norun: \S.{9,}",
    "python": r"|norun: \S.{9,}",
    "json": r"|prints|prints exactly",
    "text": r"|prints",
    "console": r"norun: \S.{9,}",
    "toml": r"|norun: \S.{9,}",
    "yaml": "",
    "nginx": "",
}
"""Language → the words that may follow it."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    line  number of its first line of text, from 1
    how   the words after the language
    """

    page: Path
    line: int
    language: str
    how: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUNNABLE and not self.how.startswith("norun")


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    found: list[Block] = []
    opened: tuple[int, str, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.fullmatch(r"( *)```(.*)", line)
        if fence and opened is None:
            language, _, how = fence[2].partition(" ")
            opened, lines = (number + 1, language, how.strip(), fence[1]), []
        elif fence and opened is not None:
            first, language, how, _ = opened
            found.append(Block(page, first, language, how, "\n".join(lines) + "\n"))
            opened = None
        elif opened is not None:
            lines.append(line.removeprefix(opened[3]))
    assert opened is None, f"{page.name}:{opened}: the block has no end"
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """All texts in backticks in the prose."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))


def headings(page: Path) -> list[str]:
    return re.findall(r"(?m)^#+ +(.+?) *$", prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub names them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", each) for each in headings(page))
    }


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    text = prose(page)
    found = re.search(rf"(?m)^#+ +{re.escape(heading)} *$", text)
    assert found, f"{page.name} has no heading {heading!r}"
    table: list[list[str]] = []
    for line in text[found.end() :].splitlines():
        if line.startswith("|"):
            table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
        elif table or line.startswith("#"):
            break
    return table[2:]
