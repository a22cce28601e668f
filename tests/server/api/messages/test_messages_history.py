"""Anthropic's messages and blocks, as they appear in the prompt."""

import pytest

from server.settings import Settings
from tests.server.api.messages.anthropic_form import HI, WEATHER, post
from tests.server.fakes import call, final, live, prompt_text

ASK = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Zürich"}}


def result(content, **more):
    return {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **more}],
    }


def prompt(server, **body):
    answer = post(server, **body)
    assert answer.status_code == 200, answer.text
    return prompt_text(server)


@pytest.mark.parametrize(
    "system",
    [
        "Be brief.",
        [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1f3;"},
         {"type": "text", "text": "Be brief."}],
        "x-anthropic-billing-header: cc_version=2.1; cch=77a;\n\nBe brief.",
    ],
)  # fmt: skip
def test_the_system_prompt_is_the_instructions_less_what_changes_with_each_request(system, tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server:
        assert "<|start|>developer<|message|># Instructions\n\nBe brief.<|end|>" in prompt(
            server, system=system
        )


def test_a_whole_loop_is_rendered_as_harmony(tiny_tokenizer):
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "system", "content": "Mind the gap."},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "I look.", "signature": "forged"},
            {"type": "text", "text": "Wait!"},
            ASK,
        ]},
        result([{"type": "text", "text": "18"}, {"type": "image", "source": {}}], is_error=False),
    ]  # fmt: skip
    with live(tiny_tokenizer, final("ok")) as server:
        text = prompt(server, messages=messages, tools=[WEATHER])
    assert text.endswith(
        "<|start|>user<|message|>a\n\nb<|end|>"
        "<|start|>developer<|message|># Instructions\n\nMind the gap.<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>Wait!<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city":"Zürich"}<|call|>'
        "<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>"
        "18\n\n[an image, which this model cannot see]<|end|><|start|>assistant"
    )


@pytest.mark.parametrize(
    ("content", "is_error", "told"),
    [
        ("No such city.", True, "Error: No such city."),
        ("Error: none", True, "Error: none"),
        ("<tool_use_error>x</tool_use_error>", True, "<tool_use_error>x</tool_use_error>"),
        ("fine", False, "fine"),
        (None, None, ""),
    ],
)
def test_the_model_is_told_of_an_error(content, is_error, told, tiny_tokenizer):
    messages = [*HI, {"role": "assistant", "content": [ASK]}, result(content, is_error=is_error)]
    with live(tiny_tokenizer, final("ok")) as server:
        text = prompt(server, messages=messages, tools=[WEATHER])
    assert f"to=assistant<|channel|>commentary<|message|>{told}<|end|>" in text


def test_documents_and_search_results_are_text(tiny_tokenizer):
    blocks = [
        {
            "type": "document",
            "title": "T",
            "source": {"type": "text", "media_type": "text/plain", "data": "D"},
        },
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "E"}]}},
        {"type": "search_result", "title": "S", "source": "u", "content": [{"type": "text", "text": "F"}]},
    ]
    with live(tiny_tokenizer, final("ok")) as server:
        text = prompt(server, messages=[{"role": "user", "content": blocks}])
    assert "<|message|>T\nD\n\nE\n\nS\nu\nF<|end|>" in text


SPELLED = call("get_weather", '{ "city" :"Paris", "days": 1.0}', "I must look.")
"""Unusual tokens, which a renderer would not use."""


@pytest.mark.parametrize("dropped", [(), ("thinking",)], ids=["all comes back", "thinking is dropped"])
@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
def test_what_was_sampled_comes_back_as_it_was(dropped, hidden, tiny_tokenizer):
    thinking = {"type": "adaptive", "display": "omitted" if hidden else "summarized"}
    with live(tiny_tokenizer, SPELLED) as server:
        first = post(server, tools=[WEATHER], thinking=thinking).json()["content"]
        first[-1]["input"]["days"] = 1  # as JavaScript has it
        said = [block for block in first if block["type"] not in dropped]
        answered = {"type": "tool_result", "tool_use_id": first[-1]["id"], "content": "18"}
        history = [*HI, {"role": "assistant", "content": said}, {"role": "user", "content": [answered]}]
        text = prompt(server, messages=history, tools=[WEATHER])
        begin, then = (request.prompt for request in server.worker.requests)
        sampled = server.said(SPELLED)
    assert then[: len(begin)] == begin
    assert then[len(begin) : len(begin) + len(sampled)] == sampled, text


def test_after_a_restart_the_signature_has_the_thought(tiny_tokenizer, tmp_path):
    settings = Settings(seal_key_file=tmp_path / "key", date="2025-06-28")
    thinking = {"type": "adaptive", "display": "omitted"}
    with live(tiny_tokenizer, SPELLED, settings=settings) as server:
        first = post(server, tools=[WEATHER], thinking=thinking).json()["content"]
    answered = {"type": "tool_result", "tool_use_id": first[-1]["id"], "content": "18"}
    history = [*HI, {"role": "assistant", "content": first}, {"role": "user", "content": [answered]}]
    with live(tiny_tokenizer, final("ok"), settings=settings) as server:
        text = prompt(server, messages=history, tools=[WEATHER])
    assert "<|channel|>analysis<|message|>I must look.<|end|>" in text
    assert '{"city":"Paris","days":1.0}<|call|>' in text


def test_a_signature_is_for_its_owner_alone(tiny_tokenizer):
    settings = Settings(api_key=("one", "two"))
    thinking = {"type": "adaptive", "display": "omitted"}
    with live(tiny_tokenizer, final("Hello", "my secret"), settings=settings) as server:
        thought = post(server, thinking=thinking, headers={"x-api-key": "one"}).json()["content"][0]
        history = [*HI, {"role": "assistant", "content": [thought]}, {"role": "user", "content": "go on"}]
        post(server, messages=history, headers={"x-api-key": "two"})
        assert "my secret" not in prompt_text(server)
        post(server, messages=history, headers={"x-api-key": "one"})
        assert "my secret" in prompt_text(server)


def test_tokens_are_counted_as_they_are_sent(tiny_tokenizer):
    body = {"tools": [WEATHER], "system": "Be brief."}
    with live(tiny_tokenizer, final("ok")) as server:
        counted = post(server, "/v1/messages/count_tokens", **body).json()
        post(server, **body)
        assert counted == {"input_tokens": len(server.worker.requests[0].prompt)}
        long = post(server, "/v1/messages/count_tokens", messages=[{"role": "user", "content": "a" * 50_000}])
        assert long.json()["input_tokens"] > 50_000


def test_a_name_that_the_model_made_up_may_come_back(tiny_tokenizer):
    strange = {"type": "tool_use", "id": "t", "name": "a b/ü", "input": {}}
    answered = {"type": "tool_result", "tool_use_id": "t", "content": "no such tool"}
    history = [*HI, {"role": "assistant", "content": [strange]}, {"role": "user", "content": [answered]}]
    with live(tiny_tokenizer, final("ok")) as server:
        assert "no such tool" in prompt(server, messages=history)
