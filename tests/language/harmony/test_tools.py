"""Tools other than plain functions: in namespaces, with text as input, and those of the model's training."""

from __future__ import annotations

from typing import Any

import pytest

from language.harmony.builtin import TOOLS
from language.harmony.messages import Call, Conversation, Grammar, Message, Tool
from language.harmony.reader import CallDelta, CallStart, Reader
from language.harmony.render import Renderer
from language.names import FunctionNames, ToolName
from language.tokenizer import Tokenizer
from tests.language.harmony.talk import WEATHER, assistant, result, text_of, user

PYTHON = TOOLS["python"]
SPAWN = Tool("agents.spawn", "Starts one.", {"type": "object", "properties": {"task": {"type": "string"}}})
PATCH = Tool("apply_patch", "Changes files.", text=Grammar("lark", 'start: "a"\n// no more'))


def system(lib: Any) -> Any:
    content = lib.SystemContent.new().with_conversation_start_date("2025-06-28")
    return content.with_reasoning_effort(lib.ReasoningEffort.MEDIUM)


def rendered(lib: Any, oracle: Any, role: str, content: Any, functions: bool) -> list[int]:
    message = lib.Message.from_role_and_content(lib.Role(role), content)
    return list(oracle.render(message, lib.RenderOptions(conversation_has_function_tools=functions)))


@pytest.mark.parametrize("functions", [False, True])
def test_trained_tools_are_declared_as_by_the_library(real: Tokenizer, oracle: Any, functions: bool) -> None:
    import openai_harmony as lib

    wanted = system(lib).with_browser_tool().with_python_tool()
    tools = [*reversed(TOOLS.values()), *([WEATHER] if functions else [])]
    prompt = Renderer(real).render(Conversation([], tools))
    theirs = rendered(lib, oracle, "system", wanted, functions)
    assert real.decode(prompt).startswith(real.decode(theirs))
    assert prompt[: len(theirs)] == theirs
    assert ("<|start|>developer" in real.decode(prompt)) == functions


def test_namespaces_are_declared_as_by_the_library(real: Tokenizer, oracle: Any) -> None:
    import openai_harmony as lib

    spawn = lib.ToolDescription.new("spawn", SPAWN.description, SPAWN.parameters)
    space = lib.ToolNamespaceConfig(name="agents", description="Helpers.\nMany.", tools=[spawn])
    developer = lib.DeveloperContent.new().with_tools(space)
    told = {"agents": "Helpers.\nMany."}
    theirs = real.decode(rendered(lib, oracle, "developer", developer, True))
    assert theirs in real.decode(Renderer(real).render(Conversation([], [SPAWN], namespaces=told)))
    ours = real.decode(Renderer(real).render(Conversation([], [WEATHER, SPAWN], namespaces=told)))
    section = theirs.partition("# Tools")[2]
    assert f"}} // namespace functions{section}" in ours
    assert "must go to the commentary channel: 'functions', 'agents'." in ours


def test_a_tool_that_takes_text_is_told_with_its_grammar(small: Tokenizer) -> None:
    assert (
        "// Changes files.\n"
        "// The message is the input itself: plain text, not JSON, by this Lark grammar:\n"
        '// start: "a"\n'
        "// // no more\n"
        "type apply_patch = (_: string) => any;"
    ) in text_of(small, Conversation([], [PATCH]))


CALLS = [
    (Call("c", "agents.spawn", "{}"), "commentary to=agents.spawn <|constrain|>json", "agents.spawn"),
    (Call("c", "apply_patch", "*** B", text=True), "commentary to=functions.apply_patch", None),
    (
        Call("c", "browser.find", "{}", builtin=True),
        "analysis to=browser.find <|constrain|>json",
        "browser.find",
    ),
    (Call("c", "python", "1+1", text=True, builtin=True), "analysis to=python <|constrain|>code", "python"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "header", "author"), CALLS, ids=lambda each: str(each)[:30])
def test_calls_and_results_of_all_kinds(small: Tokenizer, call: Call, header: str, author: str) -> None:
    text = text_of(small, Conversation([assistant(None, None, call), result("c", "done")]))
    author = author or f"functions.{call.name}"
    assert text == (
        f"<|start|>assistant<|channel|>{header}<|message|>{call.arguments}<|call|>"
        f"<|start|>{author} to=assistant<|channel|>{call.channel}<|message|>done<|end|><|start|>assistant"
    )


@pytest.mark.parametrize(("call", "header", "author"), CALLS, ids=lambda each: str(each)[:30])
def test_what_is_declared_is_read_without_a_recovery(
    small: Tokenizer, call: Call, header: str, author: str
) -> None:
    tools = [Tool(call.name, text=call.text, builtin=call.builtin)]
    tokens = small.encode_with_specials(f"<|channel|>{header}<|message|>{call.arguments}<|call|>")
    reader = Reader(small, None, tools)
    deltas = [delta for token in tokens for delta in reader.feed(token)]
    assert deltas[0] == CallStart(0, call.name)
    assert "".join(each.arguments for each in deltas if isinstance(each, CallDelta)) == call.arguments
    assert reader.recoveries == 0
    stranger = Reader(small)
    for token in tokens:
        stranger.feed(token)
    assert stranger.recoveries == (author is not None)


def test_names_keep_apart_what_a_client_keeps_apart() -> None:
    declared = ["get", ToolName("get", "my-hub"), ToolName("get", "my.hub"), ToolName("get", "functions")]
    declared += ["my_hub.get", "browser.search", ToolName("python", "python"), ToolName("1 x", "1")]
    names = FunctionNames(declared, builtin=["browser.search"])
    inside = [names.to_model(each) if isinstance(each, str) else names.to_model(each.name, each.namespace)
              for each in declared]  # fmt: skip
    assert len(set(inside)) == len(declared)
    assert inside[:2] == ["get", "my_hub.get"]
    assert inside[5] == "browser.search"
    assert all(name.count(".") <= 1 for name in inside)
    assert not any(name.startswith(("functions.", "python.")) for name in inside)
    for name, each in zip(inside, declared, strict=True):
        assert names.to_client(name) == (ToolName(each) if isinstance(each, str) else each)


def test_a_preamble_is_no_answer(small: Tokenizer) -> None:
    history = [user("a"), assistant(None, "thought"), Message("assistant", "Wait.", preamble=True), user("b")]
    text = text_of(small, Conversation(history))
    assert "<|channel|>analysis<|message|>thought<|end|>" in text
    assert "<|channel|>commentary<|message|>Wait.<|end|>" in text
