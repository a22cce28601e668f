"""docs/fields.md lists every field of the openai SDK's request types, and what it says is true."""

import re
import types
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import httpx
import pytest
import typing_extensions
from openai.types import completion_create_params as sdk_completions
from openai.types.chat import completion_create_params as sdk_chat
from pydantic import BaseModel

from server.api.chat import ChatBody
from server.api.completions import CompletionBody
from server.fields.extensions import EXTENSION_ROWS
from tests.server.fakes import final, live

FIELDS = Path(__file__).parents[3] / "docs" / "fields.md"
CHAT, COMPLETIONS, EXTENSIONS = "POST /v1/chat/completions", "POST /v1/completions", "Extensions"
SDK = {CHAT: sdk_chat, COMPLETIONS: sdk_completions}
SERVER = {CHAT: ChatBody, COMPLETIONS: CompletionBody}
HI = [{"role": "user", "content": "hi"}]

REFUSED = {
    CHAT: {
        "messages[].content[].image_url": {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}]}]},
        "messages[].content[].input_audio": {"messages": [{"role": "user", "content": [
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}]},
        "messages[].content[].file": {"messages": [{"role": "user", "content": [
            {"type": "file", "file": {"file_id": "file-1"}}]}]},
        "messages[].tool_calls[].custom": {"messages": [*HI, {"role": "assistant", "tool_calls": [
            {"id": "call_1", "type": "custom", "custom": {"name": "f", "input": "x"}}]}]},
        "tools[].custom": {"tools": [{"type": "custom", "custom": {"name": "f"}}]},
        "tool_choice.custom": {"tool_choice": {"type": "custom", "custom": {"name": "f"}}},
        "audio": {"audio": {"format": "wav", "voice": "alloy"}},
        "web_search_options": {"web_search_options": {"search_context_size": "low"}},
        "moderation": {"moderation": {"model": "omni-moderation-latest"}},
    },
    COMPLETIONS: {"suffix": {"suffix": "the end"}},
}  # fmt: skip
"""For each refused field, a body with it."""

IGNORED = {
    CHAT: {
        "messages[].content[].prompt_cache_breakpoint": {"messages": [{"role": "user", "content": [
            {"type": "text", "text": "hi", "prompt_cache_breakpoint": {"mode": "explicit"}}]}]},
        "messages[].audio": {"messages": [{"role": "user", "content": "hi", "audio": {"id": "audio_1"}}]},
        "stream_options.include_obfuscation": {"stream_options": {"include_obfuscation": True}},
        "metadata": {"metadata": {"a": "b"}},
        "prediction": {"prediction": {"type": "content", "content": "Hello"}},
        "prompt_cache_key": {"prompt_cache_key": "k"},
        "prompt_cache_options": {"prompt_cache_options": {"mode": "implicit"}},
        "prompt_cache_retention": {"prompt_cache_retention": "24h"},
        "safety_identifier": {"safety_identifier": "s"},
        "service_tier": {"service_tier": "flex"},
        "store": {"store": True},
        "user": {"user": "u"},
        "verbosity": {"verbosity": "low"},
    },
    COMPLETIONS: {
        "stream_options.include_obfuscation": {"stream_options": {"include_obfuscation": True}},
        "user": {"user": "u"},
    },
}  # fmt: skip
"""For each ignored field, a body with it."""


@cache
def told(section: str) -> dict[str, str]:
    """Field → what docs/fields.md says about it."""
    (text,) = [part for part in FIELDS.read_text().split("\n## ")[1:] if part.startswith(section)]
    return dict(re.findall(r"^\| `([^`]+)` \| (honoured|ignored|refused) \|", text, re.MULTILINE))


def fields_of(kind: object, path: str = "", outer: tuple[object, ...] = ()) -> Iterator[str]:
    """Paths of all fields of a TypedDict or a pydantic model, such as `messages[].content[].text`."""
    if kind in outer:
        return
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        hints = typing.get_type_hints(kind, include_extras=True)
        known = {name: field.alias or name for name, field in kind.model_fields.items()}
        hints = {known[name]: hint for name, hint in hints.items() if name in known}
    else:
        hints = typing_extensions.get_type_hints(kind, include_extras=True)
    for name, hint in hints.items():
        here = f"{path}.{name}" if path else name
        yield here
        for inner, suffix in objects_in(hint):
            yield from fields_of(inner, here + suffix, (*outer, kind))


