"""The extensions of chat completions do the same in responses."""

import pytest

from server.api.chat import ChatBody
from server.api.responses.body import ResponseBody
from server.fields.extensions import EXTENSION_ROWS
from tests.server.api.responses.response_events import ask, events_of
from tests.server.api.responses.test_response_fields import table
from tests.server.api.test_demands import SCHEMA, allowed
from tests.server.fakes import final, live

CHATS_OWN = {
    "messages", "continue_final_message", "add_generation_prompt", "echo", "include_reasoning",
    "response_format", "stream_options",
}  # fmt: skip
"""What the extensions of chats are about, and responses do not have."""

LONG_THOUGHT = f"<|channel|>analysis<|message|>{'Hm. ' * 9}<|end|><|start|>assistant"
GRAMMAR = 'root ::= "n=" [0-9]+'
SAME = [
    {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.5, "presence_penalty": 1, "frequency_penalty": 0.5},
    {"logit_bias": {"5": 1}, "seed": 7},
    {"stop": ["zz"], "stop_token_ids": [7], "min_tokens": 3, "include_stop_str_in_output": True},
    {"ignore_eos": True},
    {"thinking_token_budget": 5},
    {"thinking_token_budget": -1},
    {"cache_salt": "salt"},
    {"prompt_logprobs": 2},
    {"truncate_prompt_tokens": -1},
    {"structured_outputs": {"json": SCHEMA}},
    {"structured_outputs": {"grammar": GRAMMAR}},
    {"bad_words": ["damn"]},
    {"allowed_token_ids": [5, 6, 7]},
]


def test_each_extension_of_chats_is_one_of_responses_and_told_of():
    names = {row.name.split(".")[0].split("[")[0] for row in EXTENSION_ROWS if "chat" in row.apis}
    told = set(table("Extensions"))
    assert names - CHATS_OWN <= told
    assert set(ResponseBody.model_fields) & set(ChatBody.model_fields) >= told


@pytest.mark.parametrize("body", SAME, ids=lambda body: str(body)[:50])
def test_it_asks_the_engine_for_the_same(tiny_tokenizer, body):
    with live(tiny_tokenizer, final("ok")) as server:
        chat = server.http.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}], **body}
        )
        assert chat.status_code == 200, chat.text
        response = server.http.post("/v1/responses", json={"input": "hi", **body})
        assert response.status_code == 200, response.text
        assert "x-gptoss-ignored" not in response.headers
        of_chat, of_response = server.worker.requests
        for name in ("prompt", "sampling", "stop_tokens", "min_tokens", "prompt_logprobs", "cache_salt"):
            assert getattr(of_chat, name) == getattr(of_response, name), name
        for answer in (LONG_THOUGHT, *map(final, ("damn", "zz", "n=12", '{"n": 7}', '{"n": "7"}'))):
            passed = [
                each.constraint and allowed(each.constraint.copy(), server.said(answer))
                for each in (of_chat, of_response)
            ]
            assert passed[0] == passed[1], answer


def test_a_stop_string_stays_in_the_answer_if_it_should(tiny_tokenizer):
    with live(tiny_tokenizer, final("one two")) as server:
        for keeps in (False, True):
            (item,) = ask(server, stop="two", include_stop_str_in_output=keeps)["output"]
            assert item["content"][0]["text"] == ("one two" if keeps else "one ")


def test_tokens_and_the_prompts_log_probabilities_are_returned_if_asked_for(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server:
        sampled = server.said(final("ok"))
        whole = ask(server, return_token_ids=True, prompt_logprobs=1)
        prompt = server.worker.requests[-1].prompt
        assert (whole["prompt_token_ids"], whole["token_ids"]) == (prompt, sampled)
        assert [each is None for each in whole["prompt_logprobs"]] == [True] + [False] * (len(prompt) - 1)
        last = events_of(server, return_token_ids=True)[-1]["response"]
        assert (last["prompt_token_ids"], last["token_ids"]) == (prompt, sampled)
        plain = ask(server, top_logprobs=1, return_tokens_as_token_ids=True)
        assert not {"prompt_token_ids", "token_ids", "prompt_logprobs"} & plain.keys()
        entry = plain["output"][0]["content"][0]["logprobs"][0]
        assert entry["token"] == f"token_id:{tiny_tokenizer.encode('o')[0]}"


BAD = [
    ({"structured_outputs": {"regex": "a"}, "text": {"format": {"type": "json_object"}}},
     "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
    ({"structured_outputs": {"json": {"$ref": "http://x"}, "regex": "a"}}, "structured_outputs.regex"),
    ({"bad_words": ["a"], "allowed_token_ids": [5]}, "bad_words"),
    ({"allowed_token_ids": [10**6]}, "allowed_token_ids[0]"),
    ({"truncate_prompt_tokens": 1}, "truncate_prompt_tokens"),
    ({"prompt_logprobs": 1, "background": True}, "prompt_logprobs"),
    ({"thinking_token_budget": -2}, "thinking_token_budget"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param"), BAD, ids=lambda each: str(each)[:60])
def test_what_cannot_be_is_refused_by_its_field(tiny_tokenizer, body, param):
    with live(tiny_tokenizer, final("ok")) as server:
        assert ask(server, 400, **body)["error"]["param"] == param
        if "prompt_logprobs" in body:
            assert ask(server, 400, prompt_logprobs=1, stream=True)["error"]["param"] == param
