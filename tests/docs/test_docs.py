"""The commands and programs in README.md and docs/ do what the text says, if they are run in order."""

import re
import shutil

import pytest

from tests.docs.pages import HOW, PAGES, ROOT, Block, blocks
from tests.docs.reader import Reader, compare

pytestmark = pytest.mark.timeout(400)  # a page starts programs, on a machine that may be busy

WITH_COMMANDS = [page for page in PAGES if any(block.runs for block in blocks(page))]
SLOW = ("machine.md", "batch.md", "tensor-parallel.md", "terminal.md", "security.md", "troubleshooting.md")
"""Pages that take long, because they start a model several times."""


@pytest.fixture
def reader(server, tmp_path, monkeypatch):
    if shutil.which("bash") is None or shutil.which("curl") is None:
        pytest.skip("the pages' commands need bash and curl")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    reads = Reader(server.url, tmp_path)
    yield reads
    reads.close()


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=pytest.mark.exhaustive if page.name in SLOW else ())
        for page in WITH_COMMANDS
    ],
)
def test_the_commands_of_a_page_do_what_it_says(reader, page):
    printed = None
    for block in blocks(page):
        if block.runs:
            printed = reader.do(block)
        elif block.how.startswith("prints"):
            assert printed is not None, f"{block}: what was to print this?"
            compare(block, printed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is_for_and_what_is_not_run_says_why(page):
    for block in blocks(page):
        assert block.language in HOW, f"{block}: {block.language!r}"
        assert re.fullmatch(HOW[block.language], block.how), f"{block}: {block.how!r}"


def shown(language, text, how="prints"):
    return Block(ROOT / "README.md", 1, language, how, text)


@pytest.mark.parametrize(
    ("language", "how", "text", "printed"),
    [
        ("text", "prints", "a\n…\nz\n", "a\nb\nc\nz\n"),
        ("text", "prints", "x = …\n", "x = 5\n"),
        ("json", "prints", '{"a": 1, "b": ["x"]}', '{"a": 2, "b": ["y", "z"]}'),
        ("json", "prints", '{"a": 1, "…": "…"}', '{"a": 2.5, "b": 3}'),
        ("json", "prints", '{"a": null}', '{"a": "said"}'),
        ("json", "prints exactly", '{"a": "from … to z"}', '{"a": "from a to z"}'),
    ],
)
def test_what_is_printed_may_be_other_words(language, how, text, printed):
    compare(shown(language, text, how), printed)


@pytest.mark.parametrize(
    ("language", "how", "text", "printed"),
    [
        ("text", "prints", "a\nz\n", "a\nb\nz\n"),
        ("json", "prints", '{"a": 1}', '{"a": 1, "b": 2}'),
        ("json", "prints", '{"a": 1, "b": 2}', '{"a": 1}'),
        ("json", "prints", '{"a": "x"}', '{"a": 1}'),
        ("json", "prints", '{"a": [1]}', '{"a": []}'),
        ("json", "prints", "{}", "curl: (7) failed"),
        ("json", "prints exactly", '{"a": "x"}', '{"a": "y"}'),
        ("json", "prints exactly", '{"a": null}', '{"a": "y"}'),
    ],
)
def test_what_is_printed_may_not_be_of_another_kind(language, how, text, printed):
    with pytest.raises(AssertionError):
        compare(shown(language, text, how), printed)
