"""Runs the blocks of a page, as a reader would: in order, in one folder, with one server."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docs.pages import ROOT, Block

URL = "http://127.0.0.1:8000"
"""The server's address in the documentation."""

COMMAND_SECONDS = 200.0


def environment(folder: Path) -> dict[str, str]:
    """The reader's environment: `gptoss` runs this source tree, and no setting has a variable."""
    command = folder / "bin" / "gptoss"
    if not command.exists():
        command.parent.mkdir(parents=True)
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gptoss "$@"\n')
        command.chmod(0o755)
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("GPTOSS_")}
    return theirs | {
        "PATH": os.pathsep.join([str(command.parent), str(Path(sys.executable).parent), theirs["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "GPTOSS_PORT": "0",  # if a page names no port; 8000 may be taken
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


class Server:
    """`gptoss serve` as a page starts it, but on a free port and with a small cache."""

    def __init__(self, command: str, folder: Path):
        small = {"GPTOSS_KV_CACHE_MEMORY": "64MiB", "GPTOSS_LOG_LEVEL": "warning"}
        self._log = (folder / "server.log").open("w+")
        self._process = subprocess.Popen(
            ["bash", "-c", "exec " + command.replace("--port 8000", "--port 0")],
            cwd=folder,
            env=environment(folder) | small,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout
        line = ""
        while not line.startswith("listening on "):
            line = self._process.stdout.readline()
            assert line, f"`{command}` did not start:\n{self._complaint()}"
        self.url = line.removeprefix("listening on ").strip()

    def _complaint(self) -> str:
        self._process.wait(30)
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)
        assert self._process.stdout
        self._process.stdout.close()
        self._log.close()


class Reader:
    """Runs blocks.

    url     of the server that the page uses
    folder  the current folder
    """

    def __init__(self, url: str, folder: Path):
        self._url, self._folder = url, folder
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._own: list[Server] = []

    def close(self) -> None:
        for server in self._own:
            server.close()

    def do(self, block: Block) -> str:
        """Run a block, and return its output.  Fails if the block fails."""
        text = block.text.replace(URL, self._url)
        if block.language == "python":
            return self._python(block, text)
        if block.how == "serve":
            self._own.append(Server(text, self._folder))
            self._url = self._own[-1].url
            return ""
        return self._bash(block, text)

    def _python(self, block: Block, text: str) -> str:
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + text, str(block.page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, self._names)
        return printed.getvalue()

    def _bash(self, block: Block, text: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self._folder,
            env=environment(self._folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        expected = int(block.how.split()[1]) if block.how else 0
        said = f"{block}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == expected, said
        return done.stdout + (done.stderr if expected else "")


def compare(shown: Block, printed: str) -> None:
    """Raises AssertionError unless `printed` is what the block shows."""
    if shown.language == "text":
        assert re.fullmatch(_pattern(shown.text), printed.strip() + "\n"), (
            f"{shown} shows\n{shown.text}\nbut what is printed is\n{printed}"
        )
        return
    try:
        real = json.loads(printed)
    except ValueError:
        raise AssertionError(f"{shown} shows JSON, but what is printed is\n{printed}") from None
    fault = _misfit(json.loads(shown.text), real, shown.how == "prints exactly")
    assert fault is None, f"{shown}: {fault}; what is printed is\n{printed}"


def _pattern(text: str) -> str:
    """The regular expression for an output: a line with only `…` matches any lines, another `…` any
    characters.
    """
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n"
        for line in text.strip().splitlines()
    ]
    return "".join(lines)


def _misfit(shown: Any, real: Any, exactly: bool, where: str = "it") -> str | None:
    """Where the real value differs in kind from the one that is shown; None if it does not.

    Without `exactly`, null matches any value, and any value null, because the model's answer may differ.
    """
    if shown == "…" or (not exactly and (shown is None or real is None)):
        return None
    if isinstance(shown, dict) and isinstance(real, dict):
        open_ended = "…" in shown
        keys = shown.keys() - {"…"}
        if not (keys <= real.keys() if open_ended else keys == real.keys()):
            return f"{where} has {sorted(real)}, not {sorted(shown)}"
        faults = (_misfit(shown[key], real[key], exactly, f"{where}.{key}") for key in keys)
        return next((fault for fault in faults if fault), None)
    if isinstance(shown, list) and isinstance(real, list):
        items = [item for item in shown if item != "…"]
        if bool(items) != bool(real) or (exactly and items == shown and len(items) != len(real)):
            return f"{where} has {len(real)} items, not {len(shown)}"
        faults = (
            _misfit(item, other, exactly, f"{where}[{i}]")
            for i, (item, other) in enumerate(zip(items, real, strict=False))
        )
        return next((fault for fault in faults if fault), None)
    if exactly:
        alike = shown == real or (
            isinstance(shown, str)
            and isinstance(real, str)
            and re.fullmatch(re.escape(shown).replace("…", ".*"), real, re.DOTALL)
        )
    else:
        numbers = (int, float)
        alike = type(shown) is type(real) or (type(shown) in numbers and type(real) in numbers)
    return None if alike else f"{where} is {real!r}, not {shown!r}"