def objects_in(hint: object) -> Iterator[tuple[object, str]]:
    """The objects in a type, and their paths: `[]` for the items of a list."""
    origin, inner = typing_extensions.get_origin(hint), typing_extensions.get_args(hint)
    if typing_extensions.is_typeddict(hint) or (isinstance(hint, type) and issubclass(hint, BaseModel)):
        yield hint, ""
    elif origin in (typing.Union, types.UnionType):
        for each in inner:
            yield from objects_in(each)
    elif origin in (typing_extensions.Annotated, typing_extensions.Required):
        yield from objects_in(inner[0])
    elif isinstance(origin, type) and issubclass(origin, typing.Iterable) and not issubclass(origin, dict):
        for found, suffix in objects_in(inner[0]):
            yield found, "[]" + suffix


def sdk_fields(section: str) -> set[str]:
    module = SDK[section]
    both = (module.CompletionCreateParamsNonStreaming, module.CompletionCreateParamsStreaming)
    return {field for kind in both for field in fields_of(kind)}


def parents(field: str) -> Iterator[str]:
    """`a[].b.c` → `a[].b`, `a`"""
    while "." in field:
        field = field.rpartition(".")[0]
        yield field.removesuffix("[]")


def verdict(section: str, field: str) -> str | None:
    """What the table says about a field: in its own line, or in that of the object that contains it."""
    table = told(section)
    inherited = (table[parent] for parent in parents(field) if table.get(parent) in ("ignored", "refused"))
    return table.get(field) or next(inherited, None)


def test_the_walk_reaches_the_depths_of_the_sdk():
    """If the SDK changed how its types are written, the other tests might find nothing."""
    deep = {
        "messages[].content[].image_url.url",
        "tools[].function.parameters",
        "response_format.json_schema.strict",
        "tool_choice.allowed_tools.tools",
        "web_search_options.user_location.approximate.city",
    }
    assert deep <= sdk_fields(CHAT)
    assert {"prompt", "best_of", "stream_options.include_usage"} <= sdk_fields(COMPLETIONS)


@pytest.mark.parametrize("section", SDK)
def test_every_field_of_the_sdk_is_told_of(section):
    assert [field for field in sorted(sdk_fields(section)) if verdict(section, field) is None] == []


@pytest.mark.parametrize("section", SDK)
def test_no_field_is_told_of_that_the_sdk_does_not_have(section):
    assert sorted(told(section).keys() - sdk_fields(section)) == []


def extensions(section: str) -> set[str]:
    api = "chat" if section == CHAT else "completions"
    return {row.name for row in EXTENSION_ROWS if api in row.apis}


@pytest.mark.parametrize("section", SERVER)
def test_every_field_of_the_server_is_told_of(section):
    """Each is listed as a field of the SDK or as an extension, and every extension exists."""
    ours = set(fields_of(SERVER[section]))
    assert sorted(ours - sdk_fields(section) - extensions(section) - NESTED) == []
    assert sorted(extensions(section) - ours) == []
    assert not extensions(section) & sdk_fields(section)
    assert extensions(section) <= told(EXTENSIONS).keys()


NESTED = {f"tool_choice.allowed_tools.tools[].{field}" for field in ("type", "function", "function.name")}
"""Our fields within objects whose fields the SDK does not define."""


@pytest.mark.parametrize("section", SDK)
def test_what_is_honoured_the_server_knows_and_what_is_ignored_it_does_not(section):
    ours = set(fields_of(SERVER[section]))
    for field, what in told(section).items():
        if what == "honoured":
            assert field in ours, f"{field} is said to be honoured, and nothing reads it"
        if what == "ignored":
            assert field not in ours, f"{field} is said to be ignored, and something reads it"


def post(server, section: str, body):
    whole = {"messages": HI} if section == CHAT else {"prompt": "hi"}
    return httpx.post(server.url + section.split()[1], json={**whole, **body}, timeout=10)


@pytest.mark.parametrize("section", SDK)
def test_what_is_refused_is_a_400_that_names_the_field(section, tiny_tokenizer):
    assert {field for field, what in told(section).items() if what == "refused"} == REFUSED[section].keys()
    with live(tiny_tokenizer, final("Hello")) as server:
        for field, body in REFUSED[section].items():
            answer = post(server, section, body)
            assert answer.status_code == 400, field
            assert answer.json()["error"]["param"].startswith(field.split("[")[0].split(".")[0]), answer.text
        assert server.worker.requests == []


@pytest.mark.parametrize("section", SDK)
def test_what_is_ignored_changes_nothing(section, tiny_tokenizer):
    assert {field for field, what in told(section).items() if what == "ignored"} == IGNORED[section].keys()
    with live(tiny_tokenizer, final("Hello")) as server:
        assert post(server, section, {}).status_code == 200
        for field, body in IGNORED[section].items():
            assert post(server, section, body).status_code == 200, field
        plain, *others = server.worker.requests
    for request in others:
        assert (request.prompt, request.sampling, request.stop_tokens, request.max_tokens) == (
            plain.prompt,
            plain.sampling,
            plain.stop_tokens,
            plain.max_tokens,
        )
