"""Clients, and the operator of the server, can see how fast a long prompt is computed."""

import logging

import pytest

from server.settings import Settings
from tests.server.fakes import Pause, Reads, final, live

HI = {"messages": [{"role": "user", "content": "hi"}]}
PATHS = {"/v1/chat/completions": HI, "/v1/completions": {"prompt": "hi", "max_tokens": 9}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("server.streaming.PROGRESS_SECONDS", 0.01)


def streamed(server, path):
    with server.http.stream("POST", path, json={**PATHS[path], "stream": True}) as answer:
        return [line for line in answer.iter_lines() if line]


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_tells_how_much_of_its_prompt_is_computed_each_time_once(tiny_tokenizer, path):
    reads = [Reads(0, 7511, 0.15), Reads(4096, 7511, 0.3), Reads(7168, 7511, 0.15)]
    with live(tiny_tokenizer, [Pause(0.05), *reads, final("Hello"), Pause(0.1)]) as server:
        lines = streamed(server, path)
    comments = [line for line in lines if line.startswith(":")]
    assert comments == [": prompt 0/7511", ": prompt 4096/7511", ": prompt 7168/7511"]
    assert [line for line in lines[:4] if line in comments] == comments, "before the answer"
    assert lines[-1] == "data: [DONE]"


def test_clients_read_past_the_comments(tiny_tokenizer):
    with live(tiny_tokenizer, [Reads(10, 20, 0.1), final("Hello")]) as server:
        chunks = list(server.openai().chat.completions.create(model="tiny", **HI, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"


def test_a_stream_is_not_silent_while_a_prompt_does_not_advance(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr("server.streaming.PING_SECONDS", 0.05)
    with live(tiny_tokenizer, [Reads(512, 7511, 0.5), final("Hello")]) as server:
        lines = streamed(server, "/v1/chat/completions")
    assert lines.count(": prompt 512/7511") == 1
    assert lines.count(": ping") >= 2


def test_the_request_log_tells_prompt_tokens_per_second(tiny_tokenizer, caplog):
    caplog.set_level(logging.INFO, "gptoss.requests")
    with live(tiny_tokenizer, final("Hello"), settings=Settings(date="2025-06-28")) as server:
        server.http.post("/v1/chat/completions", json=HI)
    told = [record.facts for record in caplog.records if record.name == "gptoss.requests"]
    facts = [each for each in told if "prompt_tokens_per_second" in each][-1]
    assert facts["prompt_tokens_per_second"] == 50.0, "30 tokens that were not cached, in 0.6 s"
