"""agno's agents, with its classes for vLLM and for servers like OpenAI's."""

import pytest
from pydantic import BaseModel, Field

from tests.clients.packages import require

require("agno")

from agno.agent import Agent  # noqa: E402
from agno.models.openai.like import OpenAILike  # noqa: E402
from agno.models.vllm import VLLM  # noqa: E402


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=99)


MORE = {"temperature": 0, "frequency_penalty": 1, "max_tokens": 300}


@pytest.fixture(params=[OpenAILike, VLLM])
def model(server, request):
    return request.param(id=server.model, api_key="x", base_url=server.base_url, **MORE)


def test_an_agent_answers(model):
    assert Agent(model=model, telemetry=False).run("Hello!").content


def test_an_agent_s_answer_has_a_type(model):
    model.supports_native_structured_outputs = True
    answer = Agent(model=model, output_schema=Person, telemetry=False).run("Anna is 23 years old.")
    assert isinstance(answer.content, Person)
