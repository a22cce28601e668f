"""Formats of the visible answer, under every name; arguments of calls; given beginnings of answers."""

import json
from dataclasses import replace

import httpx
import pytest

from tests.server.api.test_demands import SCHEMA, allowed, tool
from tests.server.fakes import PLAIN_SETTINGS, call, final, live, prompt_text

HI = [{"role": "user", "content": "Hi"}]
N = json.dumps(SCHEMA)
GBNF = 'root ::= "n=" [0-9]+'
TAGS = {
    "structures": [{"begin": "<n>", "schema": SCHEMA, "end": "</n>"}],
    "triggers": ["<n>"],
}
JSON = ('{"n": 7}', '{"n": "7"}')
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"

NAMES = [
    ({"structured_outputs": {"json": SCHEMA}}, *JSON),
    ({"structured_outputs": {"json": N}}, *JSON),
    ({"guided_json": SCHEMA}, *JSON),
    ({"guided_json": N}, *JSON),
    ({"json_schema": SCHEMA}, *JSON),
    ({"format": SCHEMA}, *JSON),
    ({"format": "json"}, '{"any": 1}', "word"),
    ({"response_format": {"type": "json_object", "schema": SCHEMA}}, *JSON),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "N", "schema": SCHEMA}}}, *JSON),
    ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, *JSON),
    ({"structured_outputs": {"json_object": True}}, '{"any": 1}', "word"),
    ({"structured_outputs": {"regex": "^[a-c]{2}/$"}}, "ab/", "abc"),
    ({"guided_regex": r"\d+"}, "12", "1a"),
    ({"guided_regex": r"^\d+\$"}, "12$", "12"),
    ({"guided_regex": "\\d+\\\\$"}, "12\\", "12$"),
    ({"regex": r"\d+"}, "12", "1a"),
    ({"structured_outputs": {"choice": ["yes", "no (\\|)"]}}, "no (\\|)", "yes and no"),
    ({"guided_choice": ["yes", "yesterday"]}, "yesterday", "yester"),
    ({"structured_outputs": {"grammar": GBNF}}, "n=12", "n="),
    ({"guided_grammar": GBNF}, "n=12", "m=1"),
    ({"guided_grammar": 'start: "n=" /[0-9]+/'}, "n=12", "m=1"),
    ({"grammar": GBNF}, "n=12", "n=x"),
    ({"ebnf": GBNF}, "n=12", "n=x"),
    ({"structured_outputs": {"structural_tag": TAGS}}, 'so <n>{"n": 7}</n>.', 'so <n>{"n": "'),
    ({"response_format": {"type": "structural_tag", **TAGS}}, 'so <n>{"n": 7}</n>.', 'so <n>{"n": "'),
    ({"bad_words": ["damn", "a/b"]}, "dam a+b", "oh damn!"),
]


@pytest.fixture
def ask(tiny_tokenizer):
    """Send a body to a path.  Returns a function that tells whether an answer would be allowed."""
    with live(tiny_tokenizer, final("ok")) as server:

        def ask(path="/v1/chat/completions", **body):
            whole = {"prompt": "Hi"} if path == "/v1/completions" else {"messages": HI}
            answer = httpx.post(server.url + path, json={**whole, **body}, timeout=30)
            assert answer.status_code == 200, answer.text
            assert "x-gptoss-ignored" not in answer.headers
            constraint = server.worker.requests[-1].constraint
            assert constraint is not None

            def passes(answer):
                tokens = server.said(answer)
                return allowed(constraint, tokens) == len(tokens)

            return passes

        ask.server = server
        yield ask


@pytest.mark.parametrize(("body", "good", "bad"), NAMES, ids=lambda given: str(given)[:50])
def test_a_chat_s_answer_is_what_was_asked_for_under_every_name(ask, body, good, bad):
    passes = ask(**body)
    assert passes(THOUGHT + final(good))
    assert not passes(final(bad))


@pytest.mark.parametrize(("body", "good", "bad"), NAMES, ids=lambda given: str(given)[:50])
def test_so_is_that_of_a_completion(ask, body, good, bad):
    passes = ask("/v1/completions", **body)
    for end in ("<|return|>", "<|endoftext|>"):
        assert passes(good + end)
    assert not passes(bad + "<|return|>")


def test_a_schema_is_told_to_the_model_under_every_name(ask):
    ask(guided_json=SCHEMA)
    assert "# Response Formats\n\n## response\n\n" in prompt_text(ask.server)
    ask(guided_regex="a+")
    assert "# Response Formats" not in prompt_text(ask.server)


