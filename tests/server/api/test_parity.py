"""One conversation through chat, responses and messages: the same prompt tokens, and the same answer."""

import pytest

from tests.server.fakes import call, final, live

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Gets the weather."}
SAMPLED = call("get_weather", '{ "city":"Paris"}', "I must look.")
ANSWER = final("Sunny.", "Now I know.")

CHAT_TOOL = {"type": "function", "function": {**TOOL, "parameters": PARAMETERS}}
RESPONSES_TOOL = {"type": "function", **TOOL, "parameters": PARAMETERS}
MESSAGES_TOOL = {**TOOL, "input_schema": PARAMETERS}


def chat(server):
    """Two turns; what was read in each: (thought, call or text)."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}]
    body = {"tools": [CHAT_TOOL], "reasoning_effort": "low"}
    url = "/v1/chat/completions"
    first = server.http.post(url, json={**body, "messages": messages}).json()["choices"][0]["message"]
    (asked,) = first["tool_calls"]
    messages += [first, {"role": "tool", "tool_call_id": asked["id"], "content": "18"}]
    second = server.http.post(url, json={**body, "messages": messages}).json()["choices"][0]["message"]
    return [(first["reasoning"], asked["function"]["name"]), (second["reasoning"], second["content"])]


def messages(server):
    history = [{"role": "user", "content": "Weather?"}]
    body = {"system": "Be brief.", "tools": [MESSAGES_TOOL], "output_config": {"effort": "low"}}
    url = "/v1/messages"
    thought, asked = server.http.post(url, json={**body, "messages": history}).json()["content"]
    result = {"type": "tool_result", "tool_use_id": asked["id"], "content": "18"}
    history += [{"role": "assistant", "content": [thought, asked]}, {"role": "user", "content": [result]}]
    then, text = server.http.post(url, json={**body, "messages": history}).json()["content"]
    return [(thought["thinking"], asked["name"]), (then["thinking"], text["text"])]


def responses(server):
    items = [{"role": "user", "content": "Weather?"}]
    body = {
        "instructions": "Be brief.",
        "tools": [RESPONSES_TOOL],
        "reasoning": {"effort": "low"},
        "store": False,
    }
    url = "/v1/responses"
    first = server.http.post(url, json={**body, "input": items}).json()["output"]
    thought, asked = first
    items += [*first, {"type": "function_call_output", "call_id": asked["call_id"], "output": "18"}]
    then, said = server.http.post(url, json={**body, "input": items}).json()["output"]
    texts = [item["content"][0]["text"] for item in (thought, then, said)]
    return [(texts[0], asked["name"]), (texts[1], texts[2])]


def played(request_count):
    def script(request):
        request_count.append(request)
        return SAMPLED if len(request_count) == 1 else ANSWER

    return script


@pytest.mark.parametrize("api", [messages, responses], ids=lambda api: api.__name__)
def test_each_api_renders_what_chat_renders_and_reads_what_it_reads(api, tiny_tokenizer):
    prompts, read = [], []
    for ask in (chat, api):
        with live(tiny_tokenizer, played([])) as server:
            read.append(ask(server))
            prompts.append([request.prompt for request in server.worker.requests])
    assert prompts[0] == prompts[1]
    assert read[0] == read[1] == [("I must look.", "get_weather"), ("Now I know.", "Sunny.")]
