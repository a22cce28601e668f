"""outlines and guidance, as they call vLLM: answers follow schemas, patterns, choices and grammars."""

import json
import re
from typing import Literal

import openai
import pytest
from pydantic import BaseModel

from tests.clients.packages import require


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.base_url, api_key="x", max_retries=0, timeout=300) as client:
        yield client


LIMIT = {"temperature": 0, "max_tokens": 300}


def test_outlines_holds_an_answer_to_a_type(client, server):
    outlines = require("outlines")
    model = outlines.from_vllm(client, server.model)
    person = model("Anna is 23 years old.", Person, **LIMIT, frequency_penalty=1)
    assert Person.model_validate_json(person)
    assert model("Is 2 + 2 four?", Literal["yes", "no"], **LIMIT) in ("yes", "no")
    assert re.fullmatch(r"[A-Z]\d{2}", model("A seat?", outlines.types.Regex(r"[A-Z]\d{2}"), **LIMIT))
    grammar = outlines.types.CFG('start: "a" ("+" "a"){2}\n')
    assert model("A sum?", grammar, **LIMIT) == "a+a+a"
    pieces = model.stream("Anna is 23 years old.", Person, **LIMIT, frequency_penalty=1)
    assert isinstance(json.loads("".join(pieces)), dict)


def test_guidance_selects_and_matches(server):
    guidance = require("guidance")
    experimental = require("guidance.models.experimental")
    state = experimental.VLLMModel(server.model, base_url=server.base_url, api_key="x", echo=False)
    with guidance.user():
        state += "Is 2 + 2 four?"
    with guidance.assistant():
        state += guidance.select(["yes", "no"], name="answer")
    assert state["answer"] in ("yes", "no")
    with guidance.user():
        state += "A seat?"
    with guidance.assistant():
        state += guidance.gen("seat", regex=r"[A-Z]\d{2}")
    assert re.fullmatch(r"[A-Z]\d{2}", state["seat"])
