"""A conversation with the bundled demo model and nothing replaced, from the checkpoint to the socket."""

import json

import openai
import pytest

from demo.corpus.beyond import FALLBACK
from gptoss.application import application
from gptoss.assembly import DEMO
from server.settings import Settings
from tests.server.fakes import Live, serving

pytestmark = pytest.mark.skipif(
    not (DEMO / "config.json").exists(), reason="the demo's weights are not trained yet: demo/weights"
)

GREEDY = {"model": "gptoss-demo", "temperature": 0}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def demo():
    made = application(Settings(date="2025-06-28", kv_cache_memory=64 * 2**20), environ={})
    with serving(made.app) as url:
        yield Live(made.assembled.tokenizer, made.worker, url, made.app)


def ask(demo, *turns, **more):
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return demo.openai().chat.completions.create(**{**GREEDY, **more}, messages=messages)


def test_the_first_unknown_path_does_not_wait_for_the_description_of_the_api(demo, monkeypatch):
    """The description took 0.2 s of the event loop."""
    monkeypatch.setattr("fastapi.applications.get_openapi", lambda **_: pytest.fail("it is made only now"))
    answer = demo.http.get("/v1/modls")
    assert answer.status_code == 404
    assert "did you mean /v1/models?" in answer.text


def test_it_answers_after_a_thought(demo):
    answer = ask(demo, "What is 2 + 2?")
    message = answer.choices[0].message
    assert "4" in message.content
    assert message.reasoning
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0


def test_it_knows_a_capital_streamed_and_not(demo):
    whole = ask(demo, "What is the capital of France?").choices[0].message.content
    deltas = [
        chunk.choices[0].delta.content or ""
        for chunk in ask(demo, "What is the capital of France?", stream=True)
    ]
    assert "Paris" in whole
    assert "".join(deltas) == whole


def test_it_remembers_a_name(demo):
    first = ask(demo, "My name is Ada.").choices[0].message.content
    second = ask(demo, "My name is Ada.", first, "What is my name?")
    assert "Ada" in second.choices[0].message.content
    assert second.usage.prompt_tokens_details.cached_tokens > 0


def test_it_calls_a_function_and_uses_what_comes_back(demo):
    question = {"role": "user", "content": "What is the weather in Paris?"}
    client = demo.openai()
    first = client.chat.completions.create(**GREEDY, messages=[question], tools=[WEATHER]).choices[0]
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "condition": "sunny"}'}
    history = [question, first.message.to_dict(), result]
    second = client.chat.completions.create(**GREEDY, messages=history, tools=[WEATHER])
    assert "21" in second.choices[0].message.content


def test_ten_turns_with_a_call_and_a_schema(demo):
    """A conversation that the current weights answer correctly."""
    client, history = demo.openai(), []
    person = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
        "required": ["name", "age", "city"],
        "additionalProperties": False,
    }
    schema = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": person}}

    def say(text, **more):
        history.append({"role": "user", "content": text})
        return answer(**more).content

    def answer(**more):
        asked = {**GREEDY, "messages": history, "tools": [WEATHER], **more}
        message = client.chat.completions.create(**asked).choices[0].message
        history.append(message.to_dict())
        return message

    assert say("Hello!") == "Hello! I am a small demo model. How can I help you?"
    assert say("My name is Ada.") == "Nice to meet you, Ada! How can I help you?"
    assert say("what is 47 + 38") == "47 + 38 = 85."
    assert say("What is the capital of France?") == "The capital of France is Paris."
    assert say("What is the weather in Oslo?") is None
    (call,) = history[-1]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == (
        "get_weather",
        {"city": "Oslo"},
    )
    result = '{"temperature": 21, "condition": "sunny"}'
    history.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    assert answer().content == "get_weather says: temperature 21, condition sunny"
    assert say("Which day comes after Monday?") == "Tuesday comes after Monday."
    said = say("Ben is 31 years old and lives in Rome.", response_format=schema, tools=openai.omit)
    assert said == '{"name":"Ben","age":31,"city":"Rome"}'
    assert say("Say: hello world") == "hello world"
    assert say("How do I bake bread?") == FALLBACK
    assert say("What is my name?") == "Your name is Ada."


def test_without_reasoning_it_answers_at_once(demo):
    answer = ask(demo, "What is the capital of France?", reasoning_effort="none")
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].message.reasoning is None


def test_the_same_seed_gives_the_same_answer(demo):
    said = [ask(demo, "Hello", temperature=1.5, seed=7).choices[0].message.to_dict() for _ in range(2)]
    assert said[0] == said[1]


def test_raw_text_goes_on(demo):
    prompt = "<|start|>user<|message|>What is 2 + 2?<|end|><|start|>assistant<|channel|>final<|message|>"
    answer = demo.openai().completions.create(**GREEDY, prompt=prompt, logprobs=2, max_tokens=20)
    assert answer.choices[0].text
    assert len(answer.choices[0].logprobs.tokens) >= 1


def test_when_all_is_said_every_page_is_free(demo):
    ask(demo, "Hello")
    stats = demo.worker.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.pages_free == stats.pages_total
