"""mirascope, with its provider for chat completions."""

import pytest
from pydantic import BaseModel, Field

from tests.clients.packages import require

require("mirascope")

from mirascope import llm  # noqa: E402


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=99)


@pytest.fixture
def name(server):
    llm.register_provider("openai:completions", "openai/", base_url=server.base_url, api_key="x")
    return f"openai/{server.model}"


def test_an_answer(name):
    @llm.call(name, temperature=0, max_tokens=60)
    def greet():
        return "Hello!"

    assert greet().text()


def test_an_answer_of_a_type(name):
    @llm.call(name, format=llm.format(Person, mode="strict"), temperature=0, max_tokens=300)
    def who():
        return "Anna is 23 years old."

    assert isinstance(who().parse(), Person)
