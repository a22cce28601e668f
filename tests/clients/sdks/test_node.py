"""The clients of Node: each script runs the real package, and says itself what must hold."""

import os
import shutil
import subprocess

import pytest

from tests.clients.packages import NODE, require_node

SCRIPTS = [
    ("openai.test.mjs", "openai"),
    ("ai_sdk.test.mjs", "ai"),
    ("anthropic.test.mjs", "@anthropic-ai/sdk"),
]


@pytest.mark.parametrize(("script", "package"), SCRIPTS)
def test_node(server, script, package):
    require_node(package)
    environment = {**os.environ, "BASE_URL": server.base_url, "MODEL": server.model}
    done = subprocess.run(
        [shutil.which("node"), "--test", "--test-reporter=spec", script],
        cwd=NODE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass 0" not in done.stdout
