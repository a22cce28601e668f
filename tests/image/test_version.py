"""The version stands in pyproject.toml; whoever tells it has it from there."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

from server.settings import Settings
from tests.server.fakes import final, live

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_it_is_a_semantic_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9a-z.]+)?", VERSION)


def test_the_installed_package_has_it():
    assert version("gptoss") == VERSION, "installed before the version changed: `make install`"


def test_the_server_tells_it(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi!"), settings=Settings()) as server:
        assert server.http.get("/openapi.json").json()["info"]["version"] == VERSION


def test_the_newest_entry_of_the_changelog_is_this_version():
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == VERSION


def test_no_source_file_repeats_it():
    sources = [path for room in ("server", "engine", "model", "demo") for path in (ROOT / room).rglob("*.py")]
    assert sources
    assert [path for path in sources if f'"{VERSION}"' in path.read_text()] == []
