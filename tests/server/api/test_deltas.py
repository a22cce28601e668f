"""The deltas of a stream add up to the whole answer, whatever the model samples, in whatever pieces it
arrives.

A real server gets the same tokens twice, once for a stream and once for one object.
"""

import json
from functools import cache
from itertools import groupby

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.fakes import live
from tests.soups import arriving, sizes, soups, tokens_of

STOPS = ["ab", "ba", "aab", "é", "b\n", "🦜a", "{"]

SLOWLY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""Settings for hypothesis, because each example sends two requests."""


@cache
def client():
    """One client for all tests, because a new one loads all certificates."""
    return httpx.Client(timeout=30)


def asked_twice(server, path, body):
    """The answer as one object, and the chunks of the same answer as a stream."""
    whole = client().post(server.url + path, json=body)
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    stream = client().post(server.url + path, json={**body, **usage})
    assert (whole.status_code, stream.status_code) == (200, 200)
    events = [line.removeprefix("data: ") for line in stream.text.split("\n") if line.startswith("data:")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole.json()["usage"]
    return whole.json()["choices"], [choice for chunk in chunks[:-1] for choice in chunk["choices"]]


def by_index(choices):
    ordered = sorted(choices, key=lambda choice: choice["index"])
    return {index: list(parts) for index, parts in groupby(ordered, key=lambda choice: choice["index"])}


def joined_message(deltas):
    """The message that a client assembles from the deltas of one choice."""
    calls = []
    for delta in deltas:
        for part in delta.get("tool_calls", ()):
            if "id" in part:
                assert part["index"] == len(calls)
                calls.append({"name": part["function"]["name"], "arguments": ""})
            calls[part["index"]]["arguments"] += part["function"]["arguments"]
    text = {
        field: "".join(delta.get(field) or "" for delta in deltas)
        for field in ("content", "reasoning", "reasoning_content")
    }
    return {**text, "tool_calls": calls}


def whole_message(message):
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    text = {field: message[field] or "" for field in ("content", "reasoning", "reasoning_content")}
    return {**text, "tool_calls": calls}


def joined_logprobs(parts):
    return [entry for part in parts for entry in (part["logprobs"] or {}).get("content", ())]


@SLOWLY
@given(
    answers=st.lists(soups, min_size=1, max_size=3),
    sizes=sizes,
    stop=st.lists(st.sampled_from(STOPS), max_size=3),
    logprobs=st.booleans(),
    token_ids=st.booleans(),
    reasoning=st.booleans(),
)
def test_chat_deltas_joined_are_the_whole_answer(
    tiny_tokenizer, answers, sizes, stop, logprobs, token_ids, reasoning
):
    def script(request):
        return arriving(tokens_of(tiny_tokenizer, answers[int(request.id.rsplit("-", 1)[1])]), sizes)

    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "n": len(answers),
        "stop": stop,
        "logprobs": logprobs,
        "return_token_ids": token_ids,
        "include_reasoning": reasoning,
    }
    with live(tiny_tokenizer, script) as server:
        whole, parts = asked_twice(server, "/v1/chat/completions", body)
        assert server.worker.wait_until_idle()
    parts = by_index(parts)
    assert [choice["index"] for choice in whole] == sorted(parts) == list(range(len(answers)))
    for choice in whole:
        streamed = parts[choice["index"]]
        message = whole_message(choice["message"])
        assert joined_message([part["delta"] for part in streamed]) == message
        assert [part["finish_reason"] for part in streamed if part["finish_reason"]] == [
            choice["finish_reason"]
        ]
        assert streamed[-1]["finish_reason"] is not None
        assert streamed[0]["delta"]["role"] == "assistant"
        assert all(any(part["delta"].values()) for part in streamed[1:-1])
        if logprobs:
            assert joined_logprobs(streamed) == choice["logprobs"]["content"]
        if token_ids:
            assert [id for part in streamed for id in part.get("token_ids") or ()] == choice["token_ids"]
        assert not any(string in message["content"] for string in stop) or message["tool_calls"]
        assert reasoning or message["reasoning"] == ""


@SLOWLY
@given(
    answers=st.lists(soups, min_size=1, max_size=3),
    sizes=sizes,
    stop=st.lists(st.sampled_from(STOPS), max_size=3),
    logprobs=st.none() | st.integers(0, 2),
    token_ids=st.booleans(),
    echo=st.booleans(),
)
def test_completion_pieces_joined_are_the_whole_text(
    tiny_tokenizer, answers, sizes, stop, logprobs, token_ids, echo
):
    def script(request):
        return arriving(tokens_of(tiny_tokenizer, answers[int(request.id.rsplit("-", 1)[1])]), sizes)

    body = {
        "prompt": "héllo",
        "n": len(answers),
        "stop": stop,
        "logprobs": logprobs,
        "return_token_ids": token_ids,
        "echo": echo,
        "max_tokens": 100,
    }
    with live(tiny_tokenizer, script) as server:
        whole, parts = asked_twice(server, "/v1/completions", body)
        assert server.worker.wait_until_idle()
    parts = by_index(parts)
    assert [choice["index"] for choice in whole] == sorted(parts) == list(range(len(answers)))
    for choice in whole:
        streamed = parts[choice["index"]]
        assert "".join(part["text"] for part in streamed) == choice["text"]
        assert streamed[-1]["finish_reason"] == choice["finish_reason"]
        assert all(part["finish_reason"] is None for part in streamed[:-1])
        if logprobs is not None:
            for field, all_of_it in choice["logprobs"].items():
                pieces = [part["logprobs"][field] for part in streamed if part["logprobs"]]
                assert [entry for piece in pieces for entry in piece] == all_of_it
        if token_ids:
            assert [id for part in streamed for id in part.get("token_ids") or ()] == choice["token_ids"]
        answer = choice["text"].removeprefix("héllo") if echo else choice["text"]
        assert not any(string in answer for string in stop)
