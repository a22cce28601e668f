"""Words and formats that clients of other servers look for."""

import json
import re
import socket
from dataclasses import replace

import httpx
import pytest

from engine.errors import PromptTooLong, QueueFull
from server.errors import as_api_error
from tests.server.fakes import PLAIN_SETTINGS, final, live

HI = [{"role": "user", "content": "Hi"}]
CHAT = "/v1/chat/completions"

FULL = {
    "LiteLLM": r"This model's maximum context length is",
    "LangChain": r"context_length_exceeded",
    "pi": r"(?i)maximum context length is \d+ tokens",
    "pi, another": r"(?i)reduce the length of the messages",
    "OpenAI's cookbook": r"maximum context length is (\d+) tokens\. However, you requested (\d+) tokens",
}
"""Patterns by which clients recognise a full context in the message."""


@pytest.mark.parametrize("client", FULL)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_a_full_context_is_known_by_its_words(tiny_tokenizer, client, path):
    def refuse(request):
        raise PromptTooLong(5000, 4095)

    with live(tiny_tokenizer, refuse) as server:
        body = {"prompt": "Hi"} if path == "/v1/completions" else {"messages": HI}
        answer = httpx.post(server.url + path, json={**body, "max_tokens": 7})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert re.search(FULL[client], error["message"])
    assert error["code"] == "context_length_exceeded"
    context, asked, prompt, completion = map(int, re.findall(r"\d+", error["message"]))
    assert (context, completion) == (4096, 7)
    assert asked == prompt + completion > context


def test_head_is_get_without_a_body(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server:
        for path in ("/health", "/ready", "/version", "/v1/models", "/"):
            head, get = httpx.head(server.url + path), httpx.get(server.url + path)
            assert (head.status_code, head.content) == (200, b""), path
            assert head.headers.get("content-type") == get.headers.get("content-type")
        assert httpx.head(server.url + CHAT).status_code == 405
        assert httpx.head(server.url + "/nowhere").status_code == 404
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"HEAD /version HTTP/1.1\r\nhost: localhost\r\n\r\nGET /health HTTP/1.1\r\n"
                        b"host: localhost\r\nconnection: close\r\n\r\n")  # fmt: skip
            everything = b"".join(iter(lambda: raw.recv(65536), b""))
    first, second = everything.split(b"HTTP/1.1 200 OK")[1:]
    assert first.endswith(b"\r\n\r\n")
    assert second.endswith(b"ok")


@pytest.mark.parametrize("field", ["both", "reasoning", "reasoning_content"])
def test_the_chain_of_thought_has_one_name_or_two(tiny_tokenizer, field):
    names = {"reasoning", "reasoning_content"} if field == "both" else {field}
    settings = replace(PLAIN_SETTINGS, reasoning_field=field)
    said = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant" + final("Yes")
    with live(tiny_tokenizer, said, settings=settings) as server:
        whole = httpx.post(server.url + CHAT, json={"messages": HI}).json()
        streamed = httpx.post(server.url + CHAT, json={"messages": HI, "stream": True}).text
    message = whole["choices"][0]["message"]
    assert dict.fromkeys(names, "Hm.").items() <= message.items()
    assert {name for name in message if name.startswith("reasoning")} == names
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in streamed.split("\n") if "{" in line]
    for name in ("reasoning", "reasoning_content"):
        joined = "".join(delta.get(name, "") for delta in deltas)
        assert joined == ("Hm." if name in names else "")


def test_a_model_may_have_several_names(tiny_tokenizer):
    settings = replace(PLAIN_SETTINGS, served_model_name=("tiny", "gpt-4o", "org/x"))
    with live(tiny_tokenizer, final("ok"), settings=settings) as server:
        assert [each["id"] for each in httpx.get(server.url + "/v1/models").json()["data"]] == [
            "tiny", "gpt-4o", "org/x",
        ]  # fmt: skip
        for name in ("tiny", "gpt-4o", "org/x"):
            assert httpx.get(f"{server.url}/v1/models/{name}").json()["id"] == name
            answer = httpx.post(server.url + CHAT, json={"messages": HI, "model": name})
            assert answer.json()["model"] == "tiny"
        other = httpx.post(server.url + CHAT, json={"messages": HI, "model": "other"})
    assert other.status_code == 404
    assert "'tiny' or 'gpt-4o' or 'org/x'" in other.json()["error"]["message"]


@pytest.mark.parametrize("message", [{"content": None}, {}, {"content": []}])
def test_an_assistant_s_message_without_anything_is_an_empty_one(tiny_tokenizer, message):
    messages = [*HI, {"role": "assistant", **message}, *HI]
    with live(tiny_tokenizer, final("ok")) as server:
        assert httpx.post(server.url + CHAT, json={"messages": messages}).status_code == 200


@pytest.mark.parametrize(("count", "words"), [(1, "1 request is"), (320, "320 requests are")])
def test_a_refusal_counts_whose_requests_take_the_room(count, words):
    error = as_api_error(QueueFull(count, 7, doing="running or waiting"))
    assert (error.status, error.headers["retry-after"]) == (429, "7")
    assert error.message == f"{words} running or waiting already; try again in 7 s"
