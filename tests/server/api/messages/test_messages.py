"""POST /v1/messages: content blocks, streamed and whole."""

import json

import pytest

from engine.errors import EngineDied, QueueFull
from server import streaming
from server.settings import Settings
from tests.server.api.messages.anthropic_form import HI, WEATHER, events_of, joined, post, told_of
from tests.server.fakes import Pause, call, final, live, prompt_text

PREAMBLE = "<|channel|>commentary<|message|>Wait!<|end|><|start|>assistant"
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
ANSWERS = {
    "thought and text": final("Hello!", "I think."),
    "text": final("Hello!"),
    "call": call("get_weather", '{"city": "Paris"}', "I must look."),
    "call after words": THOUGHT + PREAMBLE + THOUGHT + call("get_weather", '{"city": "Paris"}'),
    "call of no function": call("nobody", "print(1)", "Hm."),
    "cut in a call": call("get_weather", '{"city": "Par').removesuffix("<|call|>"),
    "cut in a thought": "<|channel|>analysis<|message|>I th",
    "nothing": "<|return|>",
    "no harmony": "<|message|><|channel|><|end|>oops<|call|>",
}


def without_chance(message):
    """A message without the parts that differ each time."""
    blocks = [
        {key: value for key, value in block.items() if key not in ("signature", "id")}
        for block in message["content"]
    ]
    return {**message, "id": "", "content": blocks}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_a_stream_joined_is_the_whole_answer(answer, tiny_tokenizer):
    with live(tiny_tokenizer, answer, cached_tokens=7) as server:
        whole = post(server, tools=[WEATHER]).json()
        events = events_of(server, tools=[WEATHER])
    if answer is ANSWERS["cut in a call"]:
        assert whole["content"][0]["input"] == {"city": "Par"}
        assert whole["stop_reason"] == "max_tokens"
        return
    assert without_chance(joined(events)) == without_chance(whole)
    start = events[0]["message"]["usage"]
    assert start["input_tokens"] == whole["usage"]["input_tokens"] + 7
    assert whole["usage"]["cache_read_input_tokens"] == 7


def test_thoughts_words_and_a_call_are_blocks_in_order(tiny_tokenizer):
    with live(tiny_tokenizer, ANSWERS["call after words"]) as server:
        message = post(server, tools=[WEATHER]).json()
    kinds = [block["type"] for block in message["content"]]
    assert kinds == ["thinking", "text", "thinking", "tool_use"]
    assert message["content"][-1]["input"] == {"city": "Paris"}
    assert message["stop_reason"] == "tool_use"
    assert message["id"].startswith("msg_")
    assert all(block["signature"].startswith("gs1.") for block in message["content"] if "signature" in block)


def test_arguments_that_are_no_object_become_one(tiny_tokenizer):
    with live(tiny_tokenizer, ANSWERS["call of no function"]) as server:
        assert post(server, tools=[WEATHER]).json()["content"][-1]["input"] == {"input": "print(1)"}


@pytest.mark.parametrize(
    ("answer", "body", "reason", "found"),
    [
        (final("Hello"), {}, "end_turn", None),
        (final("Hello"), {"max_tokens": 9}, "max_tokens", None),
        (final("Hello STOP you"), {"stop_sequences": ["no", "STOP"]}, "stop_sequence", "STOP"),
        (call("get_weather", "{}"), {"tools": [WEATHER]}, "tool_use", None),
    ],
)
def test_stop_reasons(answer, body, reason, found, tiny_tokenizer):
    with live(tiny_tokenizer, answer) as server:
        message = post(server, **body).json()
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, found)


