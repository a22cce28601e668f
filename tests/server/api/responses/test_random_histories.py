"""Random conversations, sent back in random ways: the prompt has the sampled tokens, and all text of others.

The sampled tokens are unusual, single letters in places.  So a prompt whose text was tokenised again would
differ.
"""

import json
from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss.assembly import DEMO
from language.tokenizer import Tokenizer
from tests.server.api.responses.response_events import ADD
from tests.server.fakes import live
from tests.vocabularies import SPECIALS

SPACE = {
    "type": "namespace",
    "name": "helpers",
    "tools": [{"type": "function", "name": "spawn", "parameters": {"type": "object", "properties": {}}}],
}
TOOLS = [ADD, SPACE, {"type": "custom", "name": "patch"}, {"type": "shell"}]

CALLS = {
    "functions.add": ("commentary to=functions.add", "json", '{"a": 1}'),
    "helpers.spawn": ("commentary to=helpers.spawn", "json", '{ "who" :"me"}'),
    "functions.patch": ("commentary to=functions.patch", "", "*** a patch"),
    "functions.shell": ("commentary to=functions.shell", "json", '{"commands":["ls -l"]}'),
}
"""Recipient → the header of its calls, their type and their contents."""

SLOWLY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
words = st.sampled_from(["hello there", "It is 42.", "Grüße 👋", "a<|end|>b", " \n", "assistant"])


@cache
def tokenizer():
    return Tokenizer(DEMO / "tokenizer.json")


def special(name):
    return tokenizer().special(name)


def heard(header, text, channel=""):
    """A message that the model has not sampled, as tokens."""
    encode = tokenizer().encode
    middle = [special("<|channel|>"), *encode(channel)] if channel else []
    head = [id for piece in header for id in encode(piece)]
    return [special("<|start|>"), *head, *middle, special("<|message|>"), *encode(text), special("<|end|>")]


class Part:
    """A message of the assistant as it is sampled; in `odd` places each letter is a token."""

    def __init__(self, kind, header, text, odd, type=""):
        encode = tokenizer().encode
        self.kind, self.text = kind, text
        cut = odd % (len(text) + 1)
        body = [id for letter in text[:cut] for id in encode(letter)] + encode(text[cut:])
        typed = [*encode(" "), special("<|constrain|>"), *encode(type)] if type else []
        if type:
            typed = [special("<|constrain|>"), *encode(type)]
            header += " "
        self.tokens = [special("<|channel|>"), *encode(header), *typed, special("<|message|>"), *body]

    def in_prompt(self):
        end = special("<|call|>" if self.kind == "call" else "<|end|>")
        return [special("<|start|>"), *tokenizer().encode("assistant"), *self.tokens, end]


def sampled(parts):
    """The tokens that the model samples for them."""
    ids = []
    for i, part in enumerate(parts):
        if i:
            ids += [special("<|end|>"), special("<|start|>"), *tokenizer().encode("assistant")]
        ids += part.tokens
    return [*ids, special("<|call|>" if parts[-1].kind == "call" else "<|return|>")]


@st.composite
def answers(draw, sealed):
    """Random chains of thought and preambles, and then an answer or a call.

    sealed  only what a seal holds is spelled oddly
    """
    odd = st.integers(0, 30)
    plain = st.just(0) if sealed else odd
    parts = []
    for kind in draw(st.sampled_from(["", "a", "ac", "ca", "aca"])):
        if kind == "a":
            parts.append(Part("analysis", "analysis", draw(words), draw(odd)))
        else:
            parts.append(Part("commentary", "commentary", draw(words), draw(plain)))
    to = draw(st.sampled_from(["", *CALLS]))
    if to:
        header, type, text = CALLS[to]
        parts.append(Part("call", header, text, draw(plain), type))
    else:
        parts.append(Part("final", "final", draw(words), draw(plain)))
    return to, parts


def back(item, way, ends_in_call):
    """One of our items as a client sends it back; None: the client drops it."""
    match way:
        case "reference":
            return {"type": "item_reference", "id": item["id"]}
        case "id only" if item["type"] == "reasoning":
            return {"type": "reasoning", "id": item["id"], "summary": []}
        case "left out" if item["type"] == "reasoning" and ends_in_call:
            return None
        case "no id" if ends_in_call and item["type"] in ("reasoning", "function_call", "custom_tool_call"):
            return {key: value for key, value in item.items() if key not in ("id", "status")}
    return item


WAYS = ["whole", "reference", "id only", "left out", "no id"]


