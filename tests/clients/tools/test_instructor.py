"""instructor: objects from calls, from JSON mode and from schemas, streamed and not."""

import pytest
from pydantic import BaseModel

from tests.clients.conftest import GREEDY
from tests.clients.packages import require

instructor = require("instructor")
openai = require("openai")

MODES = ["TOOLS", "TOOLS_STRICT", "JSON_SCHEMA", "JSON"]


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def create(server):
    """Asks for a Person, or what else `response_model` is."""
    with openai.OpenAI(base_url=server.base_url, api_key="x", max_retries=0, timeout=600) as client:

        def ask(mode, method="create", response_model=Person):
            patched = instructor.from_openai(client, mode=getattr(instructor.Mode, mode))
            return getattr(patched.chat.completions, method)(
                model=server.model,
                **GREEDY,
                max_retries=1,
                response_model=response_model,
                messages=[{"role": "user", "content": "Anna is 23 years old."}],
            )

        yield ask


@pytest.mark.parametrize("mode", MODES[:3])
def test_an_object(create, mode):
    assert isinstance(create(mode), Person)


def test_an_object_of_json_mode_which_promises_json_and_no_schema(create):
    class Anything(BaseModel, extra="allow"):
        pass

    assert isinstance(create("JSON", response_model=Anything), Anything)


def test_an_object_that_grows(create):
    *_, last = create("TOOLS", "create_partial")
    assert isinstance(last.name, str)
    assert isinstance(last.age, int)


def test_the_answer_comes_along(create):
    person, answer = create("TOOLS", "create_with_completion")
    assert isinstance(person, Person)
    assert answer.usage.completion_tokens > 0
