"""POST /v1/responses as clients see it: items, events, and the prompt made from the input."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import EngineDied, QueueFull
from server import streaming
from server.api.responses import answer
from server.settings import Settings
from tests.server.api.responses.response_events import ADD, ask, events_of, joined, shape
from tests.server.fakes import Pause, call, final, live, prompt_text
from tests.soups import arriving, sizes, soups, tokens_of

PREAMBLE = "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant"
SPAWN = {"type": "function", "name": "spawn-one", "parameters": {"type": "object", "properties": {}}}
SPACE = {"type": "namespace", "name": "multi_agent_v1", "description": "Helpers.", "tools": [SPAWN]}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Patches."}
PYTHON = {
    "type": "function",
    "name": "python",
    "parameters": {"type": "object", "properties": {"code": {"type": "string"}}},
}
SHELL = {"type": "shell"}


def text_call(header, text):
    return f"<|channel|>{header}<|message|>{text}<|call|>"


ANSWERS = {
    "an answer": (final("Grüße 👋", "Hm."), [], [("reasoning", "Hm."), ("final_answer", "Grüße 👋")]),
    "a call": (
        call("add", '{"a": 1}', "Add."),
        [ADD],
        [("reasoning", "Add."), (None, "add", '{"a": 1}')],
    ),
    "a preamble": (
        PREAMBLE + call("add", "{}", "Now."),
        [ADD],
        [("commentary", "Let me see."), ("reasoning", "Now."), (None, "add", "{}")],
    ),
    "a namespace": (
        text_call("commentary to=multi_agent_v1.spawn_one <|constrain|>json", "{}"),
        [SPACE],
        [("multi_agent_v1", "spawn-one", "{}")],
    ),
    "a custom tool": (
        text_call("commentary to=functions.apply_patch", '*** "Begin"\n'),
        [PATCH],
        [("apply_patch", '*** "Begin"\n')],
    ),
    "python": (
        text_call("analysis to=python <|constrain|>code", 'print("é")\n'),
        [PYTHON],
        [(None, "python", '{"code":"print(\\"\\u00e9\\")\\n"}')],
    ),
    "a shell": (
        call("shell", '{"commands": ["ls"], "timeout_ms": 5}'),
        [SHELL],
        [("shell_call", {"commands": ["ls"], "timeout_ms": 5, "max_output_length": None})],
    ),
    "a local shell": (
        call("local_shell", '{"command": ["ls", "-l"], "working_directory": "/"}'),
        [{"type": "local_shell"}],
        [
            (
                "local_shell_call",
                {
                    "type": "exec",
                    "command": ["ls", "-l"],
                    "env": {},
                    "timeout_ms": None,
                    "working_directory": "/",
                    "user": None,
                },
            )
        ],
    ),
    "a patch": (
        call("apply_patch", '{"type": "update_file", "path": "a.py", "diff": "@@"}'),
        [{"type": "apply_patch"}],
        [("apply_patch_call", {"type": "update_file", "path": "a.py", "diff": "@@"})],
    ),
    "a browser": (
        text_call("analysis to=browser.search", '{"query": "x"}'),
        [{"type": "function", "name": "browser.search"}],
        [(None, "browser.search", '{"query": "x"}')],
    ),
    "a browser in a namespace": (
        text_call("analysis to=browser.search", '{"query": "x"}'),
        [{"type": "namespace", "name": "browser", "tools": [{"type": "function", "name": "search"}]}],
        [("browser", "search", '{"query": "x"}')],
    ),
    "an unknown function": (call("nothing", "{oops"), [ADD], [(None, "nothing", "{oops")]),
    "nothing": ("<|channel|>final<|message|><|return|>", [], [("final_answer", "")]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_items_are_what_the_model_said_streamed_or_not(tiny_tokenizer, name):
    script, tools, wanted = ANSWERS[name]
    with live(tiny_tokenizer, script, cached_tokens=5) as server:
        whole = ask(server, tools=tools)
        events = events_of(server, tools=tools, reasoning={"summary": "auto"})
        assert server.worker.wait_until_idle()
    assert shape(whole["output"]) == wanted
    assert shape(events[-1]["response"]["output"]) == wanted
    for response in (whole, events[-1]["response"]):
        assert (response["status"], response["error"], response["incomplete_details"]) == (
            "completed",
            None,
            None,
        )
        usage = response["usage"]
        assert usage["input_tokens_details"]["cached_tokens"] == 5
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert all(not item.get("summary") for item in whole["output"])
    for item in events[-1]["response"]["output"]:
        if item["type"] == "reasoning":
            assert item["summary"] == [{"type": "summary_text", "text": item["content"][0]["text"]}]


def test_an_answer_cut_short_is_incomplete(tiny_tokenizer):
    with live(tiny_tokenizer, final("long", "thought")) as server:
        for tokens in (3, 10, 15, 37):
            whole = ask(server, max_output_tokens=tokens)
            last = events_of(server, max_output_tokens=tokens)[-1]
            assert last["type"] == "response.incomplete"
            for response in (whole, last["response"]):
                assert response["status"] == "incomplete"
                assert response["incomplete_details"] == {"reason": "max_output_tokens"}
                assert all(item["status"] in ("completed", "incomplete") for item in response["output"])
    assert whole["output"][-1]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("error", "code"), [(EngineDied(), "server_error"), (QueueFull(9), "rate_limit_exceeded")]
)
def test_a_failure_after_the_first_byte_is_response_failed(tiny_tokenizer, error, code):
    with live(tiny_tokenizer, ["<|channel|>final<|message|>Hal", Pause(0.05), error]) as server:
        events = events_of(server)
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == code
    assert events[-1]["response"]["status"] == "failed"


def test_a_silent_stream_lives_by_events_and_not_by_comments(tiny_tokenizer, monkeypatch):
    assert answer.HEARTBEAT_SECONDS < streaming.PING_SECONDS <= 10  # so each ping is an event
    monkeypatch.setattr("server.streaming.PING_SECONDS", 0.05)
    monkeypatch.setattr("server.api.responses.answer.HEARTBEAT_SECONDS", 0.01)
    with live(tiny_tokenizer, [Pause(0.5), final("late")]) as server:
        events = events_of(server)
    kinds = [event["type"] for event in events]
    assert kinds.count("response.in_progress") > 2
    assert kinds.index("response.output_item.added") > 3


@pytest.mark.parametrize("background", [False, True])
def test_no_sign_of_life_comes_between_the_end_and_its_event(tiny_tokenizer, monkeypatch, background):
    """The last event waits until the response is stored, which may take long; it has its number before."""
    monkeypatch.setattr("server.streaming.PING_SECONDS", 0.05)
    monkeypatch.setattr("server.api.responses.answer.HEARTBEAT_SECONDS", 0.01)
    with live(tiny_tokenizer, final("late", "Hm.")) as server:
        slowly = lambda *_, **__: asyncio.ensure_future(asyncio.sleep(0.4))  # noqa: E731
        monkeypatch.setattr(server.app.state.service.store, "save", slowly)
        events = events_of(server, background=background)  # which checks their numbers
    assert events[-1]["type"] == "response.completed"


def test_log_probabilities_go_with_their_text(tiny_tokenizer):
    with live(tiny_tokenizer, final("Héy", "Hm.")) as server:
        whole = ask(server, top_logprobs=2)["output"][-1]["content"][0]
        events = events_of(server, include=["message.output_text.logprobs"], top_logprobs=2)
    assert b"".join(bytes(each["bytes"]) for each in whole["logprobs"]).decode() == "Héy"
    assert all(len(each["top_logprobs"]) == 2 for each in whole["logprobs"])
    assert events[-1]["response"]["output"][-1]["content"][0]["logprobs"] == whole["logprobs"]


def test_the_input_becomes_the_conversation(tiny_tokenizer):
    items = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        {"type": "reasoning", "id": "rs_unknown", "summary": [{"type": "summary_text", "text": "Think."}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 2}'},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "3"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "***"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "Done"},
    ]
    with live(tiny_tokenizer, final("ok")) as server:
        ask(server, input=items, tools=[ADD, PATCH, {"type": "web_search", "external_web_access": False}])
        prompt = prompt_text(server).split("<|end|>", 1)[1]
    assert prompt.startswith("<|start|>developer<|message|># Instructions\n\nBe kind.\n\n# Tools")
    assert prompt.split("// namespace functions<|end|>")[1] == (
        "<|start|>developer<|message|># Instructions\n\nBe brief.<|end|>"
        "<|start|>user<|message|>ab<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Think.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>"
        '{"a": 2}<|call|>'
        "<|start|>functions.add to=assistant<|channel|>commentary<|message|>3<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.apply_patch<|message|>***<|call|>"
        "<|start|>functions.apply_patch to=assistant<|channel|>commentary<|message|>Done<|end|>"
        "<|start|>assistant"
    )


def test_an_output_without_the_id_of_a_call_goes_by_the_name_of_the_function(tiny_tokenizer):
    items = [
        {"type": "function_call_output", "name": "add", "output": "3"},
        {"type": "function_call_output", "name": "spawn-one", "namespace": "multi_agent_v1", "output": "4"},
    ]
    with live(tiny_tokenizer, final("ok")) as server:
        ask(server, input=items, tools=[ADD, SPACE])
        assert prompt_text(server).endswith(
            "<|start|>functions.add to=assistant<|channel|>commentary<|message|>3<|end|>"
            "<|start|>multi_agent_v1.spawn_one to=assistant<|channel|>commentary<|message|>4<|end|>"
            "<|start|>assistant"
        )


def test_a_call_that_has_lost_its_namespace_is_rendered_with_it(tiny_tokenizer):
    called = {"type": "function_call", "call_id": "c", "name": "spawn-one", "arguments": "{}"}
    with live(tiny_tokenizer, final("ok")) as server:
        ask(server, input=[called], tools=[ADD, SPACE])
        assert "to=multi_agent_v1.spawn_one " in prompt_text(server)
        ask(server, input=[called], tools=[ADD, SPACE, {**SPACE, "name": "other"}])  # whose is it?
        assert "to=functions.spawn_one" in prompt_text(server)


BROWSER = [
    [{"type": "function", "name": "browser.search"}, {"type": "function", "name": "browser.open"}],
    [{"type": "namespace", "name": "browser", "description": "Theirs.",
      "tools": [{"type": "function", "name": "search"}, {"type": "function", "name": "open"}]}],
]  # fmt: skip


@pytest.mark.parametrize("spelled", [0, 1], ids=["functions", "a namespace"])
def test_what_the_model_was_trained_on_is_told_and_called_as_in_training(tiny_tokenizer, spelled):
    sampled = text_call("analysis to=browser.search", '{ "query":"x"}')
    with live(tiny_tokenizer, sampled) as server:
        tools = [*BROWSER[spelled], PYTHON]
        (asked,) = ask(server, tools=tools)["output"]
        history = [
            {"role": "user", "content": "hi"},
            asked,
            {"type": "function_call_output", "call_id": asked["call_id"], "output": "[1] A page."},
            {"type": "function_call", "call_id": "c", "name": "python", "arguments": '{"code": "print(1)"}'},
            {"type": "function_call_output", "call_id": "c", "output": "1"},
        ]
        ask(server, tools=tools, input=history)
        system, *rest = prompt_text(server).split("<|end|>", 1)
    assert "# Tools\n\n## browser\n\n// Tool for browsing." in system
    assert "type search = (_: {" in system
    assert "type find" not in system
    assert "## python\n\nUse this tool to execute Python code in your chain of thought." in system
    assert "commentary channel:" not in system  # that is for functions
    assert rest == [
        "<|start|>user<|message|>hi<|end|>"
        f"<|start|>assistant{sampled}"
        "<|start|>browser.search to=assistant<|channel|>analysis<|message|>[1] A page.<|end|>"
        "<|start|>assistant<|channel|>analysis to=python <|constrain|>code<|message|>print(1)<|call|>"
        "<|start|>python to=assistant<|channel|>analysis<|message|>1<|end|>"
        "<|start|>assistant"
    ]


def test_the_model_is_told_of_an_image_that_it_called_for(tiny_tokenizer):
    """Codex has a tool that views images.  An error would end its session, because the image stays in the
    history.
    """
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    items = [
        {"type": "function_call", "call_id": "c", "name": "view_image", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c",
         "output": [image, {"type": "input_text", "text": " a.png"}]},
        {"type": "custom_tool_call", "call_id": "d", "name": "read", "input": "a.pdf"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_file"}]},
    ]  # fmt: skip
    with live(tiny_tokenizer, final("ok")) as server:
        ask(server, input=items)
        prompt = prompt_text(server)
    assert "<|message|>[an image, which this model cannot see] a.png<|end|>" in prompt
    assert "<|message|>[a file, which this model cannot read]<|end|>" in prompt
    assert "AAAA" not in prompt


def test_instructions_come_first(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server:
        ask(server, instructions="Rhyme.", input=[{"role": "system", "content": "S"}])
        assert "# Instructions\n\nRhyme.<|end|><|start|>developer<|message|># Instructions\n\nS<|end|>" in (
            prompt_text(server)
        )


def test_a_search_that_is_declared_is_named_in_a_warning_and_not_told(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server:
        answer = server.http.post("/v1/responses", json={"input": "hi", "tools": [{"type": "web_search"}]})
        assert answer.status_code == 200
        assert "web_search" in answer.headers["warning"]
        assert "search" not in prompt_text(server)
        many = [{"type": f"web_search_{year}_08_26"} for year in range(2000, 2300)]
        answer = server.http.post("/v1/responses", json={"input": "hi", "tools": many})
        assert answer.status_code == 200
        assert len(answer.headers["warning"]) < 500


pieces = [
    " to=functions.add",
    " to=python",
    "user",
    "json",
    "analysis",
    " to=multi_agent_v1.spawn_one",
    '{"a":',
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    soup=st.lists(soups | st.lists(st.sampled_from(pieces), min_size=1, max_size=2), max_size=4),
    sizes=sizes,
    limit=st.integers(1, 60),
    stop=st.lists(st.sampled_from(["ab", "é", "{"]), max_size=1),
    more=st.lists(
        st.sampled_from(["reasoning.encrypted_content", "message.output_text.logprobs"]), unique=True
    ),
)
def test_any_token_soup_gives_a_valid_stream_and_the_same_object(
    tiny_tokenizer, soup, sizes, limit, stop, more
):
    ids = tokens_of(tiny_tokenizer, [piece for pieces in soup for piece in pieces])
    body = {"tools": [ADD, SPACE, PATCH, PYTHON, SHELL], "max_output_tokens": limit, "stop": stop,
            "reasoning": {"summary": "auto"}, "include": more, "store": False}  # fmt: skip
    with live(tiny_tokenizer, arriving(ids, sizes)) as server:
        events = events_of(server, **body)  # which checks that they are valid, and joined
        whole = ask(server, **body)
    assert shape(joined(events)) == shape(whole["output"])
    last = events[-1]["response"]
    assert (last["status"], last["usage"]) == (whole["status"], whole["usage"])
    for item, other in zip(last["output"], whole["output"], strict=True):
        if item["type"] == "message":
            assert item["content"] == other["content"]  # with its log-probabilities
        if item["type"] == "reasoning" and "reasoning.encrypted_content" in more:
            assert item["encrypted_content"].startswith("gs1.")


def test_there_are_only_so_many_jobs(tiny_tokenizer):
    few = Settings(max_queued=2)
    body = {"input": "hi", "background": True}
    with live(tiny_tokenizer, [Pause(30), final("x")], settings=few) as server:
        ids = [server.http.post("/v1/responses", json=body).json()["id"] for _ in range(2)]
        refused = server.http.post("/v1/responses", json=body)
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        server.http.post(f"/v1/responses/{ids[0]}/cancel")
        assert server.http.post("/v1/responses", json=body).status_code == 200
        for job in list(server.app.state.jobs._jobs):
            server.http.post(f"/v1/responses/{job}/cancel")