@SLOWLY
@given(st.data())
def test_the_prompt_has_what_was_sampled(data):
    mode = data.draw(st.sampled_from(["items", "previous", "conversation", "sealed"]))
    said, scripts, items, prompts = [], [], [], []
    more = {"store": False, "include": ["reasoning.encrypted_content"]} if mode == "sealed" else {}

    def script(request):
        prompts.append(request.prompt)
        return [scripts[-1]]

    with live(tokenizer(), script) as server:
        if mode == "conversation":
            more["conversation"] = server.http.post("/v1/conversations").json()["id"]
        to, call = "", None
        for _ in range(data.draw(st.integers(2, 5))):
            if call is None:
                text = data.draw(words)
                news = [{"role": "user", "content": text}]
                said.append(heard(["user"], text))
            else:
                result = "shell_call_output" if call["type"] == "shell_call" else call["type"] + "_output"
                news = [{"type": result, "call_id": call["call_id"], "output": "done"}]
                said.append(heard([to, " to=assistant"], "done", "commentary"))
            to, parts = data.draw(answers(mode == "sealed"))
            scripts.append(sampled(parts))
            items += news
            sent = items if mode in ("items", "sealed") else news
            response = server.http.post("/v1/responses", json={"input": sent, "tools": TOOLS, **more})
            assert response.status_code == 200, response.text
            response = response.json()
            check(prompts[-1], said)
            if mode == "previous":
                more["previous_response_id"] = response["id"]
            call = response["output"][-1] if to else None
            ways = WAYS if mode == "items" else ["whole"]
            items += [
                each
                for item in response["output"]
                if (each := back(item, data.draw(st.sampled_from(ways)), bool(to))) is not None
            ]
            said.append(parts)


def check(prompt, said):
    """said  tokens of what others said, and the parts of answers, in turns"""
    finals = [i for i, each in enumerate(said) if isinstance(each[0], Part) and each[-1].kind == "final"]
    wanted = []
    for i, each in enumerate(said):
        if isinstance(each[0], Part):
            kept = [part for part in each if part.kind != "analysis" or i > max(finals, default=-1)]
            wanted += [id for part in kept for id in part.in_prompt()]
        else:
            wanted += each
    wanted += [special("<|start|>"), *tokenizer().encode("assistant")]
    assert tokenizer().decode(prompt[-len(wanted) :]) == tokenizer().decode(wanted)
    assert prompt[-len(wanted) :] == wanted


texts = st.text(max_size=20) | st.lists(st.sampled_from([*SPECIALS, "to=x", "\n", "a", "é"])).map("".join)
names = st.sampled_from(["add", "spawn", "a-b", "x.y", "browser.search", "python", "", "é", "functions.add"])
contents = st.one_of(
    texts,
    st.lists(st.builds(lambda text: {"type": "input_text", "text": text}, texts), max_size=3),
)


def text_of(content):
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@st.composite
def foreign(draw):
    """Items from other servers, and how each appears in the prompt: (speaker, text)."""
    items, says, open_calls = [], [], []
    for i in range(draw(st.integers(1, 8))):
        kinds = ["user", "developer", "assistant", "call", "text call", *(["output"] if open_calls else [])]
        match draw(st.sampled_from(kinds)):
            case "call" | "text call" as kind:
                text, id = draw(texts), f"c{i}"
                open_calls.append((id, kind))
                field = "arguments" if kind == "call" else "input"
                type = "function_call" if kind == "call" else "custom_tool_call"
                space = draw(st.sampled_from([{}, {"namespace": "helpers"}, {"namespace": ""}]))
                items.append({"type": type, "call_id": id, "name": draw(names), field: text, **space})
                says.append(("call", text))
            case "output":
                (id, kind), content = draw(st.sampled_from(open_calls)), draw(contents)
                type = "function_call_output" if kind == "call" else "custom_tool_call_output"
                items.append({"type": type, "call_id": id, "output": content})
                says.append(("result", text_of(content)))
            case role:
                content = draw(contents)
                items.append({"role": role, "content": content})
                says.append((role, text_of(content)))
    return items, says


@SLOWLY
@given(foreign())
def test_every_word_of_others_is_in_the_prompt_once_and_where_it_was(tiny_tokenizer, history):
    items, says = history
    with live(tiny_tokenizer, "<|channel|>final<|message|>ok<|return|>") as server:
        answer = server.http.post("/v1/responses", json={"input": items, "store": False})
        assert answer.status_code == 200, answer.text
        prompt = server.worker.requests[-1].prompt
    read = []
    for header, body in messages_of(tiny_tokenizer, prompt)[1:]:
        match header.partition("<|channel|>")[0].partition(" ")[0]:
            case "assistant" if " to=" in header:
                read.append(("call", body))
            case "assistant" | "user" | "developer" as role:
                read.append((role, body.removeprefix("# Instructions\n\n") if role == "developer" else body))
            case _:
                read.append(("result", body))
    empty = [
        ("developer", ""),
        ("assistant", ""),
    ]  # say nothing, so that it does not matter if they are there
    assert [each for each in read if each not in empty] == [each for each in says if each not in empty]


def messages_of(tokenizer, prompt):
    """(header, body) of each complete message, found by control tokens only."""
    start, message = tokenizer.special("<|start|>"), tokenizer.special("<|message|>")
    ends = [tokenizer.special(name) for name in ("<|end|>", "<|call|>")]
    found, at = [], 0
    while message in prompt[at:]:
        assert prompt[at] == start
        body = prompt.index(message, at)
        end = next(i for i in range(body, len(prompt)) if prompt[i] in ends)
        found.append((tokenizer.decode(prompt[at + 1 : body]), tokenizer.decode(prompt[body + 1 : end])))
        at = end + 1
    assert tokenizer.decode(prompt[at:]) == "<|start|>assistant"
    return found


def test_letters_are_spelled_oddly():
    """Otherwise the first test here would prove nothing."""
    part = Part("analysis", "analysis", "hello there", 30)
    assert len(part.tokens) > len(tokenizer().encode("hello there")) + 3
    assert json.dumps(tokenizer().decode(part.tokens)).endswith('hello there"')
