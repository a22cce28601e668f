"""openai-agents, with its model for chat completions."""

import asyncio

import openai
import pytest
from pydantic import BaseModel

from tests.clients.conftest import GREEDY
from tests.clients.packages import require

agents = require("agents")


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture
def agent(server):
    """Makes agents of the server's model."""
    agents.set_tracing_disabled(True)  # it would be sent to OpenAI

    def make(**more):
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0, timeout=300)
        model = agents.OpenAIChatCompletionsModel(model=server.model, openai_client=client)
        first = "required" if more.get("tools") or more.get("handoffs") else None  # then up to the model
        settings = agents.ModelSettings(**GREEDY, include_usage=True, tool_choice=first)
        return agents.Agent(name="demo", model=model, model_settings=settings, **more)

    return make


@pytest.fixture
def weather():
    """A tool, and the cities it was asked about."""
    asked = []

    @agents.function_tool
    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        asked.append(city)
        return '{"temperature": 18}'

    return get_weather, asked


def test_an_answer(agent):
    result = asyncio.run(agents.Runner.run(agent(), "Hello"))
    assert result.final_output
    assert result.context_wrapper.usage.output_tokens > 0


def test_a_tool_is_called_and_its_result_used(agent, weather):
    tool, asked = weather
    result = asyncio.run(agents.Runner.run(agent(tools=[tool]), "What is the weather in Paris?"))
    assert asked
    assert result.final_output


def test_a_stream_with_a_tool(agent, weather):
    tool, asked = weather

    async def run():
        result = agents.Runner.run_streamed(agent(tools=[tool]), "What is the weather in Paris?")
        kinds = [event.type async for event in result.stream_events()]
        return kinds, result.final_output

    kinds, output = asyncio.run(run())
    assert asked
    assert output
    assert "raw_response_event" in kinds


def test_an_object_as_the_answer(agent):
    result = asyncio.run(agents.Runner.run(agent(output_type=Person), "Anna is 23 years old."))
    assert isinstance(result.final_output, Person)


def test_one_agent_hands_over_to_another(agent):
    """A handoff is a forced call of a function without arguments that matter."""
    other = agent(handoff_description="Greets people.").clone(name="greeter")
    result = asyncio.run(agents.Runner.run(agent(handoffs=[other]), "Hello"))
    assert result.last_agent.name == "greeter"
    assert result.final_output
