"""guidance's client for vLLM: answers follow its grammars."""

import pytest

from tests.clients.packages import require

require("guidance")

from guidance import assistant, gen, select, user  # noqa: E402
from guidance.models.experimental import VLLMModel  # noqa: E402


@pytest.fixture
def model(server):
    return VLLMModel(server.model, base_url=server.base_url, api_key="x")


def test_a_selection_and_a_pattern_are_captured(model):
    with user():
        model += "Is the sky blue?"
    with assistant():
        model += "Answer: " + select(["yes", "no"], name="answer") + " " + gen("number", regex=r"[0-9]{2}")
    assert model["answer"] in ("yes", "no")
    assert model["number"].isdigit()
