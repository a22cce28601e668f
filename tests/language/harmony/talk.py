"""Messages, tools and whole conversations for tests of prompts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from language.harmony.messages import Call, Conversation, Message, Tool
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer
from tests.vocabularies import SPECIALS


def user(text: str) -> Message:
    return Message("user", text)


def assistant(content: str | None = None, reasoning: str | None = None, *calls: Call) -> Message:
    return Message("assistant", content, reasoning, calls)


def result(call_id: str, text: str) -> Message:
    return Message("tool", text, call_id=call_id)


def text_of(tokenizer: Tokenizer, conversation: Conversation, **options: Any) -> str:
    """The prompt after its system message."""
    prompt = tokenizer.decode(Renderer(tokenizer).render(conversation, **options))
    return prompt.split("<|end|>", 1)[1]


WEATHER = Tool(
    "get_weather",
    "Gets the weather.\nOf a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "A city"},
            "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
            "days": {"type": "integer", "default": 3},
            "tags": {"type": "array", "items": {"type": "string"}},
            "place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
        },
        "required": ["city"],
    },
)


CLOCK = Tool("clock")


ASK = Call("call_1", "get_weather", '{"city": "Paris"}')


TIME = Call("call_2", "clock", "{}")


texts = st.text(max_size=40) | st.lists(st.sampled_from([*SPECIALS, " \n", "a", "to=é"])).map("".join)


words = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,20}", fullmatch=True)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    messages = draw(st.lists(st.builds(Message, st.sampled_from(["system", "developer"]), texts), max_size=2))
    open_calls: list[str] = []
    for i in range(draw(st.integers(0, 8))):
        match draw(st.sampled_from(["user", "assistant", "call", "tool", "developer"])):
            case "call":
                calls = [Call(f"c{i}{k}", draw(words), draw(texts)) for k in range(draw(st.integers(1, 3)))]
                open_calls += [call.id for call in calls]
                messages.append(assistant(draw(texts | st.none()), draw(texts | st.none()), *calls))
            case "tool":
                if open_calls:
                    messages.append(result(draw(st.sampled_from(open_calls)), draw(texts)))
            case "assistant":
                messages.append(assistant(draw(texts.filter(bool)), draw(texts | st.none())))
            case role:
                messages.append(Message(role, draw(texts)))
    tools = draw(st.lists(st.builds(Tool, words, texts), max_size=3))
    return Conversation(messages, tools, draw(st.sampled_from(["none", "low", "medium", "high"])))
