"""outlines' client for vLLM: answers have the requested types, choices, patterns and numbers."""

from typing import Literal

import pytest
from pydantic import BaseModel, Field

from tests.clients.packages import require

openai = require("openai")
outlines = require("outlines")
from outlines.types import Regex  # noqa: E402

MORE = {"temperature": 0, "frequency_penalty": 1, "max_tokens": 400}


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=99)


@pytest.fixture
def model(server):
    return outlines.from_vllm(openai.OpenAI(base_url=server.base_url, api_key="x"), server.model)


def test_a_pydantic_type(model):
    assert Person.model_validate_json(model("Anna is 23 years old.", Person, **MORE))


def test_a_literal(model):
    assert model("Is the sky blue?", Literal["yes", "no", "perhaps"], **MORE) in ("yes", "no", "perhaps")


def test_a_pattern(model):
    said = model("What is the date?", Regex(r"20\d\d-(0[1-9]|1[0-2])-\d\d"), **MORE)
    assert len(said) == 10
    assert said[4] == said[7] == "-"


def test_an_integer(model):
    int(model("What is 2 + 3?", int, **MORE))


def test_a_stream_of_a_type(model):
    assert Person.model_validate_json("".join(model.stream("Anna is 23 years old.", Person, **MORE)))
