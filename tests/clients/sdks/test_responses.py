"""Clients of the Responses API in loops of calls, with a scripted model."""

import asyncio
import json
import re
import time

import openai
import pytest
from pydantic import BaseModel

from tests.clients.conftest import prompts_of, scripted
from tests.clients.packages import NODE, require, require_node, run_node

CALL = {"call": "get_weather", "arguments": {"city": "Paris"}, "thought": "I must look."}
ANSWER = {"final": "It is sunny in Paris.", "thought": "Sunny."}
THOUGHT = "<|start|>assistant<|channel|>analysis<|message|>I must look.<|end|>"
CALLED = "<|start|>assistant<|channel|>commentary to=functions.get_weather"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Person(BaseModel):
    name: str
    age: int


def client_of(server):
    return openai.OpenAI(base_url=server.base_url, api_key="x", max_retries=0, timeout=300)


def saw_its_thought(folder, place=-1):
    """Whether the model had its chain of thought before its call, when the result came back."""
    return THOUGHT + CALLED in prompts_of(folder)[place]


def test_openai_python_streams_parses_and_goes_on(tmp_path):
    person = {"final": '{"name": "Anna", "age": 23}', "thought": "Anna."}
    with scripted(tmp_path, [ANSWER, CALL, ANSWER, person, *[ANSWER] * 4]) as server:
        client = client_of(server)
        with client.responses.stream(model=server.model, input="Hi", reasoning={"summary": "auto"}) as stream:
            text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            assert stream.get_final_response().output_text == text == ANSWER["final"]
        with client.responses.stream(model=server.model, input="Weather?", tools=[WEATHER]) as stream:
            first = stream.get_final_response()
        call = first.output[-1]
        assert json.loads(call.arguments) == {"city": "Paris"}
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        second = client.responses.create(
            model=server.model, input=[result], previous_response_id=first.id, tools=[WEATHER]
        )
        assert second.output_text == ANSWER["final"]
        assert saw_its_thought(tmp_path)
        parsed = client.responses.parse(model=server.model, input="Who?", text_format=Person)
        assert parsed.output_parsed == Person(name="Anna", age=23)
        job = client.responses.create(model=server.model, input="Hi", background=True)
        while job.status in ("queued", "in_progress"):
            time.sleep(0.05)
            job = client.responses.retrieve(job.id)
        assert job.output_text == ANSWER["final"]
        with client.responses.stream(model=server.model, input="Hi", background=True) as stream:
            seen = next(iter(stream))  # then the connection breaks
        again = {"response_id": seen.response.id, "starting_after": seen.sequence_number}
        with client.responses.stream(**again) as stream:
            assert next(iter(stream)).sequence_number == seen.sequence_number + 1
            assert stream.get_final_response().output_text == ANSWER["final"]
        conversation = client.conversations.create(metadata={"a": "b"})
        for question in ("One", "Two"):
            client.responses.create(model=server.model, input=question, conversation=conversation.id)
        kinds = [item.type for item in client.conversations.items.list(conversation.id, order="asc")]
        assert kinds == ["message", "reasoning", "message"] * 2
        assert "One<|end|>" in prompts_of(tmp_path)[-1]


def test_openai_agents_call_hand_over_and_remember(tmp_path):
    agents = require("agents")
    agents.set_tracing_disabled(True)
    asked = []

    @agents.function_tool
    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        asked.append(city)
        return "sunny"

    handoff = {"call": "transfer_to_weather", "arguments": {}, "thought": "Not mine."}
    with scripted(tmp_path, [handoff, CALL, ANSWER, {"final": "You are welcome."}]) as server:
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0, timeout=300)
        model = agents.OpenAIResponsesModel(model=server.model, openai_client=client)
        weather = agents.Agent(name="weather", model=model, tools=[get_weather])
        first = agents.Agent(name="first", model=model, handoffs=[weather])
        session = agents.SQLiteSession("one")

        async def talk():
            result = await agents.Runner.run(first, "Weather in Paris?", session=session)
            assert result.last_agent.name == "weather"
            assert result.final_output == ANSWER["final"]
            streamed = agents.Runner.run_streamed(weather, "Thanks", session=session)
            kinds = [event.type async for event in streamed.stream_events()]
            assert "raw_response_event" in kinds
            return streamed.final_output

        assert asyncio.run(talk()) == "You are welcome."
    assert asked == ["Paris"]
    assert saw_its_thought(tmp_path, 2)
    assert "It is sunny in Paris.<|end|><|start|>user<|message|>Thanks" in prompts_of(tmp_path)[3]


def test_langchain_goes_on_from_what_it_streamed(tmp_path):
    langchain = require("langchain_openai")
    from langchain_core.messages import HumanMessage, ToolMessage

    with scripted(tmp_path, [CALL, ANSWER]) as server:
        model = langchain.ChatOpenAI(
            model=server.model,
            base_url=server.base_url,
            api_key="x",
            use_responses_api=True,
            store=False,
            include=["reasoning.encrypted_content"],
            max_retries=0,
        ).bind_tools([{"type": "function", "function": {k: WEATHER[k] for k in ("name", "parameters")}}])
        asked = [HumanMessage("Weather?")]
        said = None
        for chunk in model.stream(asked):
            said = chunk if said is None else said + chunk
        (call,) = said.tool_calls
        assert call["args"] == {"city": "Paris"}
        answer = model.invoke([*asked, said, ToolMessage("sunny", tool_call_id=call["id"])])
    assert "sunny in Paris" in str(answer.content)
    assert saw_its_thought(tmp_path)


def last(text):
    """A pattern for prompts in which this was said last."""
    return rf"{text}<\|end\|><\|start\|>assistant$"


RESULT = r"functions.transfer_to_weather to=assistant<\|channel\|>commentary<\|message\|>[^<]*"
LINES = [
    {"when": last(r"Who\?"), "final": '{"name": "Anna", "age": 23}', "thought": "Anna."},
    {"when": "type transfer_to_weather.*" + last(r"Weather\?"), "call": "transfer_to_weather"},
    {"when": last(r"Weather\?"), **CALL},
    {"when": last(RESULT), **CALL},
    {"when": last("Thanks"), "final": "After all that."},
    {"when": ".", **ANSWER},
]
"""What a scripted model says to the scripts of Node, by what it is asked."""

SCRIPTS = {
    "responses_openai.test.mjs": "openai",
    "agents.test.mjs": "@openai/agents",
    "responses.test.mjs": "@ai-sdk/open-responses",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_node_over_the_responses_api(script, tmp_path):
    require_node(SCRIPTS[script])
    with scripted(tmp_path, LINES) as server:
        done = run_node(script, BASE_URL=server.base_url, MODEL=server.model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass 0" not in done.stdout
    result = "functions.get_weather to=assistant"
    results = [prompt for prompt in prompts_of(tmp_path) if prompt.split("<|start|>")[-2].startswith(result)]
    assert results
    for prompt in results:
        assert THOUGHT + CALLED in prompt  # whatever the client sent back of it


def test_what_openais_compatibility_test_asks(tmp_path):
    require_node("@openai/agents")
    cases = json.loads((NODE / "compatibility.json").read_text())
    called = [
        {
            "when": last(re.escape(case["input"])),
            "call": case["tool"],
            "arguments": case["arguments"],
            "thought": "I must call it.",
        }
        for case in cases
    ]
    with scripted(tmp_path, [*called, {"when": ".", **ANSWER}]) as server:
        done = run_node("compatibility.test.mjs", BASE_URL=server.base_url, MODEL=server.model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"pass {4 * len(cases)}" in done.stdout
