"""The demands of a request become a constraint on sampling; the reasoning before a call is kept."""

import json

import pytest
from openai import BadRequestError

from tests.server.fakes import call, final, live, prompt_text

HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"


def tool(name, strict=None, **parameters):
    return {
        "type": "function",
        "function": {
            "name": name,
            "strict": strict,
            "parameters": {"type": "object", "properties": parameters},
        },
    }


def allowed(constraint, tokens):
    """How many of `tokens`, one after the other, the constraint allows; all if it is None."""
    if constraint is None:
        return len(tokens)
    constraint = constraint.copy()
    for count, token in enumerate(tokens):
        words = constraint.mask()
        if words is not None and not words[token // 32] >> token % 32 & 1:
            return count
        constraint.accept(token)
    return len(tokens)


@pytest.fixture
def ask(tiny_tokenizer):
    """Send a chat.  Returns a function that tells whether an answer would be allowed."""
    with live(tiny_tokenizer, final("ok")) as server:

        def ask(**fields):
            server.openai().chat.completions.create(model="tiny", messages=HI, **fields)
            constraint = server.worker.requests[-1].constraint

            def passes(answer):
                tokens = server.said(answer)
                return allowed(constraint, tokens) == len(tokens)

            return passes

        ask.server = server
        yield ask


def test_a_plain_chat_pays_nothing(ask):
    ask()
    assert ask.server.worker.requests[-1].constraint is None


def test_json_object_lets_nothing_but_an_object_be_the_answer(ask):
    passes = ask(response_format={"type": "json_object"})
    assert passes(final('{"any": 1}'))
    assert passes(THOUGHT + final('{"any": 1}'))
    assert not passes(final("word"))
    assert not passes(final('{"any": 1'))


def test_a_schema_holds_the_answer_and_is_told_to_the_model(ask):
    passes = ask(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "N", "schema": SCHEMA, "strict": True},
        }
    )
    assert passes(final('{"n": 7}'))
    assert not passes(final('{"m": 7}'))
    assert not passes(final('{"n": "7"}'))
    assert f"# Response Formats\n\n## N\n\n{json.dumps(SCHEMA, separators=(',', ':'))}" in prompt_text(
        ask.server
    )


def test_a_required_call_must_come_with_arguments_that_fit(ask):
    passes = ask(tools=[tool("f", n={"type": "integer"}), tool("g")], tool_choice="required")
    assert passes(call("f", '{"n": 1}'))
    assert passes(THOUGHT + call("g", "{}"))
    assert not passes(call("f", '{"n": "x"}'))
    assert not passes(final("ok"))
    assert not passes(call("h", "{}"))


def test_a_required_call_has_no_arguments_that_were_not_declared(ask):
    """A small model invented arguments for a function without any, and LangChain's client got them."""
    open_ended = tool("h")
    open_ended["function"]["parameters"]["additionalProperties"] = {"type": "integer"}
    needs_more = tool("i")
    needs_more["function"]["parameters"]["required"] = ["elsewhere"]
    tools = [tool("f", n={"type": "integer"}), tool("g"), open_ended, needs_more]
    passes = ask(tools=tools, tool_choice="required")
    assert not passes(call("f", '{"n": 1, "m": 2}'))
    assert not passes(call("g", '{"made_up": 1}'))
    assert passes(call("h", '{"made_up": 1}'))
    assert passes(call("i", '{"elsewhere": 1}'))


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": {"type": "function", "function": {"name": "g"}}},
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "g"}}],
                },
            }
        },
    ],
)
def test_a_named_function_is_the_only_one(ask, fields):
    passes = ask(tools=[tool("f"), tool("g")], **fields)
    assert passes(call("g", "{}"))
    assert not passes(call("f", "{}"))
    assert not passes(final("ok"))


def test_a_choice_of_none_allows_no_call_of_a_function_that_the_model_knows(ask):
    """From the history, say: the functions themselves are not in the prompt."""
    passes = ask(tools=[tool("f")], tool_choice="none")
    assert "type f" not in prompt_text(ask.server)
    assert passes(THOUGHT + final("ok"))
    assert not passes(call("f", "{}"))
    assert not passes(THOUGHT + call("f", "{}"))


def test_the_older_function_call_names_one_too(ask):
    passes = ask(functions=[tool("f")["function"], tool("g")["function"]], function_call={"name": "g"})
    assert passes(call("g", "{}"))
    assert not passes(call("f", "{}"))


