"""openai-python, unchanged: sync and async, streams, its helpers, and its errors."""

import asyncio
import json

import pytest
from pydantic import BaseModel

from tests.clients.conftest import GREEDY
from tests.clients.packages import require

openai = require("openai")

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Person(BaseModel):
    name: str
    age: int


def user(text):
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.base_url, api_key="x", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def greedy(server):
    return {"model": server.model, **GREEDY}


def test_a_chat(client, greedy):
    answer = client.chat.completions.create(messages=user("Hello"), **greedy)
    assert answer.choices[0].message.content
    assert answer.choices[0].message.reasoning_content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    assert answer.system_fingerprint


def test_a_stream_joined_is_the_answer(client, greedy):
    whole = client.chat.completions.create(messages=user("What is 2 + 2?"), **greedy)
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            messages=user("What is 2 + 2?"), stream=True, stream_options=options, **greedy
        )
    )
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert "".join(getattr(delta, "reasoning", None) or "" for delta in deltas) == (
        whole.choices[0].message.reasoning
    )
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_the_stream_helper_puts_the_answer_together(client, greedy):
    with client.chat.completions.stream(messages=user("Hello"), **greedy) as stream:
        said = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert said == final.choices[0].message.content != ""


def test_the_stream_helper_puts_a_call_together(client, greedy):
    tool = openai.pydantic_function_tool(Person, name="create_user")
    with client.chat.completions.stream(
        messages=user("Create a user: Anna, 23"), tools=[tool], tool_choice="required", **greedy
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    assert isinstance(final.choices[0].message.tool_calls[0].function.parsed_arguments, Person)


def test_parse_fills_a_model(client, greedy):
    answer = client.chat.completions.parse(
        messages=user("Anna is 23 years old."), response_format=Person, **greedy
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_parse_fills_the_arguments_of_a_strict_function(client, server):
    tool = openai.pydantic_function_tool(Person, name="create_user")
    for seed in range(3):
        answer = client.chat.completions.parse(
            model=server.model,
            temperature=1.5,
            seed=seed,
            messages=user("Create a user: Anna, 23"),
            tools=[tool],
            tool_choice={"type": "function", "function": {"name": "create_user"}},
        )
        (call,) = answer.choices[0].message.tool_calls
        assert isinstance(call.function.parsed_arguments, Person)


def test_json_mode_is_json(client, server):
    for seed in range(3):
        answer = client.chat.completions.create(
            model=server.model,
            seed=seed,
            messages=user("Anna is 23 years old. Give me JSON with name and age."),
            response_format={"type": "json_object"},
        )
        assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_a_call_and_its_result_lead_to_an_answer(client, greedy):
    messages = user("What is the weather in Paris?")
    first = client.chat.completions.create(
        messages=messages, tools=[WEATHER], tool_choice="required", **greedy
    ).choices[0]
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert call.id.startswith("call_")
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 18}'}
    second = client.chat.completions.create(
        messages=[*messages, first.message, result], tools=[WEATHER], tool_choice="none", **greedy
    )
    assert second.choices[0].message.content


def test_no_reasoning_at_effort_none(client, greedy):
    answer = client.chat.completions.create(messages=user("Hello"), reasoning_effort="none", **greedy)
    assert answer.choices[0].message.content
    assert answer.choices[0].message.reasoning is None


def test_log_probabilities_spell_the_answer(client, greedy):
    answer = client.chat.completions.create(messages=user("Hello"), logprobs=True, top_logprobs=3, **greedy)
    entries = answer.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == answer.choices[0].message.content
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 3 for entry in entries)


def test_the_same_seed_is_the_same_answer_whatever_else_is_running(server):
    async def answers():
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="x", timeout=60) as client:

            async def one(seed):
                answer = await client.completions.create(
                    model=server.model, prompt="Once upon a time", seed=seed, temperature=2, max_tokens=20
                )
                return answer.choices[0].text

            alone = await one(1)
            crowd = await asyncio.gather(*(one(seed) for seed in (5, 1, 6, 7)))
            return alone, crowd

    alone, crowd = asyncio.run(answers())
    assert crowd[1] == alone
    assert len(set(crowd)) > 1


def test_async_streams_side_by_side(server):
    async def run():
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="x", timeout=60) as client:

            async def one(a):
                stream = await client.chat.completions.create(
                    model=server.model, temperature=0, messages=user(f"What is {a} + {a}?"), stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            alone = [await one(a) for a in range(1, 5)]
            return alone, await asyncio.gather(*(one(a) for a in range(1, 5)))

    alone, together = asyncio.run(run())
    assert all(together)
    assert together == alone


def test_a_stream_may_be_left_in_the_middle(client, greedy):
    for _ in range(3):
        with client.chat.completions.create(
            messages=user("Tell me a story."), stream=True, **greedy
        ) as stream:
            next(iter(stream))
    assert client.chat.completions.create(messages=user("Hello"), **greedy).choices[0].message.content


def test_raw_completions_of_texts_and_tokens(client, greedy):
    one = client.completions.create(prompt="Once upon a time", max_tokens=5, echo=True, logprobs=2, **greedy)
    choice = one.choices[0]
    assert choice.text.startswith("Once upon a time")
    assert choice.logprobs.token_logprobs[0] is None
    assert all(logprob <= 0 for logprob in choice.logprobs.token_logprobs[1:])
    assert "".join(choice.logprobs.tokens) == choice.text
    many = client.completions.create(prompt=["a", "b"], n=2, max_tokens=2, **greedy)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    ids = client.completions.create(prompt=[10, 11, 12], max_tokens=2, **greedy)
    assert ids.usage.prompt_tokens == 3
    pieces = client.completions.create(prompt="Once upon a time", max_tokens=5, stream=True, **greedy)
    assert choice.text == "Once upon a time" + "".join(piece.choices[0].text for piece in pieces)


def test_models_are_listed_and_found(client, server):
    assert [model.id for model in client.models.list()] == [server.model]
    assert client.models.retrieve(server.model).id == server.model


def test_errors_are_the_sdks_own(client, greedy):
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=user("Hello"))
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(messages=user("Hello"), **{**greedy, "temperature": 3})
    assert hot.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(messages=user("word " * 20_000), **greedy)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=greedy["model"], input="a")


def test_every_response_has_a_request_id(client, greedy):
    assert client.chat.completions.create(messages=user("Hello"), **greedy)._request_id
