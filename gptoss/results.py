"""What `LLM` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from language.harmony.messages import Call
from language.harmony.reader import CallDelta, CallStart, ContentDelta, Delta, ReasoningDelta
from server.dialogue.answer import AnswerReader


@dataclass(frozen=True, slots=True)
class Usage:
    """Numbers of tokens.

    cached_tokens     prompt tokens that came from the prefix cache
    reasoning_tokens  completion tokens that are chain of thought
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to a conversation.

    reasoning   its chain of thought
    calls       function calls: each has an id, a name, and arguments as the model wrote them
    finish      why it ended: stop, length or tool_calls
    recoveries  number of deviations from the harmony format that were repaired
    """

    content: str
    reasoning: str
    calls: tuple[Call, ...]
    usage: Usage
    finish: str
    recoveries: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """The continuation of a raw prompt.  finish: stop or length."""

    text: str
    token_ids: list[int]
    usage: Usage
    finish: str


def answer_of(deltas: Sequence[Delta], reader: AnswerReader, prompt_tokens: int) -> Answer:
    """The whole answer that these deltas make up."""
    content, reasoning = list[str](), list[str]()
    names, arguments = list[str](), list[list[str]]()
    for delta in deltas:
        match delta:
            case ContentDelta(text):
                content.append(text)
            case ReasoningDelta(text):
                reasoning.append(text)
            case CallStart(_, name):
                names.append(name)
                arguments.append([])
            case CallDelta(index, text):
                arguments[index].append(text)
    calls = [
        Call(id, name, "".join(each)) for id, name, each in zip(reader.calls, names, arguments, strict=True)
    ]
    usage = Usage(prompt_tokens, len(reader.token_ids), reader.cached_tokens, reader.reasoning_tokens)
    return Answer(
        "".join(content), "".join(reasoning), tuple(calls), usage, str(reader.finish), reader.recoveries
    )
