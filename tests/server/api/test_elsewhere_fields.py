"""Fields of other servers are translated, refused by name, or ignored; unknown names are reported."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from server.errors import ApiError
from server.fields.document import document
from server.fields.reading import APIS, MAX_NAMED, TABLE, read
from tests.server.fakes import PLAIN_SETTINGS, final, live

DOCUMENT = Path(__file__).parents[3] / "docs" / "fields.md"
HI = [{"role": "user", "content": "hi"}]
BODIES = {"chat": {"messages": HI}, "completions": {"prompt": "hi"}}
SAME = [(api, row) for row in TABLE if row.verdict == "same" for api in row.apis]
REFUSED = [(api, row) for row in TABLE if row.instead for api in row.apis]
IGNORED = [(api, row) for row in TABLE if row.verdict == "ignored" for api in row.apis if api in BODIES]


def placed(api, path, value):
    """A body of this API with `value` at `path`."""
    body = dict(BODIES[api])
    first, *rest = path.split(".")
    if not rest and not first.endswith("[]"):
        return {**body, path: value}
    for name in reversed(rest):
        value = {name.removesuffix("[]"): [value] if name.endswith("[]") else value}
    if first == "messages[]":
        return {**body, "messages": [{**HI[0], **value}]}
    return {**body, first.removesuffix("[]"): [value] if first.endswith("[]") else value}


def at(body, path):
    for name in path.split("."):
        body = body[name]
    return body


def ids(cases):
    return [f"{api} {row.name}" for api, row in cases]


VALUES = {
    "thinking.type": ("disabled", {"reasoning_effort": "none"}),
    "think": (False, {"reasoning_effort": "none"}),
    "chat_template_kwargs.enable_thinking": (False, {"reasoning_effort": "none"}),
    "chat_template_kwargs.thinking": (False, {"reasoning_effort": "none"}),
    "enable_thinking": (False, {"reasoning_effort": "none"}),
    "reasoning.enabled": (False, {"reasoning_effort": "none"}),
    "reasoning.exclude": (True, {"include_reasoning": False}),
    "separate_reasoning": (True, {}),
    "format": ({"type": "object"}, {"structured_outputs.json": {"type": "object"}}),
}
"""What the value of a row becomes, if it changes."""


@pytest.mark.parametrize(("api", "row"), SAME, ids=ids(SAME))
def test_another_name_becomes_ours(api, row):
    given, expected = VALUES.get(row.name, (7, {row.target: 7}))
    if row.name == "n_probs" and api == "chat":
        expected = {"logprobs": True, "top_logprobs": 7}
    translated = read(placed(api, row.name, given), api)
    for target, value in expected.items():
        assert at(translated, target) == value
    assert translated.ignored == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"think": True}, {}),
        ({"think": "low"}, {"reasoning_effort": "low"}),
        ({"chat_template_kwargs": {"enable_thinking": True}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, {"thinking_token_budget": 5}),
        ({"n_predict": -1}, {}),
        ({"options": {"num_predict": -2, "temperature": 0}}, {"temperature": 0}),
        ({"reasoning_budget": -1}, {}),
        ({"reasoning_budget": 0}, {"thinking_token_budget": 0}),
        ({"format": "json"}, {"structured_outputs": {"json_object": True}}),
        ({"grammar": ""}, {}),
        ({"n_predict": True}, {"max_tokens": True}),  # for validation to refuse
        ({"n_predict": None}, {}),
    ],
)
def test_values_that_ask_for_nothing_become_nothing(body, expected):
    translated = read({"messages": HI, **body}, "chat")
    assert dict(translated) == {"messages": HI, **body, **expected}


def test_where_two_names_are_given_ours_counts_and_the_other_is_told():
    translated = read({"messages": HI, "max_tokens": 5, "n_predict": 7}, "chat")
    assert translated["max_tokens"] == 5
    assert translated.ignored == ["n_predict (it says otherwise than max_tokens)"]
    assert read({"messages": HI, "max_tokens": 5, "n_predict": 5}, "chat").ignored == []


@pytest.mark.parametrize(("api", "row"), REFUSED, ids=ids(REFUSED))
def test_a_refusal_names_the_field_and_what_would_do(api, row):
    with pytest.raises(ApiError) as refused:
        read(placed(api, row.name, {"some": "value"}), api)
    assert refused.value.status == 400
    assert refused.value.param.replace("[0]", "[]") == row.name
    assert row.instead in refused.value.message
    for neutral in (*row.neutral, [], None):
        assert read(placed(api, row.name, neutral), api).ignored == []


@pytest.mark.parametrize(("api", "row"), IGNORED, ids=ids(IGNORED))
def test_what_is_ignored_is_no_stranger(api, row):
    body = placed(api, row.name, {"some": "value"})
    translated = read(body, api, strict=True)
    assert (dict(translated), translated.ignored) == (body, [])


def test_a_wrong_value_is_told_under_the_name_that_the_client_wrote(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello")) as server:
        for body, param in (
            ({"n_predict": "many"}, "n_predict"),
            ({"chat_template_kwargs": {"enable_thinking": 3}}, "chat_template_kwargs.enable_thinking"),
            ({"options": {"temperature": 9}}, "options.temperature"),
            ({"think": "hardly"}, "think"),
        ):
            answer = httpx.post(server.url + "/v1/chat/completions", json={"messages": HI, **body})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == param
            assert answer.json()["error"]["message"].startswith(f"{param}: ")


def test_an_unknown_field_is_named_in_a_header_and_once_in_the_log(tiny_tokenizer, caplog):
    body = {"messages": [{**HI[0], "contents": 1}], "max_token": 5, "null": None, "zzz": {"a": 1}}
    caplog.set_level(logging.WARNING, "gptoss.server")
    with live(tiny_tokenizer, final("Hello"), settings=PLAIN_SETTINGS) as server:
        for stream in (False, True):
            asked = {**body, "stream": stream}
            answer = httpx.post(server.url + "/v1/chat/completions", json=asked)
            assert answer.status_code == 200
            assert sorted(answer.headers["x-gptoss-ignored"].split(", ")) == [
                "max_token (did you mean max_tokens?)",
                "messages[0].contents (did you mean content?)",
                "zzz",
            ]
        plain = httpx.post(server.url + "/v1/chat/completions", json={"messages": HI})
        assert "x-gptoss-ignored" not in plain.headers
    told = [record.getMessage() for record in caplog.records if "changes nothing" in record.getMessage()]
    assert len(told) == 3


@pytest.mark.parametrize("path", APIS)
def test_every_api_names_what_it_does_not_know(tiny_tokenizer, path):
    given = {"/v1/completions": {"prompt": "hi"}, "/v1/responses": {"input": "hi"}}
    body = {**given.get(path, {"messages": HI, "max_tokens": 5}), "sead": 1}
    with live(tiny_tokenizer, final("Hello")) as server:
        answer = httpx.post(server.url + path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gptoss-ignored"] == "sead (did you mean seed?)"


def test_strict_fields_refuse_a_stranger(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello"), settings=replace(PLAIN_SETTINGS, strict_fields=True)) as server:
        answer = httpx.post(server.url + "/v1/chat/completions", json={"messages": HI, "max_token": 5})
        good = httpx.post(server.url + "/v1/chat/completions", json={"messages": HI, "metadata": {"a": "b"}})
    assert (answer.status_code, good.status_code) == (400, 200)
    assert answer.json()["error"]["param"] == "max_token"
    assert "max_tokens" in answer.json()["error"]["message"]


def test_what_is_told_is_ascii_and_bounded():
    strangers = {f"a{i}\r\nx-evil: {'é' * 9}{'x' * i * 100}": 1 for i in range(50)}
    ignored = read({"messages": HI, **strangers}, "chat").ignored
    assert len(ignored) == MAX_NAMED + 1
    assert ignored[-1] == f"and {50 - MAX_NAMED} more"
    text = ", ".join(ignored)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 2500


def test_a_long_conversation_is_read_quickly_and_whole():
    messages = HI * 5000
    translated = read({"messages": [*messages, {**HI[0], "contnt": 1}]}, "chat")
    assert translated.ignored == ["messages[5000].contnt (did you mean content?)"]


OTHERS = json.loads(Path(__file__).with_name("fields_of_other_servers.json").read_text())
"""Server → the fields in its documentation, for each API."""


@pytest.mark.parametrize("server", OTHERS)
@pytest.mark.parametrize("api", BODIES)
def test_every_documented_field_of_other_servers_stands_in_the_table(server, api):
    known = {row.name for row in TABLE if api in row.apis}
    known |= {name.rpartition(".")[0] for name in known}  # what has fields inside is read
    assert [name for name in OTHERS[server][api] if name not in known] == []


def test_the_document_is_made_from_the_table():
    assert DOCUMENT.read_text() == document(), "python -m server.fields.document > docs/fields.md"


def test_no_name_stands_twice_for_one_api():
    names = [(api, row.name) for row in TABLE for api in row.apis]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
