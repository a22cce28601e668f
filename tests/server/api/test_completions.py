"""POST /v1/completions, text and token ids, with the real openai client; the model follows a script."""

import json

import pytest

from engine.request import Logprob
from tests.server.fakes import live


def chunks_of(server, **body):
    answer = server.http.post("/v1/completions", json={"stream": True, **body})
    assert answer.status_code == 200, answer.text
    data = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(each) for each in data[:-1]]


def text_of(chunks, index=0):
    return "".join(c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == index)


def test_text_goes_on_streamed_and_not(tiny_tokenizer):
    with live(tiny_tokenizer, " upon ä time<|return|>") as server:
        answer = server.openai().completions.create(model="tiny", prompt="Once", max_tokens=50)
        chunks = chunks_of(server, prompt="Once", max_tokens=50)
        (first, _) = server.worker.requests
    assert answer.choices[0].text == text_of(chunks) == " upon ä time"
    assert answer.choices[0].finish_reason == chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert answer.object == "text_completion"
    assert first.prompt == tiny_tokenizer.encode("Once")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 14)


def test_sixteen_tokens_unless_asked_otherwise(tiny_tokenizer):
    with live(tiny_tokenizer, "x" * 40) as server:
        answer = server.openai().completions.create(model="tiny", prompt="a")
    assert answer.choices[0].text == "x" * 16
    assert answer.choices[0].finish_reason == "length"


def test_special_tokens_are_live_in_a_raw_prompt(tiny_tokenizer):
    with live(tiny_tokenizer, "x") as server:
        server.openai().completions.create(model="tiny", prompt="<|start|>user")
        (request,) = server.worker.requests
    assert request.prompt == [tiny_tokenizer.special("<|start|>"), *tiny_tokenizer.encode("user")]


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("ab", ["ab"]),
        (["ab", "c"], ["ab", "c"]),
        ([11, 12, 13], [[11, 12, 13]]),
        ([[11, 12], [13]], [[11, 12], [13]]),
        (["<|end|>"], ["<|end|>"]),
        (None, ["<|endoftext|>"]),
        ("", ["<|endoftext|>"]),
    ],
)
def test_a_prompt_is_text_or_tokens_one_or_many(tiny_tokenizer, prompt, asked):
    with live(tiny_tokenizer, lambda request: f"{len(request.prompt)}<|return|>") as server:
        answer = server.openai().completions.create(model="tiny", prompt=prompt)
        prompts = [request.prompt for request in server.worker.requests]
    expected = [
        each if isinstance(each, list) else tiny_tokenizer.encode_with_specials(each) for each in asked
    ]
    assert prompts == expected
    assert [c.text for c in answer.choices] == [str(len(each)) for each in expected]
    assert [c.index for c in answer.choices] == list(range(len(asked)))


def test_choices_of_one_prompt_lie_together(tiny_tokenizer):
    def script(request):
        return tiny_tokenizer.decode(request.prompt) + request.id[-1] + "<|return|>"

    with live(tiny_tokenizer, script) as server:
        answer = server.openai().completions.create(model="tiny", prompt=["a", "b"], n=2)
        chunks = chunks_of(server, prompt=["a", "b"], n=2)
    assert [c.text for c in answer.choices] == ["a0", "a1", "b0", "b1"]
    assert [text_of(chunks, i) for i in range(4)] == ["a0", "a1", "b0", "b1"]
    assert answer.usage.prompt_tokens == 2


def test_the_best_of_several_is_the_one_with_the_likeliest_tokens(tiny_tokenizer, monkeypatch):
    likely = {0: -3.0, 1: -0.1, 2: -1.0}
    with live(tiny_tokenizer, lambda request: "answer " + request.id[-1] + "<|return|>") as server:
        monkeypatch.setattr(
            "tests.server.fakes.Logprob",
            lambda value, top: Logprob(likely[int(server.worker.requests[-1].id[-1])], top),
        )
        real = server.worker.submit

        def submit(request):  # every stream's log-probabilities by its own number
            stream = real(request)
            stream._token = lambda id, is_last, make=stream._token: with_logprob(make(id, is_last), request)
            return stream

        def with_logprob(token, request):
            assert token.logprob is not None
            object.__setattr__(token, "logprob", Logprob(likely[int(request.id[-1])]))
            return token

        monkeypatch.setattr(server.worker, "submit", submit)
        answer = server.openai().completions.create(model="tiny", prompt="a", n=2, best_of=3)
    assert [c.text for c in answer.choices] == ["answer 1", "answer 2"]
    assert all(c.logprobs is None for c in answer.choices)
    assert answer.usage.completion_tokens == 3 * 9