def test_allowed_tokens_make_up_the_answer_and_it_is_empty_only_if_an_end_is_among_them(ask, tiny_tokenizer):
    ids = tiny_tokenizer.encode("ab")
    special = tiny_tokenizer.special("<|return|>")
    for path, wrap in (
        ("/v1/chat/completions", final),
        ("/v1/completions", lambda text: text + "<|return|>"),
    ):
        for listed in (ids, [*ids, special]):
            passes = ask(path, allowed_token_ids=listed)
            assert passes(wrap("abba"))
            assert not passes(wrap("abc"))
            assert passes(wrap("")) == (special in listed)


REFUSED = [
    ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice"),
    ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
    ({"allowed_token_ids": [1], "bad_words": ["x"]}, "bad_words"),
    ({"allowed_token_ids": [5000]}, "allowed_token_ids[0]"),
    ({"allowed_token_ids": []}, "allowed_token_ids"),
    ({"guided_json": "no JSON"}, "guided_json"),
    ({"guided_regex": "("}, "guided_regex"),
    ({"structured_outputs": {"regex": "(?=a)"}}, "structured_outputs.regex"),
    ({"guided_choice": []}, "guided_choice"),
    ({"guided_choice": ["x" * 60_000] * 2}, "guided_choice"),
    ({"guided_json": "[" * 100_001}, "guided_json"),
    ({"guided_regex": "x" * 100_001}, "guided_regex"),
    ({"grammar": "x" * 100_001}, "grammar"),
    ({"grammar": "root ::= <think>"}, "grammar"),
    ({"guided_grammar": "root ::= other"}, "guided_grammar"),
    ({"structured_outputs": {"structural_tag": {"triggers": []}}}, "structured_outputs.structural_tag"),
    ({"structural_tag": {"format": {"type": "x"}}}, "structural_tag"),
    ({"response_format": {"type": "structural_tag"}}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ({"truncate_prompt_tokens": 1}, "truncate_prompt_tokens"),
    ({"mirostat": 2}, "mirostat"),
    ({"chat_template": "{{ x }}"}, "chat_template"),
]  # fmt: skip


def test_what_cannot_be_is_refused_by_its_name(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server:
        for body, param in REFUSED:
            answer = httpx.post(
                server.url + "/v1/chat/completions", json={"messages": HI, **body}, timeout=30
            )
            assert answer.status_code == 400, body
            assert answer.json()["error"]["param"] == param, answer.text
        assert server.worker.requests == []


# Arguments


def test_arguments_follow_their_schema_also_when_nobody_asks(ask):
    passes = ask(tools=[tool("f", n={"type": "integer"})])
    assert passes(final("hello"))
    assert passes(call("f", '{"n": 1}'))
    assert not passes(call("f", '{"n": "x"}'))


def test_strict_false_leaves_any_object(ask):
    passes = ask(tools=[tool("f", False, n={"type": "integer"})])
    assert passes(call("f", '{"n": "x"}'))
    assert not passes(call("f", "x"))


@pytest.mark.parametrize("broken", [{"type": "strin"}, {"$ref": "http://elsewhere/x"}, {"pattern": "("}])
def test_a_schema_that_cannot_be_followed_leaves_any_object_and_is_logged(ask, caplog, broken):
    passes = ask(tools=[tool("f", n=broken), tool("g", n={"type": "integer"})])
    assert passes(call("f", '{"n": "x"}'))
    assert not passes(call("g", '{"n": "x"}'))
    assert "the arguments of the function f may be any JSON object" in caplog.text or broken in TOLD
    TOLD.append(broken)


TOLD: list[object] = []


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_the_other_apis_hold_arguments_to_their_schema_too(tiny_tokenizer, path):
    parameters = tool("f", n={"type": "integer"})["function"]["parameters"]
    with live(tiny_tokenizer, final("ok")) as server:
        for strict in (None, False):
            if path == "/v1/responses":
                body = {"input": "hi", "tools": [{"type": "function", "name": "f", "parameters": parameters}]}
            else:
                body = {"messages": HI, "max_tokens": 9, "tools": [{"name": "f", "input_schema": parameters}]}
            if strict is not None:
                body["tools"][0]["strict"] = strict
            assert httpx.post(server.url + path, json=body, timeout=30).status_code == 200
            tokens = server.said(call("f", '{"n": "x"}'))
            passed = allowed(server.worker.requests[-1].constraint, tokens) == len(tokens)
            assert passed == (strict is False)


# Going on from a beginning


def begun(message, **more):
    return {"messages": [*HI, {"role": "assistant", **message}], **more}


GOES_ON = {"continue_final_message": True, "add_generation_prompt": False}


@pytest.mark.parametrize(
    ("body", "end"),
    [
        (begun({"content": "Hello, "}, **GOES_ON), "<|start|>assistant<|channel|>final<|message|>Hello, "),
        (begun({"content": "Hello, "}, continue_final_message=True),
         "<|start|>assistant<|channel|>final<|message|>Hello, "),
        (begun({"content": "Hello, ", "prefix": True}),
         "<|start|>assistant<|channel|>final<|message|>Hello, "),
        (begun({"content": "", "reasoning": "Hm, "}, **GOES_ON),
         "<|start|>assistant<|channel|>analysis<|message|>Hm, "),
        (begun({"content": "Yes", "reasoning_content": "Hm.", "prefix": True}),
         "<|start|>assistant<|channel|>analysis<|message|>Hm.<|end|>"
         "<|start|>assistant<|channel|>final<|message|>Yes"),
        (begun({"content": "Yes"}, reasoning_effort="none", **GOES_ON),
         "<|start|>assistant<|channel|>final<|message|>Yes"),
        (begun({"content": "", "prefix": True}), "<|message|>Hi<|end|><|start|>assistant"),
        (begun({"content": "Yes"}), "<|channel|>final<|message|>Yes<|end|><|start|>assistant"),
        (begun({"content": None}), "<|channel|>final<|message|><|end|><|start|>assistant"),
    ],
)  # fmt: skip
def test_the_prompt_ends_where_the_answer_goes_on(tiny_tokenizer, body, end):
    with live(tiny_tokenizer, final("ok")) as server:
        answer = httpx.post(server.url + "/v1/chat/completions", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        assert prompt_text(server).endswith(end)
        rendered = httpx.post(server.url + "/v1/chat/completions/render", json=body, timeout=30)
        assert rendered.json()["text"].endswith(end)


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_is_what_was_added_or_with_echo_all(tiny_tokenizer, stream):
    def content(answer):
        if not stream:
            return answer.json()["choices"][0]["message"]["content"]
        lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: {")]
        deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
        return "".join(delta.get("content") or "" for delta in deltas)

    with live(tiny_tokenizer, "Ada.<|return|>") as server:
        for echo, expected in ((False, "Ada."), (True, "I am Ada.")):
            body = begun({"content": "I am "}, echo=echo, stream=stream, **GOES_ON)
            assert content(httpx.post(server.url + "/v1/chat/completions", json=body, timeout=30)) == expected


def test_a_begun_thought_goes_on_as_reasoning(tiny_tokenizer):
    said = "so.<|end|><|start|>assistant<|channel|>final<|message|>Yes<|return|>"
    with live(tiny_tokenizer, said) as server:
        body = begun({"reasoning": "Hm, ", "prefix": True})
        answer = httpx.post(server.url + "/v1/chat/completions", json=body, timeout=30).json()
    message = answer["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("so.", "Yes")
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3


def test_a_schema_holds_what_follows_the_beginning(ask):
    body = begun({"content": '{"n": '}, guided_json=SCHEMA, **GOES_ON)
    passes = ask(**body)
    assert passes("7}<|return|>")
    assert not passes('"7"}<|return|>')
    thought = begun({"reasoning": "Hm", "prefix": True}, guided_json=SCHEMA)
    passes = ask(**thought)
    assert passes(".<|end|><|start|>assistant" + final('{"n": 7}'))
    assert not passes(".<|end|><|start|>assistant" + final("7"))


def test_a_begun_thought_goes_on_also_where_none_is_wanted(ask):
    passes = ask(**begun({"reasoning": "Hm", "prefix": True}, reasoning_effort="none", guided_regex="[0-9]"))
    assert passes(".<|end|><|start|>assistant" + final("7"))


def test_a_budget_counts_a_thought_that_was_begun(ask):
    passes = ask(**begun({"reasoning": "Hm", "prefix": True}, thinking_token_budget=2, max_tokens=200))
    assert passes("ab<|end|><|start|>assistant" + final("7"))
    assert not passes("abc")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (begun({"content": "a"}, **{**GOES_ON, "add_generation_prompt": True}), "add_generation_prompt"),
        (begun({"content": "a"}, add_generation_prompt=False), "add_generation_prompt"),
        ({"messages": HI, "continue_final_message": True}, "continue_final_message"),
        ({"messages": [{"role": "user", "content": "a", "prefix": True}]}, "messages[0].prefix"),
        ({"messages": [{"role": "assistant", "content": "a", "prefix": True}, *HI]}, "messages[0].prefix"),
        (begun({"content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, **GOES_ON),
         "messages[1].tool_calls"),
        (begun({"content": "word"}, guided_json=SCHEMA, **GOES_ON), "messages"),
        (begun({"content": "a"}, tools=[tool("f")], tool_choice="required", **GOES_ON), "tool_choice"),
    ],
)  # fmt: skip
def test_what_cannot_go_on_is_refused(tiny_tokenizer, body, param):
    with live(tiny_tokenizer, final("ok")) as server:
        answer = httpx.post(server.url + "/v1/chat/completions", json=body, timeout=30)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


# The other fields


def test_the_stop_string_stays_if_that_is_wanted(tiny_tokenizer):
    with live(tiny_tokenizer, final("one END two")) as server:
        for stream in (False, True):
            body = {"messages": HI, "stop": "END", "include_stop_str_in_output": True, "stream": stream}
            answer = httpx.post(server.url + "/v1/chat/completions", json=body, timeout=30)
            assert "END" in answer.text.replace('"content":"', "")
            assert "two" not in answer.text


def test_biases_may_be_pairs(tiny_tokenizer):
    with live(tiny_tokenizer, final("a")) as server:
        for given in ([[3, -1.5], [4, False]], {"3": -1.5, "4": -100}):
            answer = httpx.post(
                server.url + "/v1/chat/completions", json={"messages": HI, "logit_bias": given}
            )
            assert answer.status_code == 200
            assert server.worker.requests[-1].sampling.logit_bias == {3: -1.5, 4: -100.0}
        for wrong in ([["Hello", 1]], [[3]], [3], [[True, 1]]):
            answer = httpx.post(
                server.url + "/v1/chat/completions", json={"messages": HI, "logit_bias": wrong}
            )
            assert answer.json()["error"]["param"] == "logit_bias"


def test_tokens_of_logprobs_may_be_called_by_their_ids(tiny_tokenizer):
    with live(tiny_tokenizer, final("a")) as server:
        body = {"messages": HI, "logprobs": True, "top_logprobs": 2, "return_tokens_as_token_ids": True}
        answer = httpx.post(server.url + "/v1/chat/completions", json=body, timeout=30).json()
        (entry,) = answer["choices"][0]["logprobs"]["content"]
        (id,) = tiny_tokenizer.encode("a")
        assert entry["token"] == f"token_id:{id}"
        assert {each["token"][:9] for each in entry["top_logprobs"]} == {"token_id:"}
        body = {"prompt": "a", "logprobs": 1, "return_tokens_as_token_ids": True}
        answer = httpx.post(server.url + "/v1/completions", json=body, timeout=30).json()
        assert answer["choices"][0]["logprobs"]["tokens"][0].startswith("token_id:")


def test_log_probabilities_of_the_prompt(tiny_tokenizer):
    with live(tiny_tokenizer, final("a")) as server:
        chat = httpx.post(server.url + "/v1/chat/completions", json={"messages": HI, "prompt_logprobs": 1})
        told = chat.json()["prompt_logprobs"]
        prompt = server.worker.requests[-1].prompt
        assert told[0] is None
        assert len(told) == len(prompt)
        assert told[3][str(prompt[3])] == {
            "logprob": -0.25, "rank": 1, "decoded_token": tiny_tokenizer.decode([prompt[3]]),
        }  # fmt: skip
        raw = httpx.post(server.url + "/v1/completions", json={"prompt": "abc", "prompt_logprobs": 0}).json()
        assert len(raw["choices"][0]["prompt_logprobs"]) == 3
        plain = httpx.post(server.url + "/v1/chat/completions", json={"messages": HI}).json()
        assert "prompt_logprobs" not in plain


def test_salts_reach_the_engine_and_keys_have_their_own(tiny_tokenizer):
    with live(tiny_tokenizer, final("a")) as server:
        httpx.post(server.url + "/v1/chat/completions", json={"messages": HI, "cache_salt": "s"})
        httpx.post(server.url + "/v1/chat/completions", json={"messages": HI})
        assert [request.cache_salt for request in server.worker.requests] == [b"s", b""]
    settings = replace(PLAIN_SETTINGS, api_key=("k1", "k2"), prefix_cache_per_key=True)
    with live(tiny_tokenizer, final("a"), settings=settings) as server:
        for key in ("k1", "k2", "k1"):
            headers = {"authorization": f"Bearer {key}"}
            httpx.post(server.url + "/v1/chat/completions", json={"messages": HI}, headers=headers)
        first, second, third = (request.cache_salt for request in server.worker.requests)
    assert first == third != second
