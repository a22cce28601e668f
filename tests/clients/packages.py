"""Packages of other projects that tests need: without one, a test is skipped, or fails if it was promised."""

import importlib
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

NODE = Path(__file__).parent / "node"
AGENTS = Path(__file__).parent / "agents" / "node_modules" / ".bin"

WHERE = "`make test-clients` installs it"


def require(name: str) -> ModuleType:
    """The package.  Without it the tests of this file are skipped.

    Under `make test-clients`, which promises it, they fail.
    """
    if os.environ.get("TEST_CLIENTS"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not here: {WHERE}")


def require_node(package: str) -> None:
    """The same for a package of Node."""
    if not (NODE / "node_modules" / package).is_dir():
        assert not all_promised(), f"{package} is not in {NODE}/node_modules"
        pytest.skip(f"{package} is not here: {WHERE}", allow_module_level=True)


def run_node(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script of Node's own test runner, to its end."""
    return subprocess.run(
        [shutil.which("node") or "node", "--test", "--test-reporter=spec", script],
        cwd=NODE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def require_agent(program: str) -> None:
    """The same for an agent's program, in one test."""
    if not (AGENTS / program).exists():
        assert not all_promised(), f"{program} is not in {AGENTS}"
        pytest.skip(f"{program} is not here: {WHERE}")


def all_promised() -> bool:
    """Not so where there is no npm: then `make test-clients NPM=` promises Python's packages alone."""
    return os.environ.get("TEST_CLIENTS") == "all"
