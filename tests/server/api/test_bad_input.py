"""Whatever a client sends, an error is a 4xx in OpenAI's format that names the field, never 422 or 500."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.fakes import final, live

CHAT = "/v1/chat/completions"
MESSAGE = {"role": "user", "content": "hi"}


def post(server, raw, path=CHAT, content_type="application/json"):
    return server.http.post(path, content=raw, headers={"content-type": content_type})


def assert_openai_error(answer, status=400):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    assert answer.headers["x-request-id"]
    return error


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/tokenize", "/detokenize"])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b"null",
        b"[]",
        b'"text"',
        b"3",
        b'{"messages": [], "messages": }',
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b'{"user": -Infinity}',
        b'{"user": "\xff\xfe"}',
        b'{"user": "\\ud800"}',
        b'{"user": "\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[" * 100_000,
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"user": "' + b"a" * 1000,
    ],
)
def test_a_body_that_is_no_json_object(tiny_tokenizer, raw, path):
    with live(tiny_tokenizer, final("x")) as server:
        assert_openai_error(post(server, raw, path))


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "image/png", "?"]
)
def test_a_body_of_another_type_is_told_so(tiny_tokenizer, content_type):
    with live(tiny_tokenizer, final("x")) as server:
        error = assert_openai_error(post(server, b'{"messages": []}', content_type=content_type))
    assert "application/json" in error["message"]


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("messages", None, "messages"),
        ("messages", [], "messages"),
        ("messages", "hi", "messages"),
        ("messages", {"role": "user"}, "messages"),
        ("messages", [1], "messages[0]"),
        ("messages", [{}], "messages[0].role"),
        ("messages", [{"role": "user"}], "messages[0].content"),
        ("messages", [{"role": "user", "content": None}], "messages[0].content"),
        ("messages", [{"role": "user", "content": 3}], "messages[0].content"),
        ("messages", [{"role": "user", "content": []}], "messages[0].content"),
        ("messages", [MESSAGE, {"role": "pope", "content": "x"}], "messages[1].role"),
        ("messages", [{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        (
            "messages",
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
            "messages[0].content[0].type",
        ),
        (
            "messages",
            [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
            "messages[0].content[0].type",
        ),
        ("messages", [{"role": "user", "content": "x", "name": "a b"}], "messages[0].name"),
        ("messages", [{"role": "user", "content": "x", "name": "a<|end|>"}], "messages[0].name"),
        ("messages", [{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
        ("messages", [{"role": "function", "content": "x"}], "messages[0].name"),
        (
            "messages",
            [{"role": "tool", "content": "x", "tool_call_id": "call_unknown"}],
            "messages[0].tool_call_id",
        ),
        (
            "messages",
            [{"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {}}]}],
            "messages[0].tool_calls[0].function",
        ),
        (
            "messages",
            [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            "messages",
            [
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}] * 2,
                }
            ],
            None,
        ),
        ("model", 3, "model"),
        ("temperature", "1", "temperature"),
        ("temperature", True, "temperature"),
        ("temperature", -0.1, "temperature"),
        ("temperature", 2.1, "temperature"),
        ("top_p", 1.1, "top_p"),
        ("top_k", -2, "top_k"),
        ("top_k", 2**80, "top_k"),
        ("min_p", 2, "min_p"),
        ("presence_penalty", 3, "presence_penalty"),
        ("frequency_penalty", -3, "frequency_penalty"),
        ("repetition_penalty", 0, "repetition_penalty"),
        ("repetition_penalty", 5e-324, "repetition_penalty"),  # was a 500: 0 as a float32, by which we divide
        ("seed", 1.5, "seed"),
        ("seed", 2**64, "seed"),
        ("max_tokens", 0, "max_tokens"),
        ("max_tokens", True, "max_tokens"),
        ("max_completion_tokens", 10**30, "max_completion_tokens"),
        ("n", 0, "n"),
        ("n", 1000, "n"),
        ("stop", [""], "stop[0]"),
        ("stop", ["a"] * 5, "stop"),
        ("stop", 3, "stop"),
        ("stop", [3], "stop[0]"),
        ("stop_token_ids", [-1], "stop_token_ids[0]"),
        ("logit_bias", {"a": 1}, "logit_bias"),
        ("logit_bias", {"-1": 1}, "logit_bias"),
        ("logit_bias", {"99999999999999": 1}, "logit_bias"),
        ("logit_bias", {"²": 1}, "logit_bias"),
        ("logit_bias", {"11": 101}, "logit_bias.11"),
        ("logprobs", 3, "logprobs"),
        ("top_logprobs", 3, "top_logprobs"),
        ("top_logprobs", 21, "top_logprobs"),
        ("stream", "yes", "stream"),
        ("stream_options", {"include_usage": 1}, "stream_options.include_usage"),
        ("reasoning_effort", "enormous", "reasoning_effort"),
        ("modalities", ["text", "audio"], "modalities"),
        ("audio", {"voice": "x", "format": "wav"}, "audio"),
        ("web_search_options", {}, "web_search_options"),
        ("tools", [{"type": "custom", "custom": {"name": "x"}}], "tools[0].type"),
        ("tools", [{"type": "function"}], "tools[0].function"),
        ("tools", [{"type": "function", "function": {"name": "a b"}}], "tools[0].function.name"),
        (
            "tools",
            [{"type": "function", "function": {"name": "f", "parameters": 3}}],
            "tools[0].function.parameters",
        ),
        ("tools", [{"type": "function", "function": {"name": "f"}}] * 2, "tools"),
        ("tool_choice", "sometimes", "tool_choice"),
        (
            "tool_choice",
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "nope"}}],
                },
            },
            "tool_choice.allowed_tools.tools",
        ),
        ("response_format", {"type": "xml"}, "response_format.type"),
    ],
)
def test_a_field_that_is_wrong_is_named(tiny_tokenizer, field, value, param):
    with live(tiny_tokenizer, final("x")) as server:
        answer = server.http.post(CHAT, json={"messages": [MESSAGE], field: value})
        assert param is None or not server.worker.requests
    if param is not None:
        assert assert_openai_error(answer)["param"] == param


def test_an_unknown_model_is_not_found(tiny_tokenizer):
    with live(tiny_tokenizer, final("x")) as server:
        answer = server.http.post(CHAT, json={"model": "gpt-5", "messages": [MESSAGE]})
    error = assert_openai_error(answer, 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_what_this_server_does_not_know_is_ignored(tiny_tokenizer):
    harmless = {
        "user": "u",
        "store": True,
        "metadata": {"a": "b"},
        "safety_identifier": "s",
        "service_tier": "flex",
        "verbosity": "low",
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_key": "k",
        "parallel_tool_calls": True,
        "modalities": ["text"],
        "some_field_of_the_future": {"x": [1, 2]},
    }
    with live(tiny_tokenizer, final("x")) as server:
        server.http.post(CHAT, json={"messages": [MESSAGE], **harmless}).raise_for_status()


def test_null_is_the_same_as_absent(tiny_tokenizer):
    from server.api.chat import ChatBody

    nothing = dict.fromkeys(set(ChatBody.model_fields) - {"messages"})
    with live(tiny_tokenizer, final("x")) as server:
        server.http.post(CHAT, json={"messages": [MESSAGE], **nothing}).raise_for_status()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/embeddings", 404),
        ("POST", "/v1/audio/speech", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/nobody/knows/it", 404),
        ("GET", "/%ff%00..%2f", 404),
    ],
)
def test_what_is_not_there_is_said_in_the_same_shape(tiny_tokenizer, method, path, status):
    with live(tiny_tokenizer, final("x")) as server:
        assert_openai_error(server.http.request(method, path), status)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "messages", "model", "temperature", "stop", "tools", "tool_choice", "response_format", "logit_bias", "n",
    "stream_options", "functions", "function_call", "logprobs", "seed", "max_tokens", "prompt", "best_of",
]  # fmt: skip


@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5), valid=st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bodies_are_answered_or_refused(tiny_tokenizer, body, valid):
    with live(tiny_tokenizer, final("x")) as server:
        for path, needed in ((CHAT, {"messages": [MESSAGE]}), ("/v1/completions", {"prompt": "a"})):
            answer = server.http.post(path, json={**body, **(needed if valid else {}), "stream": False})
            if answer.status_code != 200:
                assert answer.status_code in (400, 404)
                assert_openai_error(answer, answer.status_code)
