"""haystack's chat generator: an answer, a call, a pydantic type, a stream."""

from typing import Any

import pytest
from pydantic import BaseModel, Field

from tests.clients.packages import require

require("haystack")

from haystack.components.generators.chat import OpenAIChatGenerator  # noqa: E402
from haystack.dataclasses import ChatMessage  # noqa: E402
from haystack.tools import Tool  # noqa: E402
from haystack.utils import Secret  # noqa: E402


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=99)


@pytest.fixture
def generator(server):
    def generator(**kwargs: Any) -> OpenAIChatGenerator:
        return OpenAIChatGenerator(
            api_key=Secret.from_token("x"),
            model=server.model,
            api_base_url=server.base_url,
            generation_kwargs={"temperature": 0, "frequency_penalty": 1, "max_tokens": 300, **kwargs},
        )

    return generator


def ask(generator, text, **more):
    (reply,) = generator.run([ChatMessage.from_user(text)], **more)["replies"]
    return reply


def test_an_answer_and_its_stream(generator):
    pieces = []
    said = ask(generator(), "Hello!").text
    streamed = ask(generator(), "Hello!", streaming_callback=lambda chunk: pieces.append(chunk.content)).text
    assert said == streamed == "".join(pieces)


def test_a_forced_call(generator):
    tool = Tool(
        name="get_weather", description="Weather", function=lambda city: city,
        parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    )  # fmt: skip
    (call,) = ask(generator(tool_choice="required"), "What is the weather in Paris?", tools=[tool]).tool_calls
    assert call.tool_name == "get_weather"
    assert isinstance(call.arguments["city"], str)


def test_a_pydantic_type(generator):
    assert Person.model_validate_json(ask(generator(response_format=Person), "Anna is 23 years old.").text)
