"""The command-line program `llm`, with this server in its extra-openai-models.yaml."""

import json
import os
import subprocess
import sys

import pytest

from tests.clients.conftest import GREEDY
from tests.clients.packages import require

require("llm")

OPTIONS = [word for name, value in GREEDY.items() for word in ("-o", name, str(value))]

MODELS = """
- model_id: demo
  model_name: {model}
  api_base: {base_url}
  supports_schema: true
  supports_tools: true
- model_id: demo-raw
  model_name: {model}
  api_base: {base_url}
  completion: true
"""


@pytest.fixture
def llm(server, tmp_path):
    """Runs `llm` with these arguments; what it printed."""
    (tmp_path / "extra-openai-models.yaml").write_text(
        MODELS.format(model=server.model, base_url=server.base_url)
    )
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "x"}

    def run(*arguments):
        command = [sys.executable, "-m", "llm", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_an_answer_streamed_and_not(llm):
    streamed = llm("-m", "demo", *OPTIONS, "Hello")
    assert streamed.strip()
    assert llm("-m", "demo", *OPTIONS, "--no-stream", "Hello") == streamed


def test_a_conversation_goes_on(llm):
    llm("-m", "demo", "My name is Anna.")
    assert llm("-c", "What is my name?").strip()


def test_a_schema(llm):
    person = json.loads(llm("-m", "demo", *OPTIONS, "--schema", "name, age int", "Anna is 23 years old."))
    assert {key: type(value) for key, value in person.items()} == {"name": str, "age": int}


def test_a_function(llm):
    source = 'def get_weather(city: str) -> str:\n    "Get the weather in a city."\n    return "18 degrees"'
    said = llm("-m", "demo", *OPTIONS, "--functions", source, "What is the weather in Paris?")
    assert said.strip()


def test_raw_text(llm):
    assert llm("-m", "demo-raw", "-o", "max_tokens", "5", "Once upon a time")