def test_more_tokens_than_the_context_has_are_as_many_as_it_has(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello")) as server:
        assert post(server, max_tokens=128_000).status_code == 200
        (request,) = server.worker.requests
        assert request.max_tokens == 4096 - len(request.prompt)


def test_no_tokens_compute_the_prompt_and_say_nothing(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello")) as server:
        message = post(server, max_tokens=0).json()
        assert joined(events_of(server, max_tokens=0))["content"] == []
        assert server.worker.requests[0].max_tokens == 1
    assert message["content"] == []
    assert message["usage"]["output_tokens"] == 0


def test_hidden_thinking_has_a_signature_alone(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello", "I think.")) as server:
        first, second = post(server, thinking={"type": "adaptive", "display": "omitted"}).json()["content"]
        assert (first["thinking"], second["text"]) == ("", "Hello")
        history = [*HI, {"role": "assistant", "content": [first]}, {"role": "user", "content": "go on"}]
        post(server, messages=history)
        assert "<|channel|>analysis<|message|>I think.<|end|>" in prompt_text(server)


def test_thinking_steers_the_effort_and_its_budget(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello")) as server:
        post(server, thinking={"type": "disabled"})
        assert prompt_text(server).endswith("<|channel|>final<|message|>")
        for effort, told in [("low", "low"), ("high", "high"), ("max", "high")]:
            post(server, output_config={"effort": effort})
            assert f"Reasoning: {told}" in prompt_text(server)
        post(server, thinking={"type": "enabled", "budget_tokens": 50})
        assert server.worker.requests[-1].constraint is not None


def test_pings_and_failures_are_events(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(streaming, "PING_SECONDS", 0.05)
    steps = [Pause(0.5), THOUGHT, EngineDied()]
    with live(tiny_tokenizer, steps) as server:
        events = events_of(server)
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    assert "ping" in kinds
    assert kinds[-1] == "error"
    assert events[-1]["error"]["type"] == "overloaded_error"


def test_a_full_queue_and_a_dead_engine_say_when_to_come_again(tiny_tokenizer):
    def refuse(error):
        def script(request):
            raise error

        return script

    with live(tiny_tokenizer, refuse(QueueFull(3, 7))) as server:
        full = post(server)
    with live(tiny_tokenizer, refuse(EngineDied())) as server:
        dead = post(server)
    assert (full.status_code, full.json()["error"]["type"]) == (429, "rate_limit_error")
    assert (dead.status_code, dead.json()["error"]["type"]) == (529, "overloaded_error")
    assert int(full.headers["retry-after"]) > 0
    assert int(dead.headers["retry-after"]) > 0


def test_errors_are_in_anthropics_shape(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello")) as server:
        assert told_of(server, model="other")[:2] == (404, "not_found_error")
        assert told_of(server, temperature=9) == (
            400,
            "invalid_request_error",
            "temperature: input should be less than or equal to 2",
        )
        for answer in (
            server.http.post("/v1/messages", content=b"{"),
            server.http.get("/v1/messages/batches"),
        ):
            assert answer.json()["type"] == "error"
        assert "error" not in server.http.get("/nothing").json().get("type", "")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
         "tools[0].type: 'web_search_20250305'"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema: it is missing"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name: 'get_weather' is there twice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice: there is no tool"),
        ({"tool_choice": {"type": "tool", "name": "g"}, "tools": [WEATHER]}, "tool_choice.name: there is no"),
        ({"messages": [*HI, {"role": "assistant", "content": "{"}]}, "messages[1].role: an answer cannot be"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]},
         "messages[0].content[0].type: 'image'"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]},
         "messages[0].content[0].tool_use_id: 't' is the id of no tool_use block"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url"}}]}]},
         "messages[0].content[0].source.type: this model reads text, not 'url'"),
        ({"mcp_servers": [{"url": "http://127.0.0.1:9"}]}, "mcp_servers: this server runs no tools"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"$ref": "#/x"}}}},
         "output_config.format.schema"),
        ({"tools": [{**WEATHER, "strict": True, "input_schema": {"$ref": "#/x"}}]}, "tools[0].input_schema"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(body, message, tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello")) as server:
        status, kind, said = told_of(server, **body)
        assert not server.worker.requests
    assert (status, kind) == (400, "invalid_request_error")
    assert said.startswith(message), said


def test_a_conversation_that_was_kept_elsewhere_is_refused_in_words_for_programs(tiny_tokenizer):
    """Anthropic's tool runners first ask for a stored thread.  After this error they send the whole
    conversation.
    """
    with live(tiny_tokenizer, final("Hello")) as server:
        for thread in ({"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}):
            for path in ("/v1/messages", "/v1/messages/count_tokens"):
                told = post(server, path, thread=thread)
                assert told.status_code == 400
                assert told.json()["error"]["details"]["error_code"] == "thread_unsupported_request"
        assert told_of(server, compaction={"type": "summarize"})[2].startswith("compaction: this server")
        assert post(server, thread=None, compaction=None).status_code == 200


def test_both_keys_open_and_without_one_the_shape_is_anthropics(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello"), settings=Settings(api_key=("secret",))) as server:
        assert post(server, headers={"x-api-key": "secret"}).status_code == 200
        assert post(server, headers={"authorization": "Bearer secret", "x-api-key": ""}).status_code == 200
        for headers in ({}, {"x-api-key": "secre"}, {"x-api-key": ""}):
            refused = post(server, headers=headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["type"] == "authentication_error"
            assert refused.json()["request_id"] == refused.headers["request-id"]


def test_the_models_are_in_the_shape_that_the_version_asks_for(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello")) as server:
        theirs = server.http.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()
        one = server.http.get("/v1/models/tiny", headers={"anthropic-version": "2023-06-01"}).json()
        ours = server.http.get("/v1/models").json()
    assert theirs["data"] == [one]
    assert (one["type"], one["id"], theirs["has_more"]) == ("model", "tiny", False)
    assert ours["object"] == "list"


def test_a_schema_holds_the_answer(tiny_tokenizer):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    body = {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    with live(tiny_tokenizer, final('{"a": 1}')) as server:
        assert json.loads(post(server, **body).json()["content"][-1]["text"]) == {"a": 1}
        assert server.worker.requests[0].constraint is not None
        assert "# Response Formats" in prompt_text(server)