def test_tools_schema_and_reasoning_work_together(ask):
    passes = ask(
        tools=[tool("f", strict=True, n={"type": "integer"})],
        response_format={"type": "json_schema", "json_schema": {"name": "N", "schema": SCHEMA}},
    )
    assert passes(THOUGHT + call("f", '{"n": 1}'))
    assert passes(THOUGHT + final('{"n": 1}'))
    assert not passes(final("ok"))
    assert not passes(call("f", '{"n": true}'))


def test_without_effort_the_prompt_ends_in_the_answer_unless_a_call_is_possible(ask):
    ask(reasoning_effort="none")
    assert prompt_text(ask.server).endswith("<|channel|>final<|message|>")
    passes = ask(reasoning_effort="none", tools=[tool("f")])
    assert prompt_text(ask.server).endswith("<|start|>assistant")
    assert passes(call("f", "{}"))
    assert passes(final("ok"))
    assert not passes(THOUGHT + final("ok"))


def test_a_budget_of_thought_ends_in_an_answer(ask):
    passes = ask(extra_body={"thinking_token_budget": 5}, max_tokens=200)
    assert passes(
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>ok<|return|>"
    )
    assert not passes("<|channel|>analysis<|message|>" + 40 * "h")


def test_each_choice_has_a_constraint_of_its_own(ask):
    ask(response_format={"type": "json_object"}, n=2)
    first, second = (request.constraint for request in ask.server.worker.requests[-2:])
    assert first is not second


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "nope"}}, "tools": [tool("f")]},
            "tool_choice",
        ),
        ({"tool_choice": {"type": "custom"}, "tools": [tool("f")]}, "tool_choice.type"),
        ({"tool_choice": {"type": "function"}, "tools": [tool("f")]}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "N", "schema": {"type": "x"}},
                }
            },
            "response_format.json_schema.schema",
        ),
    ],
)
def test_demands_that_cannot_be_met_are_refused(ask, fields, param):
    with pytest.raises(BadRequestError) as refusal:
        ask(**fields)
    assert refusal.value.param == param


def test_names_that_are_no_identifiers_are_mapped_both_ways(tiny_tokenizer):
    history = [
        *HI,
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "get-weather.now", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ]
    with live(tiny_tokenizer, call("get_weather_now_2", "{}")) as server:
        answer = server.openai().chat.completions.create(
            model="tiny", messages=history, tools=[tool("get-weather.now"), tool("get_weather_now")]
        )
        prompt = prompt_text(server)
    assert "type get_weather_now = " in prompt
    assert "type get_weather_now_2 = " in prompt
    assert "to=functions.get_weather_now_2 " in prompt
    assert answer.choices[0].message.tool_calls[0].function.name == "get-weather.now"


def turn_with_result(answer, **changed):
    """The history after the call in `answer`, from a client that drops the chain of thought."""
    made = answer.choices[0].message.tool_calls[0]
    function = {"name": made.function.name, "arguments": made.function.arguments, **changed}
    return [
        *HI,
        {"role": "assistant", "tool_calls": [{"id": made.id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": made.id, "content": "sunny"},
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_the_thought_before_a_call_is_remembered_for_its_result(tiny_tokenizer, stream):
    said = call("f", '{"n":  1}', thought="Let me look.")
    with live(tiny_tokenizer, said) as server:
        client = server.openai()
        asked = {"model": "tiny", "messages": HI, "tools": [tool("f")]}
        if stream:
            with client.chat.completions.stream(**asked) as events:
                events.until_done()
                answer = events.get_final_completion()
        else:
            answer = client.chat.completions.create(**asked)
        before = server.worker.requests[-1].prompt
        client.chat.completions.create(**{**asked, "messages": turn_with_result(answer)})
        after = server.worker.requests[-1].prompt
        # Token for token what was sampled, so the prefix cache has all of it.
        assert after[: len(before)] == before
        assert after[len(before) :][: len(server.said(said))] == server.said(said)

        client.chat.completions.create(**{**asked, "messages": turn_with_result(answer, arguments='{"n":2}')})
        assert "Let me look." not in prompt_text(server)


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first():
    from server.dialogue.reasoning_cache import ENTRY_BYTES, ReasoningCache

    cache = ReasoningCache(max_bytes=3 * (ENTRY_BYTES + 40))
    for name in "abc":
        cache.keep("me", name, range(10))
    assert cache.find("me", "a").keys() == {"a"}  # used again: now b is the oldest
    cache.keep("me", "d", range(10))
    assert cache.find("me", "abcd").keys() == {"a", "c", "d"}
    assert cache.find("you", "abcd") == {}
    cache.keep("me", "huge", range(10_000))
    assert cache.find("me", ["a", "huge"]) == {}
