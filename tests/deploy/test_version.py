"""The version is defined in server/version.py, and everything that shows it reads it there."""

import re
import tomllib
from pathlib import Path

from server.settings import Settings
from server.version import VERSION
from tests.server.fakes import final, live

ROOT = Path(__file__).parents[2]


def test_it_is_a_semantic_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9a-z.]+)?", VERSION)


def test_the_package_is_built_with_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "server.version.VERSION"}


def test_the_server_tells_it(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi!"), settings=Settings()) as server:
        assert server.http.get("/openapi.json").json()["info"]["version"] == VERSION


def test_the_newest_entry_of_the_changelog_is_this_version():
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == VERSION


def test_no_source_file_repeats_it():
    rooms = ("gptoss", "server", "language", "engine", "model", "demo")
    sources = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert [path.name for path in sources if f'"{VERSION}"' in path.read_text()] == ["version.py"]
