"""The tests import this package `tests`, and no other with the same name."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_another_package_called_tests_does_not_take_the_place_of_this_one(tmp_path):
    """Some distributions install `tests`; without an `__init__.py` here, that was imported instead."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", "import tests; print(tests.__file__)"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(ROOT / "tests" / "__init__.py"), done.stderr
