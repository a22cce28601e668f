"""A client of a server whose model follows a script."""

import pytest

from tests.server.api.responses.loop import Client
from tests.server.scripted import Script, scripted


@pytest.fixture
def client():
    with scripted(Script()) as server:
        yield Client(server)
