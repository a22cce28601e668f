"""A real server, in a process of its own, for tests of other projects' clients."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.packages import all_promised

ROOT = Path(__file__).parents[2]
START_SECONDS = 300

GREEDY = {"temperature": 0, "frequency_penalty": 1}
"""As most tests ask: one answer, whatever the machine.  The penalty is for a small model that is made to
write a string, knows no end to it, and would otherwise say the same for as long as the context lasts.
"""


@dataclass(frozen=True)
class Server:
    """url  without the /v1"""

    url: str
    model: str = "gptoss-demo"

    @property
    def base_url(self) -> str:
        return self.url + "/v1"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """`gptoss serve` with the demo model; or, to try another, what SERVER_URL and SERVER_MODEL name."""
    if url := os.environ.get("SERVER_URL"):
        yield Server(url.rstrip("/"), os.environ.get("SERVER_MODEL", Server.model))
        return
    with serving() as started:
        yield started


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Under `make test-clients`, which promises to run all, a test of ours that is skipped has failed.

    LangChain's own are skipped where a model does not have what they are about: pictures, sounds, papers.
    """
    report = yield
    ours = item.path.is_relative_to(Path(__file__).parent) and "langchain_tests" not in item.obj.__module__
    if all_promised() and ours and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@contextmanager
def serving(*flags: str) -> Iterator[Server]:
    """A server of one's own."""
    python = os.environ.get("SERVER_PYTHON", sys.executable)
    command = [python, "-m", "gptoss", "serve", "--port", "0", "--date", "2025-06-28", *flags]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield Server(_ready(process, errors))
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def scripted(folder: Path, lines: list[dict], *flags: str) -> Iterator[Server]:
    """A server whose model follows a script (tests/server/scripted.py); its prompts are in `folder`."""
    (folder / "script.json").write_text(json.dumps(lines))
    python = os.environ.get("SERVER_PYTHON", sys.executable)
    prompts = ["--prompts", str(folder / "prompts.jsonl")]
    command = [python, "-m", "tests.server.scripted", str(folder / "script.json"), "--port", "0", *prompts]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, "--served-model-name", "gpt-oss-20b", "--date", "2025-06-28", *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield Server(_ready(process, errors), "gpt-oss-20b")
        finally:
            process.terminate()
            process.wait(30)


def prompts_of(folder: Path) -> list[str]:
    """What a scripted model was asked so far."""
    return [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]


def _ready(process: subprocess.Popen[str], errors) -> str:
    """The URL of the server, once it accepts requests."""
    said = []
    for line in process.stdout:
        said.append(line)
        if "listening on " in line:
            url = line.split("listening on ")[1].strip()
            break
    else:
        errors.seek(0)
        pytest.fail(f"the server did not start:\n{''.join(said)}{errors.read()}")
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url + "/ready", timeout=5).close()
            return url
        except urllib.error.URLError:
            time.sleep(0.1)
    pytest.fail(f"the server was not ready in {START_SECONDS} s")
