"""pydantic-ai: agents with text, with both kinds of objects, and with tools."""

import asyncio

import pytest
from pydantic import BaseModel

from tests.clients.conftest import GREEDY
from tests.clients.packages import require

pydantic_ai = require("pydantic_ai")

from pydantic_ai.capabilities import AbstractCapability  # noqa: E402
from pydantic_ai.models.openai import OpenAIChatModel  # noqa: E402
from pydantic_ai.providers.openai import OpenAIProvider  # noqa: E402


class Person(BaseModel):
    name: str
    age: int


class CallFirst(AbstractCapability):
    """The first step must call a function; whether a model would by itself is not asked here."""

    def get_model_settings(self):
        return lambda context: {"tool_choice": "required" if context.run_step == 1 else "auto"}


@pytest.fixture
def agent(server):
    """Makes agents of the server's model."""

    def make(**more):
        provider = OpenAIProvider(base_url=server.base_url, api_key="x")
        model = OpenAIChatModel(server.model, provider=provider)
        return pydantic_ai.Agent(model, model_settings={**GREEDY, "timeout": 300}, **more)

    return make


def test_an_answer(agent):
    result = agent().run_sync("Hello")
    assert result.output
    assert result.usage.output_tokens > 0


def test_a_conversation(agent):
    talker = agent()
    first = talker.run_sync("My name is Anna.")
    second = talker.run_sync("What is my name?", message_history=first.all_messages())
    assert second.output


def test_a_stream(agent):
    async def run():
        async with agent().run_stream("Hello") as result:
            return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

    pieces = asyncio.run(run())
    assert "".join(pieces) == agent().run_sync("Hello").output


def test_the_reasoning_is_a_part_of_its_own(agent):
    parts = agent().run_sync("Hello").all_messages()[-1].parts
    assert [part.part_kind for part in parts] == ["thinking", "text"]


def test_an_object_as_the_arguments_of_a_forced_call(agent):
    result = agent(output_type=Person).run_sync("Create a user: Anna, 23")
    assert isinstance(result.output, Person)


def test_an_object_as_the_answer(agent):
    native = pydantic_ai.NativeOutput(Person)
    result = agent(output_type=native).run_sync("Anna is 23 years old.")
    assert isinstance(result.output, Person)


def test_a_tool_is_called_and_its_result_used(agent):
    worker, asked = agent(capabilities=[CallFirst()]), []

    @worker.tool_plain
    def get_weather(city: str) -> dict[str, int]:
        """Get the weather in a city."""
        asked.append(city)
        return {"temperature": 18}

    result = worker.run_sync("What is the weather in Paris?")
    assert asked
    assert all(isinstance(city, str) for city in asked)
    assert result.output
