"""Clients for Node: each script runs the real package, and contains the assertions."""

import pytest

from tests.clients.packages import require_node, run_node

SCRIPTS = [
    ("openai.test.mjs", "openai"),
    ("ai_sdk.test.mjs", "ai"),
    ("anthropic.test.mjs", "@anthropic-ai/sdk"),
]


@pytest.mark.parametrize(("script", "package"), SCRIPTS)
def test_node(server, script, package):
    require_node(package)
    done = run_node(script, BASE_URL=server.base_url, MODEL=server.model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass 0" not in done.stdout