def test_echo_repeats_the_prompt(tiny_tokenizer):
    with live(tiny_tokenizer, " time<|return|>") as server:
        answer = server.openai().completions.create(model="tiny", prompt="Once upön", echo=True)
        chunks = chunks_of(server, prompt="Once upön", echo=True)
    assert answer.choices[0].text == text_of(chunks) == "Once upön time"


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echo_with_logprobs_scores_the_prompt(tiny_tokenizer, max_tokens):
    """As lm-eval requests it: log-probabilities of all tokens of the prompt except the first."""
    with live(tiny_tokenizer, "xyz<|return|>") as server:
        body = {"prompt": "añb", "echo": True, "logprobs": 2, "max_tokens": max_tokens}
        answer = server.http.post("/v1/completions", json=body).json()
        chunks = chunks_of(server, **body)
        (request, _) = server.worker.requests
    (choice,) = answer["choices"]
    lists = choice["logprobs"]
    assert choice["text"] == text_of(chunks) == "añb" + "x" * max_tokens
    assert lists["tokens"] == ["a", "bytes:\\xc3", "bytes:\\xb1", "b", "x"][: 4 + max_tokens]
    assert lists["token_logprobs"] == [None, -0.25, -0.25, -0.25, -0.5][: 4 + max_tokens]
    assert lists["top_logprobs"][0] is None
    assert lists["top_logprobs"][3] == {"b": -0.25}
    assert lists["text_offset"] == [0, 1, 1, 2, 3][: 4 + max_tokens]
    assert request.prompt_logprobs == 2
    assert answer["usage"]["completion_tokens"] == max_tokens
    streamed = [c["logprobs"]["tokens"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]]
    assert [token for tokens in streamed for token in tokens] == lists["tokens"]


def test_logprobs_of_the_answer_only_unless_it_is_echoed(tiny_tokenizer):
    with live(tiny_tokenizer, "xy<|return|>") as server:
        answer = server.openai().completions.create(model="tiny", prompt="ab", logprobs=0)
        (request,) = server.worker.requests
    assert answer.choices[0].logprobs.tokens == ["x", "y", "<|return|>"]
    assert answer.choices[0].logprobs.text_offset == [0, 1, 2]
    assert answer.choices[0].logprobs.top_logprobs == [{"x": -0.5}, {"y": -0.5}, {"<|return|>": -0.5}]
    assert request.prompt_logprobs is None


def test_a_token_that_stops_the_answer_has_its_log_probability(tiny_tokenizer):
    """lm-eval requests one token after the prompt, and assumes that the last entry is that token's.

    When a stop token had no entry, it dropped the last token of the prompt instead, and the score was wrong.
    """
    body = {"prompt": "ab", "echo": True, "logprobs": 1, "max_tokens": 1}
    with live(tiny_tokenizer, "<|return|>") as server:
        lists = server.http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
        chunks = chunks_of(server, **body)
    assert lists["tokens"] == ["a", "b", "<|return|>"]
    assert lists["token_logprobs"] == [None, -0.25, -0.5]
    streamed = [c["logprobs"]["tokens"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]]
    assert [token for tokens in streamed for token in tokens] == lists["tokens"]


@pytest.mark.parametrize("stop", ["lo", ["zzz", "l"]])
def test_stop_strings(tiny_tokenizer, stop):
    with live(tiny_tokenizer, "hello<|return|>") as server:
        answer = server.openai().completions.create(model="tiny", prompt="ab", stop=stop, logprobs=1)
        chunks = chunks_of(server, prompt="ab", stop=stop)
    expected = "hel" if stop == "lo" else "he"
    assert answer.choices[0].text == text_of(chunks) == expected
    assert answer.choices[0].logprobs.tokens == list(expected)
    assert answer.choices[0].finish_reason == "stop"


def test_a_character_cut_in_half_is_shown_as_one_that_is_unknown(tiny_tokenizer):
    with live(tiny_tokenizer, "aé") as server:
        answer = server.openai().completions.create(model="tiny", prompt="ab", max_tokens=2)
        chunks = chunks_of(server, prompt="ab", max_tokens=2)
    assert answer.choices[0].text == text_of(chunks) == "a\ufffd"


def test_token_ids_and_usage_in_a_stream(tiny_tokenizer):
    with live(tiny_tokenizer, "xyz<|return|>") as server:
        chunks = chunks_of(
            server, prompt=[11, 12], return_token_ids=True, stream_options={"include_usage": True}
        )
    *chunks, last = chunks
    assert chunks[0]["choices"][0]["prompt_token_ids"] == [11, 12]
    ids = [id for chunk in chunks for c in chunk["choices"] for id in c["token_ids"]]
    assert ids == tiny_tokenizer.encode_with_specials("xyz<|return|>")
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4
    assert all(chunk["usage"] is None for chunk in chunks)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "n": 3, "best_of": 2}, "best_of"),
        ({"prompt": "a", "best_of": 2, "stream": True}, "best_of"),
        ({"prompt": "a", "logprobs": 6}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [999_999]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [2**70]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tiny_tokenizer, body, param):
    with live(tiny_tokenizer, "x") as server:
        answer = server.http.post("/v1/completions", json=body)
        assert not server.worker.requests
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
