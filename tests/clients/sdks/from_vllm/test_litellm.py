"""The LiteLLM SDK: chats, streams, calls, schemas, other names of fields, and a full context."""

import json
import os

import pytest

from tests.clients.packages import require

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it looks for a newer one on the network
litellm = require("litellm")

HI = [{"role": "user", "content": "Hello!"}]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}  # fmt: skip


@pytest.fixture(params=["openai", "hosted_vllm"])
def ask(server, request):
    """By both roads on which LiteLLM's users come: as OpenAI, and as a vLLM of their own."""

    def ask(messages=HI, **fields):
        where = {"model": f"{request.param}/{server.model}", "api_base": server.base_url, "api_key": "x"}
        return litellm.completion(messages=messages, temperature=0, num_retries=0, **where, **fields)

    return ask


def test_a_chat_and_its_stream_say_the_same(ask):
    whole = ask(max_tokens=60)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(max_tokens=60, stream=True))
    assert whole.choices[0].message.content == streamed
    assert whole.choices[0].message.reasoning_content
    assert whole.usage.completion_tokens > 0


def test_a_forced_call(ask):
    answer = ask(tools=[TOOL], tool_choice="required", max_tokens=200, frequency_penalty=1)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments), dict)


def test_a_schema_under_openai_s_name_and_under_vllm_s(ask):
    format = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    for fields in ({"response_format": format}, {"extra_body": {"guided_json": PERSON}}):
        said = json.loads(ask(max_tokens=300, frequency_penalty=1, **fields).choices[0].message.content)
        assert said.keys() == {"name", "age"}
        assert isinstance(said["age"], int)


def test_a_full_context_is_known_as_one(ask):
    with pytest.raises(litellm.ContextWindowExceededError):
        ask([{"role": "user", "content": "word " * 10_000}])


def test_thinking_is_switched_off_by_the_template_s_argument(ask):
    answer = ask(max_tokens=60, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert not getattr(answer.choices[0].message, "reasoning_content", None)
