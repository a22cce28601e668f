"""Which calls an answer may have: tool_choice and max_tool_calls, held by the mask."""

import pytest

from tests.server.api.responses.response_events import ADD
from tests.server.api.responses.test_responses import PATCH, SHELL, SPACE, text_call
from tests.server.api.test_demands import allowed
from tests.server.fakes import call, final, live, prompt_text

SAID = {
    "add": call("add", '{"a": 1}'),
    "spawn": text_call("commentary to=multi_agent_v1.spawn_one <|constrain|>json", "{}"),
    "patch": text_call("commentary to=functions.apply_patch", "*** any text"),
    "shell": call("shell", '{"commands": ["ls"]}'),
    "nothing": final("ok"),
}
ADDS = {"type": "function", "name": "add"}
SPAWNS = {"type": "function", "name": "spawn-one"}
PATCHES = {"type": "custom", "name": "apply_patch"}


def some(mode, *tools):
    return {"type": "allowed_tools", "mode": mode, "tools": tools}


CHOICES = [
    ("auto", set(SAID)),
    ("none", {"nothing"}),
    ("required", set(SAID) - {"nothing"}),
    (ADDS, {"add"}),
    (SPAWNS, {"spawn"}),
    ({**SPAWNS, "namespace": "multi_agent_v1"}, {"spawn"}),
    (PATCHES, {"patch"}),
    (SHELL, {"shell"}),
    (some("auto", ADDS, PATCHES), {"add", "patch", "nothing"}),
    (some("required", SPAWNS, SHELL, {"type": "web_search"}), {"spawn", "shell"}),
]


@pytest.mark.parametrize("first", ["", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"])
@pytest.mark.parametrize(
    ("choice", "wanted"), CHOICES, ids=lambda each: str(sorted(each) if isinstance(each, set) else each)[:60]
)
def test_an_answer_has_a_call_that_was_chosen_and_no_other(tiny_tokenizer, choice, wanted, first):
    with live(tiny_tokenizer, final("ok")) as server:
        bodies = [{"tool_choice": choice}]
        if wanted == {"nothing"}:
            bodies.append({"tool_choice": "auto", "max_tool_calls": 0})
        for more in bodies:
            body = {"input": "hi", "tools": [ADD, SPACE, PATCH, SHELL], **more}
            answer = server.http.post("/v1/responses", json=body)
            assert answer.status_code == 200, answer.text
            told = more["tool_choice"] != "none"  # so that the next turns have the same prefix
            assert ("type add" in prompt_text(server)) == told
            constraint = server.worker.requests[-1].constraint
            passed = set()
            for name, said in SAID.items():
                tokens = server.said(first + said)
                if allowed(constraint.copy(), tokens) == len(tokens):
                    passed.add(name)
            assert passed == wanted


STRICTNESS = [(None, False), (True, False), (False, True)]


@pytest.mark.parametrize(("strict", "free"), STRICTNESS)
def test_arguments_follow_their_schema_unless_the_function_says_that_they_need_not(
    tiny_tokenizer, strict, free
):
    with live(tiny_tokenizer, final("ok")) as server:
        answer = server.http.post("/v1/responses", json={"input": "hi", "tools": [{**ADD, "strict": strict}]})
        assert answer.json()["tools"][0]["strict"] == bool(strict)
        constraint = server.worker.requests[0].constraint
        for arguments, fits in (('{"a": 1}', True), ('{"a": "x"}', free)):
            tokens = server.said(call("add", arguments))
            assert (allowed(constraint.copy(), tokens) == len(tokens)) == fits


EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", None: "medium", "high": "high", "max": "high"}


def test_the_model_is_told_how_much_to_think(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server:
        for effort, told in EFFORTS.items():
            body = {"input": "hi", "reasoning": {"effort": effort}}
            answer = server.http.post("/v1/responses", json=body)
            assert answer.json()["reasoning"]["effort"] == (effort or "medium")
            assert f"Reasoning: {told}" in prompt_text(server)
        server.http.post("/v1/responses", json={"input": "hi", "reasoning": {"effort": "none"}})
        assert prompt_text(server).endswith("<|channel|>final<|message|>")


@pytest.mark.parametrize("name", ["summary", "generate_summary"])
@pytest.mark.parametrize("value", ["auto", "concise", "detailed"])
def test_a_summary_is_the_chain_of_thought(tiny_tokenizer, name, value):
    with live(tiny_tokenizer, final("ok", "Hm.")) as server:
        for asked, summary in ({name: value}, [{"type": "summary_text", "text": "Hm."}]), ({}, []):
            answer = server.http.post("/v1/responses", json={"input": "hi", "reasoning": asked}).json()
            assert answer["output"][0]["summary"] == summary
            assert answer["output"][0]["content"] == [{"type": "reasoning_text", "text": "Hm."}]
