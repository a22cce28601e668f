"""One server for all pages of the documentation."""

import pytest

from gptoss.assembly import DEMO
from tests.docs.reader import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """`gptoss serve` with the demo model."""
    if not (DEMO / "config.json").exists():
        pytest.skip("the demo's weights are not trained yet: demo/weights")
    running = Server("gptoss serve", tmp_path_factory.mktemp("server"))
    yield running
    running.close()
