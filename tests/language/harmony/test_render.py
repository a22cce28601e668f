"""Prompts as text: their parts, the history, and names of special tokens in a user's text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from language.harmony.messages import Call, Conversation, ConversationError, Message, ResponseFormat
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer, TokenizerError
from tests.language.harmony.talk import (
    ASK,
    CLOCK,
    TIME,
    WEATHER,
    assistant,
    conversations,
    result,
    text_of,
    user,
)
from tests.vocabularies import SPECIALS, small_tokenizer_file


def test_a_whole_prompt_reads_as_the_format_says(small: Tokenizer) -> None:
    history = [Message("system", "Be kind."), user("Weather?"), assistant("Looking.", "Hm.", ASK)]
    conversation = Conversation([*history, result("call_1", "sunny")], [WEATHER, CLOCK], "high")
    assert small.decode(Renderer(small).render(conversation)) == (
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
        "Knowledge cutoff: 2024-06\n"
        "Current date: 2025-06-28\n"
        "\n"
        "Reasoning: high\n"
        "\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message.\n"
        "Calls to these tools must go to the commentary channel: 'functions'.<|end|>"
        "<|start|>developer<|message|># Instructions\n"
        "\n"
        "Be kind.\n"
        "\n"
        "# Tools\n"
        "\n"
        "## functions\n"
        "\n"
        "namespace functions {\n"
        "\n"
        "// Gets the weather.\n"
        "// Of a city.\n"
        "type get_weather = (_: {\n"
        "// A city\n"
        "city: string,\n"
        'unit?: "c" | "f", // default: c\n'
        "days?: number, // default: 3\n"
        "tags?: string[],\n"
        "place?: {\n"
        "    lat: number,\n"
        "    },\n"
        "}) => any;\n"
        "\n"
        "type clock = () => any;\n"
        "\n"
        "} // namespace functions<|end|>"
        "<|start|>user<|message|>Weather?<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Hm.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>Looking.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city": "Paris"}<|call|>'
        "<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>sunny<|end|>"
        "<|start|>assistant"
    )


def test_effort_none_begins_the_answer(small: Tokenizer) -> None:
    text = text_of(small, Conversation([user("Hi")], effort="none"))
    assert text.endswith("<|start|>assistant<|channel|>final<|message|>")


def test_the_schema_of_the_answer_ends_the_developer_message(small: Tokenizer) -> None:
    schema = {"type": "object", "properties": {"größe": {"type": "number"}}}
    format = ResponseFormat("size", schema, "How big.\nIn metres.")
    text = text_of(
        small, Conversation([Message("system", "Measure."), user("x")], [CLOCK], response_format=format)
    )
    assert text.split("<|end|>")[0].endswith(
        "} // namespace functions\n"
        "\n"
        "# Response Formats\n"
        "\n"
        "## size\n"
        "\n"
        "// How big.\n"
        "// In metres.\n"
        '{"type":"object","properties":{"größe":{"type":"number"}}}'
    )
    alone = text_of(small, Conversation([], response_format=ResponseFormat("size", schema)))
    assert alone.startswith("<|start|>developer<|message|># Response Formats\n\n## size\n\n{")


def thoughts(tokenizer: Tokenizer, messages: list[Message]) -> list[str]:
    parts = text_of(tokenizer, Conversation(messages)).split("<|channel|>analysis<|message|>")[1:]
    return [part.split("<|end|>")[0] for part in parts]


def test_thoughts_are_dropped_once_an_answer_followed(small: Tokenizer) -> None:
    loop = [user("a"), assistant(None, "one", ASK), result("call_1", "x"), assistant(None, "two", TIME)]
    loop.append(result("call_2", "y"))
    assert thoughts(small, loop) == ["one", "two"]
    answered = [*loop, assistant("done", "three")]
    assert thoughts(small, answered) == []
    assert thoughts(small, [*answered, user("b"), assistant(None, "four", ASK)]) == ["four"]


def test_thoughts_of_an_interrupted_loop_are_kept_until_an_answer(small: Tokenizer) -> None:
    loop = [user("a"), assistant("b", "old"), user("c"), assistant(None, "new", ASK), user("wait")]
    assert thoughts(small, loop) == ["new"]
    assert thoughts(small, [*loop, assistant("done", "last"), user("d")]) == []


def test_an_answer_cut_off_while_thinking_keeps_its_thoughts(small: Tokenizer) -> None:
    for nothing in ("", None):
        assert thoughts(small, [user("a"), assistant(nothing, "half a tho"), user("go on")]) == ["half a tho"]


def test_a_stored_answer_never_holds_a_return_token(small: Tokenizer) -> None:
    history = [user("a"), assistant("b", "t"), user("c"), assistant("d", None, ASK), result("call_1", "e")]
    tokens = Renderer(small).render(Conversation(history))
    assert small.special("<|return|>") not in tokens
    assert tokens.count(small.special("<|call|>")) == 1


def test_a_result_is_named_after_the_call_it_answers(small: Tokenizer) -> None:
    again = Call("call_1", "clock", "{}")  # some clients count their ids from 1 in every turn
    history = [assistant(None, None, ASK), result("call_1", "s"), assistant(None, None, again)]
    text = text_of(small, Conversation([*history, result("call_1", "9")]))
    assert "<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>s<|end|>" in text
    assert "<|start|>functions.clock to=assistant<|channel|>commentary<|message|>9<|end|>" in text
    named = text_of(small, Conversation([Message("tool", "9", name="clock")]))
    assert named.startswith("<|start|>functions.clock to=assistant")


@pytest.mark.parametrize(
    "reply", [result("call_9", "x"), Message("tool", "x"), result("call_2", "too early")]
)
def test_a_result_that_answers_no_call_is_the_clients_error(small: Tokenizer, reply: Message) -> None:
    history = [user("a"), assistant(None, None, ASK), reply, assistant(None, None, TIME)]
    with pytest.raises(ConversationError, match="answers no call before it; calls so far: call_1") as error:
        Renderer(small).render(Conversation(history))
    assert error.value.param == "messages[2].tool_call_id"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation=conversations())
def test_text_never_adds_a_special_token(small: Tokenizer, conversation: Conversation) -> None:
    blank = Conversation(
        [
            Message(m.role, m.content and "x", m.reasoning and "x",
                    tuple(Call(c.id, c.name, "x") for c in m.calls), m.call_id)
            for m in conversation.messages
        ],
        conversation.tools, conversation.effort,
    )  # fmt: skip
    specials = set(small.specials.values())
    render = Renderer(small).render
    assert [t for t in render(conversation) if t in specials] == [t for t in render(blank) if t in specials]


def test_a_tokenizer_that_cannot_speak_harmony_is_refused(tmp_path: Any) -> None:
    few = [name for name in SPECIALS if name not in ("<|call|>", "<|constrain|>")]
    tokenizer = Tokenizer(small_tokenizer_file(tmp_path, few))
    with pytest.raises(
        TokenizerError, match=r"lacks special tokens of the harmony format: <\|constrain\|>, <\|call\|>"
    ):
        Renderer(tokenizer)


def test_stop_tokens_are_return_and_call_but_not_end(small: Tokenizer) -> None:
    assert Renderer(small).stop_tokens == {small.special("<|return|>"), small.special("<|call|>")}
