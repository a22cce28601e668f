"""litellm, agno, mirascope and haystack: a scripted model calls a function, and its answer arrives.

They are configured as their documentation says, for each API that they support.
"""

import pytest

from tests.clients.conftest import prompts_of, scripted
from tests.clients.packages import require

CALL = {"call": "get_weather", "arguments": {"city": "Paris"}, "thought": "I must look."}
ANSWER = {"final": "It is sunny in Paris.", "thought": "Sunny."}
CALLED = "<|start|>assistant<|channel|>commentary to=functions.get_weather"
THOUGHT = "<|start|>assistant<|channel|>analysis<|message|>I must look.<|end|>"
QUESTION = {"role": "user", "content": "Weather?"}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
LINES = [
    {"when": r"functions.get_weather to=assistant.*<\|start\|>assistant$", **ANSWER},
    {"when": ".", **CALL},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("script")


@pytest.fixture(scope="module")
def server(folder):
    with scripted(folder, LINES) as server:
        yield server


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """They would tell their makers of their use, or fetch prices."""
    for name, value in {
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "AGNO_TELEMETRY": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_API_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)


def saw_its_thought(folder):
    """Whether the model had its chain of thought before its call, when the result came back."""
    return THOUGHT + CALLED in prompts_of(folder)[-1]


@pytest.fixture
def asked():
    """The cities that `get_weather` was asked about."""
    return []


@pytest.fixture
def get_weather(asked):
    def get_weather(city: str) -> str:
        """Get the weather in a city.

        Args:
            city: The city.
        """
        asked.append(city)
        return "sunny"

    return get_weather


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "anthropic"])
@pytest.mark.parametrize("stream", [False, True])
def test_litellm(provider, stream, server, folder):
    litellm = require("litellm")
    url = server.url if provider == "anthropic" else server.base_url
    to = {
        "model": f"{provider}/{server.model}",
        "api_base": url,
        "api_key": "x",
        "num_retries": 0,
        "max_tokens": 500,
    }

    def ask(messages):
        answer = litellm.completion(**to, messages=messages, tools=[TOOL], stream=stream)
        if stream:
            answer = litellm.stream_chunk_builder(list(answer), messages=messages)
        return answer.choices[0].message

    first = ask([QUESTION])
    assert first.reasoning_content == "I must look."
    (call,) = first.tool_calls
    assert call.function.arguments.replace(" ", "") == '{"city":"Paris"}'
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    second = ask([QUESTION, first.model_dump(), result])
    assert (second.content, second.reasoning_content) == (ANSWER["final"], ANSWER["thought"])
    assert saw_its_thought(folder)


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_agno(api, server, folder, get_weather, asked):
    agent_module = require("agno.agent")
    if api == "chat":
        model = require("agno.models.vllm").VLLM(id=server.model, base_url=server.base_url, api_key="x")
    else:
        model = require("agno.models.openai").OpenResponses(
            id=server.model, base_url=server.base_url, api_key="x"
        )
    agent = agent_module.Agent(model=model, tools=[get_weather], telemetry=False)
    answer = agent.run("Weather?")
    assert answer.content == ANSWER["final"]
    assert asked == ["Paris"]
    assert saw_its_thought(folder)
    pieces = [event.content for event in agent.run("Weather?", stream=True) if event.event == "RunContent"]
    assert "".join(piece for piece in pieces if piece) == ANSWER["final"]


@pytest.mark.parametrize("api", ["completions", "responses"])
def test_mirascope(api, server, folder, get_weather, asked):
    llm = require("mirascope.llm")
    llm.register_provider("openai", scope="openai/", base_url=server.base_url, api_key="x")

    @llm.call(f"openai/{server.model}:{api}", tools=[llm.tool(get_weather)])
    def weather():
        return "Weather?"

    response = weather()
    assert [call.name for call in response.tool_calls] == ["get_weather"]
    second = response.resume(response.execute_tools())
    assert second.text() == ANSWER["final"]
    assert asked == ["Paris"]
    assert saw_its_thought(folder)
    streamed = weather.stream()
    streamed.finish()
    assert [call.name for call in streamed.tool_calls] == ["get_weather"]


@pytest.mark.parametrize("api", ["OpenAIChatGenerator", "OpenAIResponsesChatGenerator"])
def test_haystack(api, server, folder, get_weather, asked):
    chat = require("haystack.components.generators.chat")
    agents = require("haystack.components.agents")
    tools = require("haystack.tools")
    message = require("haystack.dataclasses").ChatMessage
    tool = tools.create_tool_from_function(get_weather)
    seen = []
    generator = getattr(chat, api)(model=server.model, api_base_url=server.base_url, max_retries=0)
    for callback in (None, seen.append):
        agent = agents.Agent(chat_generator=generator, tools=[tool], streaming_callback=callback)
        answer = agent.run(messages=[message.from_user("Weather?")])
        assert answer["messages"][-1].text == ANSWER["final"]
        assert saw_its_thought(folder)
    assert asked == ["Paris", "Paris"]
    assert (
        "".join(chunk.content for chunk in seen if chunk.content and not chunk.tool_call_result)
        == ANSWER["final"]
    )
