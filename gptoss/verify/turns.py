"""Sampled turns: do they follow harmony's format, end by themselves, and have valid arguments in calls?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from engine.request import SamplingParams
from gptoss.llm import LLM
from gptoss.verify.published import Published
from gptoss.verify.rows import Row, info, judged
from language.harmony.messages import Conversation, Message, Tool
from language.harmony.reader import CallDelta, Delta
from server.dialogue.answer import AnswerReader
from server.dialogue.turn import Turn

LONGEST = 2048
"""Maximum tokens of an answer; one that reaches it did not end by itself."""

ASKED = (
    "Hello! What can you do?",
    "What is the capital of France?",
    "What is 12 + 7?",
    "Name three colours.",
    "My name is Ada. What is my name?",
    "Repeat after me: good morning",
    "What day comes after Monday?",
    "Tell me a joke.",
    "What is the weather in Paris?",
    "Is it warm in Oslo? Use celsius.",
)

WEATHER = Tool(
    "get_weather",
    "Get the current weather in a given location",
    {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["location"],
    },
)

ENDS = 0.9
"""Minimum share of answers that end by themselves."""

REPAIRED_AT_MOST = 3.0
"""The share of repaired turns may be at most this many times the published one."""


@dataclass(frozen=True, slots=True)
class SampledTurns:
    """The results of some turns.

    repaired  number of turns that deviated from the format
    ended     number of turns that ended by themselves
    calls     arguments of the calls, as the model wrote them
    lengths   tokens of each answer
    """

    turns: int
    repaired: int
    ended: int
    calls: tuple[str, ...]
    lengths: tuple[int, ...]


def check_turns(llm: LLM, known: Published | None, count: int, seed: int = 1) -> Iterator[Row]:
    """count  number of turns of each kind"""
    free = sample_turns(llm, conversations(llm, count, ()), seed, constrained=False)
    tools = sample_turns(llm, conversations(llm, count, (WEATHER,)), seed, constrained=False)
    for name, spoken in (("without tools", free), ("with a tool", tools)):
        found = f"{spoken.repaired} of {spoken.turns} turns"
        about = f"harmony repaired, {name}"
        if known is None or known.repaired is None:
            yield info(about, found)
        else:
            limit = REPAIRED_AT_MOST * known.repaired
            yield judged(about, f"about {known.repaired:.0%}", found, spoken.repaired <= limit * spoken.turns)
    ended, turns = free.ended + tools.ended, free.turns + tools.turns
    yield judged(
        "answers end by themselves", f"at least {ENDS:.0%}", f"{ended} of {turns}", ended >= ENDS * turns
    )
    held = sample_turns(llm, conversations(llm, count, (WEATHER,)), seed + 1, constrained=True)
    valid = sum(map(valid_call, held.calls))
    found = f"{valid} of {len(held.calls)} calls in {held.turns} turns"
    yield judged("calls follow their schema", "all", found, valid == len(held.calls))
    mean = sum(free.lengths) / len(free.lengths)
    yield info("mean answer at low effort", f"{mean:.0f} tokens")


def conversations(llm: LLM, count: int, tools: Sequence[Tool]) -> list[Conversation]:
    return [
        Conversation([Message("user", ASKED[n % len(ASKED)])], list(tools), effort="low", date=llm.today())
        for n in range(count)
    ]


def sample_turns(llm: LLM, asked: Sequence[Conversation], seed: int, *, constrained: bool) -> SampledTurns:
    """Sample answers at temperature 1.

    constrained  False: without a grammar, to see what the model does by itself
    """
    whole = [
        Turn(
            prompt=conversation,
            max_tokens=LONGEST,
            sampling=SamplingParams(temperature=1.0, seed=seed + place),
        )
        for place, conversation in enumerate(asked)
    ]
    turns = whole if constrained else [replace(turn, prompt=llm.prompt_of(turn)) for turn in whole]
    readers = [AnswerReader(turn, llm.renderer) for turn in whole]
    calls: list[list[str]] = [[] for _ in turns]
    news: list[list[Delta]] = [[] for _ in turns]
    for place, token in llm.run(turns):
        readers[place].add(token, news[place])
    for place, deltas in enumerate(news):
        for delta in deltas:
            if isinstance(delta, CallDelta):
                calls[place].append(delta.arguments)
    return SampledTurns(
        turns=len(turns),
        repaired=sum(reader.recoveries > 0 for reader in readers),
        ended=sum(reader.finish in ("stop", "tool_calls") for reader in readers),
        calls=tuple("".join(each) for each in calls if each),
        lengths=tuple(len(reader.token_ids) for reader in readers),
    )


def valid_call(arguments: str) -> bool:
    """Whether these are valid arguments of WEATHER."""
    try:
        given = json.loads(arguments)
    except ValueError:
        return False
    return (
        isinstance(given, dict)
        and isinstance(given.get("location"), str)
        and given.get("unit", "celsius") in ("celsius", "fahrenheit")
        and given.keys() <= {"location", "unit"}
    )
