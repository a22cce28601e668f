"""A streamed conversation of three turns through chat, responses and messages.

In each the model gets the same tokens, and the client reads the same deltas.
"""

import json
from itertools import groupby

import pytest

from tests.server.api.messages.anthropic_form import joined
from tests.server.fakes import call, final, live

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Gets the weather."}
PREAMBLE = "<|channel|>commentary<|message|>Wait 🦜!<|end|><|start|>assistant"
THOUGHT = "<|channel|>analysis<|message|>I must look.<|end|><|start|>assistant"
SAMPLED = THOUGHT + PREAMBLE + call("get_weather", '{ "city":"Zürich"}')
LOOP = [SAMPLED, final("Sunny.", "Now I know."), final("Any time.")]
READ = [
    [("thought", "I must look."), ("text", "Wait 🦜!"), ("call", 'get_weather{ "city":"Zürich"}')],
    [("thought", "Now I know."), ("text", "Sunny.")],
    [("text", "Any time.")],
]


def merged(pieces):
    """Adjacent pieces of one kind joined, because the number of tokens that arrive at once is random."""
    return [(kind, "".join(text for _, text in group)) for kind, group in groupby(pieces, lambda p: p[0])]


class Api:
    def __init__(self, server):
        self.http, self.history = server.http, []

    def events(self, path, body):
        with self.http.stream("POST", path, json={**body, "stream": True}) as answer:
            assert answer.status_code == 200, answer.read()
            data = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        return [json.loads(line) for line in data if line != "[DONE]"]


class Chat(Api):
    def say(self, text):
        self.history.append({"role": "user", "content": text})

    def result(self, text):
        (asked,) = self.history[-1]["tool_calls"]
        self.history.append({"role": "tool", "tool_call_id": asked["id"], "content": text})

    def answer(self):
        tool = {"type": "function", "function": {**TOOL, "parameters": PARAMETERS}}
        told = [{"role": "system", "content": "Be brief."}, *self.history]
        body = {"messages": told, "tools": [tool], "reasoning_effort": "low"}
        pieces, calls = [], []
        for event in self.events("/v1/chat/completions", body):
            delta = event["choices"][0]["delta"]
            for kind, field in (("thought", "reasoning"), ("text", "content")):
                if delta.get(field):
                    pieces.append((kind, delta[field]))
            for piece in delta.get("tool_calls", ()):
                if "id" in piece:
                    calls.append(
                        {"id": piece["id"], "type": "function", "function": {"name": "", "arguments": ""}}
                    )
                for field in ("name", "arguments"):
                    text = piece["function"].get(field) or ""
                    calls[-1]["function"][field] += text
                    pieces.append(("call", text))
        read = merged(pieces)
        found = dict(read)
        message = {"role": "assistant", "reasoning": found.get("thought"), "content": found.get("text")}
        self.history.append({**message, "tool_calls": calls} if calls else message)
        return read


OF_MESSAGES = {"thinking_delta": "thought", "text_delta": "text", "input_json_delta": "call"}


class Messages(Api):
    say = Chat.say

    def result(self, text):
        asked = self.history[-1]["content"][-1]
        result = {"type": "tool_result", "tool_use_id": asked["id"], "content": text}
        self.history.append({"role": "user", "content": [result]})

    def answer(self):
        tools = [{**TOOL, "input_schema": PARAMETERS}]
        body = {"system": "Be brief.", "tools": tools, "output_config": {"effort": "low"}}
        events = self.events("/v1/messages", {**body, "max_tokens": 900, "messages": self.history})
        pieces = []
        for event in events:
            if event.get("content_block", {}).get("type") == "tool_use":
                pieces.append(("call", event["content_block"]["name"]))
            if event["type"] == "content_block_delta" and event["delta"]["type"] in OF_MESSAGES:
                kind, text = event["delta"].values()
                pieces.append((OF_MESSAGES[kind], text))
        self.history.append({"role": "assistant", "content": joined(events)["content"]})
        return merged(pieces)


OF_RESPONSES = {"reasoning_text": "thought", "output_text": "text", "function_call_arguments": "call"}


class Responses(Api):
    say = Chat.say

    def result(self, text):
        asked = self.history[-1]
        output = {"type": "function_call_output", "call_id": asked["call_id"], "output": text}
        self.history.append(output)

    def answer(self):
        tools = [{"type": "function", **TOOL, "parameters": PARAMETERS}]
        body = {"instructions": "Be brief.", "tools": tools, "reasoning": {"effort": "low"}, "store": False}
        events = self.events("/v1/responses", {**body, "input": self.history})
        pieces = []
        for event in events:
            _, kind, *last = event["type"].split(".")
            if event["type"] == "response.output_item.added" and event["item"]["type"] == "function_call":
                pieces.append(("call", event["item"]["name"]))
            if last == ["delta"]:
                pieces.append((OF_RESPONSES[kind], event["delta"]))
        self.history += events[-1]["response"]["output"]
        return merged(pieces)


def conversation(api, tokenizer, together):
    """The prompts of the three turns, and what the client has read in each."""
    left = list(LOOP)

    def script(_):
        tokens = tokenizer.encode_with_specials(left.pop(0))
        return [tokens] if together else tokens

    with live(tokenizer, script) as server:
        client = api(server)
        client.say("Weather?")
        read = [client.answer()]
        client.result("18")
        read.append(client.answer())
        client.say("Thanks")
        read.append(client.answer())
        return [request.prompt for request in server.worker.requests], read


@pytest.mark.parametrize("together", [True, False], ids=["all at once", "token by token"])
@pytest.mark.parametrize("api", [Messages, Responses])
def test_each_api_renders_and_streams_what_chat_does(api, together, tiny_tokenizer):
    prompts, read = conversation(api, tiny_tokenizer, together)
    chats_prompts, chats_read = conversation(Chat, tiny_tokenizer, together)
    assert prompts == chats_prompts
    assert read == chats_read == READ
    sampled = tiny_tokenizer.encode_with_specials(SAMPLED)
    assert prompts[1][len(prompts[0]) :][: len(sampled)] == sampled
