"""All that the documentation names exists: settings, commands, metrics, error codes, messages, links."""

import ast
import json
import re
import shlex
import urllib.request
from dataclasses import fields
from functools import cache

import pytest

from gptoss.__main__ import COMMANDS, parser
from gptoss.terminal.slash_commands import SLASH_COMMANDS
from server import settings_sources
from server.errors import STATUSES
from server.settings import Settings, SettingsError, variable
from server.settings_file import load
from server.settings_sources import CONFIG, OTHER_VARIABLES
from tests.docs.pages import PAGES, README, ROOT, Block, anchors, blocks, links, rows, spans

DOCS = ROOT / "docs"
MIGRATION = DOCS / "migration.md"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

THEIR_FLAGS = {"--gpus", "--build-arg", "--profile", "--extra-index-url", "--isolation", "--storage-driver"}
"""Flags of docker, pip and other programs that a page may mention."""


@cache
def flags() -> frozenset[str]:
    """The flags of all commands."""
    words = next(action for action in parser()._actions if action.dest == "command")
    return frozenset(flag for word in words.choices.values() for flag in word._option_string_actions)


# Settings and commands


@each_page
def test_every_flag_that_is_named_exists(page):
    named = _our_columns() if page == MIGRATION else spans(page)
    found = {flag for span in named for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)}
    assert found <= flags() | THEIR_FLAGS, found - flags() - THEIR_FLAGS


def _our_columns():
    """The contents of the columns about this server in the migration tables."""
    lines = [line for line in MIGRATION.read_text().splitlines() if line.startswith("|")]
    ours = [re.split(r"(?<!\\)\|", line)[2] for line in lines]
    return re.findall(r"`([^`]+)`", " ".join(ours))


@each_page
def test_every_variable_that_is_named_exists(page):
    known = {CONFIG, *OTHER_VARIABLES, *(variable(each) for each in fields(Settings))}
    found = set(re.findall(r"\bGPTOSS_[A-Z_]*[A-Z]", page.read_text()))
    assert found <= known, found - known


@each_page
def test_every_command_that_is_shown_would_be_understood(page):
    """Also for blocks that are not run, and for commands in a sentence."""
    for block in blocks(page):
        if block.language in ("bash", "console") and not block.how.startswith("exit"):
            for words in commands(re.sub(r"(?m)^\$ ", "", block.text)):
                assert_understood(words, str(block))
    names = {f"gptoss {command.name}" for command in COMMANDS}
    for span in spans(page):
        if re.match(r"([A-Z_]+=\S+ )*gptoss ", span) and span not in names:
            for words in commands(span):
                assert_understood(words, f"{page.name}: `{span}`")


def commands(text: str) -> list[tuple[dict[str, str], list[str]]]:
    """Each `gptoss …` command in a shell text, or after the name of an image: its variables and arguments."""
    found = []
    text = re.sub(r"\\\n", " ", text)
    inner = re.findall(r"\$\(([^()]*)\)", text)
    for line in [*re.sub(r'"?\$\([^()]*\)"?', "it", text).splitlines(), *inner]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # the middle of a text in quotes
            continue
        if "build" in words[:2]:
            continue
        variables: dict[str, str] = {}
        for i, word in enumerate(words):
            if name := re.fullmatch(r"([A-Z_]+)=(.*)", word):
                variables[name[1]] = name[2]
            if re.fullmatch(r"(.*/)?gptoss(:\w+)?", word) and (i == 0 or words[i - 1] not in ("-t", "cd")):
                end = next((j for j, w in enumerate(words[i:], i) if set(w) <= set("|&;<>")), len(words))
                if words[i + 1 : end]:
                    found.append((variables, words[i + 1 : end]))
    return found


def assert_understood(command, where):
    variables, words = command
    try:
        asked = vars(parser().parse_args([word.replace("…", "x") for word in words]))
        ours = {name: value for name, value in variables.items() if name.startswith("GPTOSS_")}
        settings_sources.read({**asked, "config": None}, ours)
    except SettingsError as error:
        pytest.fail(f"{where}: {error}")
    except SystemExit as end:
        if end.code:
            pytest.fail(f"{where}: gptoss {' '.join(words)}")


def test_commands_are_found_in_shell():
    text = 'A=1 gptoss serve --port 1 > log; x | gptoss chat\ngptoss serve --model "$(gptoss download a/b)"\n'
    text += "docker run -p 1:1 gptoss:cpu serve \\\n  --host 0.0.0.0\ndocker build -t gptoss .\n"
    assert [words for _, words in commands(text)] == [
        ["serve", "--port", "1"],
        ["chat"],
        ["serve", "--model", "it"],
        ["serve", "--host", "0.0.0.0"],
        ["download", "a/b"],
    ]


@each_page
def test_settings_files_that_are_shown_are_settings(page, tmp_path):
    for block in blocks(page):
        if block.language == "toml" and not block.how:
            path = tmp_path / "gptoss.toml"
            path.write_text(block.text)
            assert load(path), str(block)
            settings_sources.read({"config": str(path)}, {})


