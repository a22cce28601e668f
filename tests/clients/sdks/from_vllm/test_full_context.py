"""Programs that search an error's text for certain words recognise a full context: pi and LangChain.

LiteLLM is in test_litellm.py, aider in tests/clients/aider.
"""

import json
import subprocess

import httpx
import pytest

from tests.clients.packages import AGENTS, require, require_agent

PI = AGENTS.parent / "@mariozechner" / "pi-ai" / "dist" / "utils" / "overflow.js"

CHECK = """
const [module, error] = process.argv.slice(1);
const { isContextOverflow } = await import(module);
const usage = { input: 0, output: 0 };
console.log(isContextOverflow({ stopReason: "error", errorMessage: error, usage }, 4096));
"""


@pytest.fixture
def error(server):
    body = {"messages": [{"role": "user", "content": "word " * 10_000}], "max_tokens": 7}
    answer = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400
    return answer.json()["error"]


def test_pi_knows_it(error):
    require_agent("pi")
    command = ["node", "--input-type=module", "-e", CHECK, PI.as_uri(), f"400 {error['message']}"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == "true", told.stderr


def test_pi_takes_no_other_refusal_for_it():
    require_agent("pi")
    command = ["node", "--input-type=module", "-e", CHECK, PI.as_uri(), "400 temperature: must be at most 2"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip() == "false"


def test_langchain_s_class_for_it_is_raised(server):
    require("langchain_openai")
    from langchain_core.exceptions import ContextOverflowError
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=server.model, base_url=server.base_url, api_key="x", max_retries=0)
    with pytest.raises(ContextOverflowError):
        chat.invoke("word " * 10_000)


def test_its_numbers_are_in_the_message(error):
    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is" in json.dumps(error)
