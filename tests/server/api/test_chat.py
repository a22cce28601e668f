"""POST /v1/chat/completions with the real openai client over a real socket; the model follows a script."""

import json

import pytest

from tests.server.api.chats import HI, WEATHER, chunks_of, joined
from tests.server.fakes import Pause, call, final, live, prompt_text


def test_an_answer_has_content_and_reasoning_apart(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello — ünïcode 🦜", "Greet.")) as server:
        answer = server.openai().chat.completions.create(model="tiny", messages=HI)
    message = answer.choices[0].message
    assert message.content == "Hello — ünïcode 🦜"
    assert message.reasoning == message.reasoning_content == "Greet."
    assert message.refusal is None
    assert message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "tiny"
    assert answer.system_fingerprint == "fp_test"


def test_a_stream_joined_is_the_whole_answer(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello — ünïcode 🦜", "Greet.")) as server:
        chunks = chunks_of(server)
    whole = joined(chunks)
    assert whole == {"content": "Hello — ünïcode 🦜", "reasoning": "Greet.", "calls": [], "finish": "stop"}
    for chunk in chunks:  # whole characters only
        assert "\ufffd" not in json.dumps(chunk, ensure_ascii=False)


def test_a_stream_begins_with_the_role_ends_with_the_reason_and_has_no_empty_deltas(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello", "Greet.")) as server:
        first, *middle, last = chunks_of(server)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    for chunk in middle:
        (choice,) = chunk["choices"]
        assert choice["finish_reason"] is None
        assert any(choice["delta"].values())
        assert "role" not in choice["delta"]
    assert {chunk["id"] for chunk in [first, *middle, last]} == {first["id"]}
    assert all("usage" not in chunk for chunk in [first, *middle, last])


def test_tokens_that_come_one_by_one_have_a_chunk_each(tiny_tokenizer):
    steps = [each for char in "abcdef" for each in (char, Pause(0.02))]
    with live(tiny_tokenizer, ["<|channel|>final<|message|>", *steps, "<|return|>"]) as server:
        contents = [c["choices"][0]["delta"].get("content") for c in chunks_of(server)]
    assert [c for c in contents if c] == list("abcdef")


def test_tokens_that_come_together_share_a_chunk(tiny_tokenizer):
    tokens = tiny_tokenizer.encode_with_specials(final("abcdef", "xyz"))
    with live(tiny_tokenizer, [tokens]) as server:
        deltas = [c["choices"][0]["delta"] for c in chunks_of(server)]
    assert [d.get("content") for d in deltas if d.get("content")] == ["abcdef"]
    assert [d["reasoning"] for d in deltas if d.get("reasoning")] == ["xyz"]


def test_a_call_of_a_function(tiny_tokenizer):
    with live(tiny_tokenizer, call("get_weather", '{"city": "Paris"}', "They ask.")) as server:
        answer = server.openai().chat.completions.create(model="tiny", messages=HI, tools=[WEATHER])
        streamed = joined(chunks_of(server, tools=[WEATHER]))
        assert "get_weather = (_: {" in prompt_text(server)
    choice = answer.choices[0]
    assert choice.finish_reason == streamed["finish"] == "tool_calls"
    assert choice.message.content is None
    (made,) = choice.message.tool_calls
    assert (made.type, made.function.name) == ("function", "get_weather")
    assert made.function.arguments == '{"city": "Paris"}' == streamed["calls"][0]["arguments"]
    assert made.id.startswith("call_")
    assert made.id != streamed["calls"][0]["id"]


def test_the_result_of_a_call_goes_back_to_the_model(tiny_tokenizer):
    history = [
        *HI,
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "I look.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
    ]
    with live(tiny_tokenizer, final("It is sunny.")) as server:
        server.openai().chat.completions.create(model="tiny", messages=history, tools=[WEATHER])
        prompt = prompt_text(server)
    assert "functions.get_weather to=assistant<|channel|>commentary<|message|>sunny<|end|>" in prompt
    assert "<|channel|>analysis<|message|>I look.<|end|>" in prompt


def test_deprecated_functions_are_tools(tiny_tokenizer):
    history = [
        *HI,
        {"role": "assistant", "content": None, "function_call": {"name": "get_weather", "arguments": "{}"}},
        {"role": "function", "name": "get_weather", "content": "sunny"},
    ]
    with live(tiny_tokenizer, final("Sunny.")) as server:
        server.openai().chat.completions.create(
            model="tiny", messages=history, functions=[WEATHER["function"]], function_call="auto"
        )
        prompt = prompt_text(server)
    assert "type get_weather" in prompt
    assert "functions.get_weather to=assistant" in prompt


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("auto", ["f", "g"]),
        ("none", []),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]},
            },
            ["f", "g"],
        ),
    ],
)
def test_tool_choice_decides_which_tools_the_model_is_told_of(tiny_tokenizer, choice, told):
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    with live(tiny_tokenizer, final("ok")) as server:
        server.openai().chat.completions.create(model="tiny", messages=HI, tools=tools, tool_choice=choice)
        prompt = prompt_text(server)
    assert [name for name in ("f", "g") if f"type {name} =" in prompt] == told


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("stop", "content", "finish"),
    [
        (" wor", "Hello", "stop"),
        (["never", "lo w"], "Hel", "stop"),
        ("thought", "Hello world", "stop"),  # it is in the reasoning, where stop strings mean nothing
        ("world!", "Hello world", "stop"),  # begins, and is not completed: what was held back is shown
        ("H", "", "stop"),
    ],
)
def test_a_stop_string_ends_the_visible_answer(tiny_tokenizer, stop, content, finish, together):
    said = final("Hello world", "A thought.")
    script = [tiny_tokenizer.encode_with_specials(said)] if together else said
    with live(tiny_tokenizer, [script] if not together else script) as server:
        answer = server.openai().chat.completions.create(model="tiny", messages=HI, stop=stop)
        streamed = joined(chunks_of(server, stop=stop))
        assert server.worker.wait_until_idle()
    assert answer.choices[0].message.content == streamed["content"] == content
    assert answer.choices[0].message.reasoning == streamed["reasoning"] == "A thought."
    assert answer.choices[0].finish_reason == streamed["finish"] == finish


def test_a_stop_string_frees_the_sequence_at_once(tiny_tokenizer):
    said = ["<|channel|>final<|message|>one two", Pause(30), " three<|return|>"]
    with live(tiny_tokenizer, said) as server:
        answer = server.openai().chat.completions.create(model="tiny", messages=HI, stop="two")
        assert server.worker.wait_until_idle()
    assert answer.choices[0].message.content == "one "


def test_n_choices_are_apart(tiny_tokenizer):
    def script(request):
        return final(f"I am {request.id.split('-')[-1]}.")

    with live(tiny_tokenizer, script) as server:
        answer = server.openai().chat.completions.create(model="tiny", messages=HI, n=3, seed=7)
        chunks = chunks_of(server, n=3)
        seeds = [request.sampling.seed for request in server.worker.requests[:3]]
        assert server.worker.wait_until_idle()
    assert [c.message.content for c in answer.choices] == ["I am 0.", "I am 1.", "I am 2."]
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert [joined(chunks, i)["content"] for i in range(3)] == ["I am 0.", "I am 1.", "I am 2."]
    assert seeds == [7, 8, 9]
    prompt = answer.usage.prompt_tokens
    one = len(tiny_tokenizer.encode_with_specials(final("I am 0.")))
    assert answer.usage.completion_tokens == 3 * one
    assert answer.usage.total_tokens == prompt + 3 * one