def test_every_command_is_told_of_somewhere():
    pages = "".join(page.read_text() for page in PAGES)
    for command in COMMANDS:
        assert f"gptoss {command.name}" in pages, command.name


def test_every_word_of_the_terminal_has_its_line():
    told = [
        word
        for row in rows(DOCS / "terminal.md", "A conversation")
        for word in re.findall(r"`/(\w+)", row[0])
    ]
    assert told == [command.name for command in SLASH_COMMANDS]


# What the server answers


def get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=60) as answer:
        return answer.read().decode()


def test_every_metric_that_is_named_exists_and_each_is_explained(server):
    kinds = dict(re.findall(r"(?m)^# TYPE (\w+) (\w+)$", get(server.url + "/metrics")))
    ours = {name for name in kinds if not name.endswith("_created")}
    known = ours | {
        f"{name}_{part}" for name in ours if kinds[name] == "histogram" for part in ("bucket", "sum", "count")
    }
    for page in PAGES:
        named = set(re.findall(r"\bgptoss_[a-z0-9_]*[a-z0-9]", page.read_text()))
        assert named <= known, (page.name, named - known)
    table = rows(DOCS / "monitoring.md", "Metrics")
    assert {(row[0].strip("`"), row[1]) for row in table} == {(name, kinds[name]) for name in ours}


def test_every_endpoint_has_a_line_and_a_command_and_no_other_is_told_of(server):
    paths = json.loads(get(server.url + "/openapi.json"))["paths"]
    real = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    real = {endpoint.replace(":path}", "}") for endpoint in real} | {"GET /openapi.json", "GET /docs"}
    page = DOCS / "endpoints.md"
    told = [span for row in rows(page, "Endpoints") for span in re.findall(r"`([^`]*)`", row[0])]
    assert set(told) == real
    pages = [page, DOCS / "responses.md", DOCS / "messages.md"]
    shell = "".join(block.text for each in pages for block in blocks(each) if block.language == "bash")
    for endpoint in real:
        path = re.sub(r"\\{\w+\\}", r"[\\w$-]+", re.escape(endpoint.split()[1]).removesuffix(r"/\{id\}"))
        assert re.search(f"8000{path}", shell), endpoint


def test_every_section_about_endpoints_has_a_command_and_a_program():
    for section in re.split(r"(?m)^## ", (DOCS / "endpoints.md").read_text())[1:]:
        assert {"bash", "python"} <= set(re.findall(r"(?m)^```(\w+)", section)), section.splitlines()[0]


def test_every_error_code_is_told_of_with_its_status_and_no_other_is():
    table = {(int(row[0]), row[1].strip("`")) for row in rows(DOCS / "errors.md", "Codes")}
    assert table == real_codes()
    known = {code for _, code in table}
    for page in PAGES:
        for status, code in re.findall(r"\b([45]\d\d) `([a-z_]+)`", page.read_text()):
            assert code in known, f"{page.name}: {status} {code}"


def real_codes() -> set[tuple[int, str]]:
    """The codes of all errors: in the engine's table, and wherever an ApiError is created."""
    found = set(STATUSES.values()) | {(500, "engine_error")}
    for path in sorted((ROOT / "server").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ApiError", "super().__init__"):
                code = next((word.value for word in node.keywords if word.arg == "code"), None)
                if isinstance(code, ast.Constant) and node.args and isinstance(node.args[0], ast.Constant):
                    found.add((node.args[0].value, code.value))
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "codes":
                found |= set(ast.literal_eval(node.value).items())
    return found


# Messages


@cache
def messages() -> list[str]:
    """All strings in the sources, with `…` for the inserted values."""
    found = []
    for package in ("gptoss", "server", "language", "engine", "model"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(re.sub(r"%[.\d]*[sdgf]", "…", node.value))
                elif isinstance(node, ast.JoinedStr):
                    parts = (str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values)
                    found.append("".join(parts))
    return found


def test_every_message_in_troubleshooting_is_one_that_the_program_says():
    page = DOCS / "troubleshooting.md"
    said = [
        message
        for heading in ("A setting", "The model", "Out of memory", "It starts, and warns")
        for row in rows(page, heading)
        for message in re.findall(r"`(.*?)`", row[0])
    ]
    assert len(said) > 25
    unknown = [message for message in said if not any(message in real for real in messages())]
    assert not unknown


# Links


@each_page
def test_every_link_leads_somewhere(page):
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(path), f"{page.name}: {link}"


def test_every_page_is_linked_from_the_readme():
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in links(README)}
    assert {page for page in PAGES if page != README} <= linked


def test_blocks_are_found_with_their_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n```bash\nx\n```\n- b\n\n  ```json prints\n  {}\n  ```\n")
    assert blocks(page) == [
        Block(page, 3, "bash", "", "x\n"),
        Block(page, 8, "json", "prints", "{}\n"),
    ]
