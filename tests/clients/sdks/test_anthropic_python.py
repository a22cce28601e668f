"""anthropic-python, unchanged: messages, streams, its tool runner, and its errors."""

import pytest

from tests.clients.packages import require

anthropic = require("anthropic")

WEATHER = {
    "name": "get_weather",
    "description": "Get the weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def user(text):
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def client(server):
    with anthropic.Anthropic(base_url=server.url, api_key="x", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def greedy(server):
    """`temperature` is no longer among the SDK's arguments."""
    return {"model": server.model, "max_tokens": 400, "extra_body": {"temperature": 0}}


def test_a_message(client, greedy):
    message = client.messages.create(messages=user("Hello"), **greedy)
    thinking, text = message.content
    assert thinking.thinking
    assert thinking.signature
    assert text.text
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > message.usage.output_tokens_details.thinking_tokens > 0
    assert message._request_id


def test_a_stream_joined_is_the_message(client, greedy):
    whole = client.messages.create(messages=user("What is 2 + 2?"), **greedy)
    with client.messages.stream(messages=user("What is 2 + 2?"), **greedy) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert [block.type for block in final.content] == [block.type for block in whole.content]
    assert text == final.content[-1].text == whole.content[-1].text
    assert final.content[0].thinking == whole.content[0].thinking
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_a_call_and_its_result_lead_to_an_answer(client, greedy):
    messages = user("What is the weather in Paris?")
    forced = {"type": "tool", "name": "get_weather"}
    first = client.messages.create(messages=messages, tools=[WEATHER], tool_choice=forced, **greedy)
    assert first.stop_reason == "tool_use"
    asked = first.content[-1]
    assert isinstance(asked.input["city"], str)
    result = {"type": "tool_result", "tool_use_id": asked.id, "content": '{"temperature": 18}'}
    history = [
        *messages,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    none = {"type": "none"}
    second = client.messages.create(messages=history, tools=[WEATHER], tool_choice=none, **greedy)
    assert second.content[-1].text


def test_the_tool_runner_runs_to_an_answer(client, greedy):
    asked = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Get the weather in a city.

        Args:
            city: The city.
        """
        asked.append(city)
        return '{"temperature": 18}'

    runner = client.beta.messages.tool_runner(
        messages=user("What is the weather in Paris?"),
        tools=[get_weather],
        tool_choice={"type": "any"},
        max_iterations=2,
        **greedy,
    )
    messages = list(runner)
    assert len(messages) == 2
    assert 1 <= len(asked) <= 2


def test_an_object_as_the_answer(client, greedy):
    import pydantic

    class Person(pydantic.BaseModel):
        name: str
        age: int

    message = client.messages.parse(messages=user("Anna is 23 years old."), output_format=Person, **greedy)
    assert isinstance(message.parsed_output, Person)


def test_tokens_are_counted(client, server):
    counted = client.messages.count_tokens(model=server.model, messages=user("Hello"), system="Be brief.")
    message = client.messages.create(
        model=server.model, messages=user("Hello"), system="Be brief.", max_tokens=1
    )
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens == counted.input_tokens


def test_hidden_thinking(client, greedy):
    hidden = {"type": "adaptive", "display": "omitted"}
    message = client.messages.create(messages=user("Hello"), thinking=hidden, **greedy)
    assert message.content[0].thinking == ""
    assert message.content[0].signature
    off = client.messages.create(messages=user("Hello"), thinking={"type": "disabled"}, **greedy)
    assert [block.type for block in off.content] == ["text"]


def test_models(client, server):
    assert [model.id for model in client.models.list()] == [server.model]
    assert client.models.retrieve(server.model).max_input_tokens > 0


def test_errors_are_the_sdks_own(client, greedy):
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**greedy, "model": "nobody"}, messages=user("Hello"))
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    with pytest.raises(anthropic.BadRequestError, match="web_search_20250305") as hosted:
        client.messages.create(messages=user("Hello"), tools=tools, **greedy)
    assert hosted.value.request_id
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+ maximum"):
        client.messages.create(messages=user("word " * 20_000), **greedy)
