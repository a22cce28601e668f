"""The types of the corpus: a Sample is a conversation, and the one answer that the demo model should give.

Answers have low entropy on purpose: each is determined by the question, so the model works at temperature 1,
the API's default, and an evaluation can expect the exact answer.

Whether a sample is held out depends on a hash of its `key`, the part that makes it new (the two numbers, the
name, the text to copy ...).  The same keys are held out with every seed, and training never sees them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from random import Random

from language.harmony.messages import Conversation, Effort, Message, ResponseFormat, Tool

HELD_OUT_SHARE = 0.06


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """arguments  compact JSON, keys in the order of the function's schema"""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer: either `final` or `call`; `analysis` is None if the effort is "none"."""

    analysis: str | None
    final: str | None = None
    call: FunctionCall | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """The part of a conversation that the samples of one batch share, so that their prompts begin equally."""

    date: str
    effort: Effort
    tools: bool


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The last turn, which a family generates; history and instructions are put before it.

    key       decides whether the sample is held out
    tools     functions the dialogue needs declared; others may be declared beside them
    fresh     whether no earlier turns may come first
    """

    messages: tuple[Message, ...]
    answer: Answer
    key: str
    tools: tuple[Tool, ...] = ()
    response_format: ResponseFormat | None = None
    instructions: str | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    family: str
    conversation: Conversation
    answer: Answer
    key: str = field(compare=False)


def held_out(key: str) -> bool:
    """Whether the samples of this key are kept from training."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def listed(text: str) -> list[str]:
    """The words of a text, on any number of lines."""
    return text.split()


def phrases(text: str) -> list[str]:
    """The phrases between the bars of a text, on any number of lines."""
    return [" ".join(phrase.split()) for phrase in text.split("|")]


def table(text: str) -> dict[str, str]:
    """The pairs `key=value` between the bars of a text."""
    pairs = (phrase.partition("=") for phrase in phrases(text))
    return {key: value for key, _, value in pairs}


def ask(text: str) -> tuple[Message, ...]:
    """A turn that is one message of the user."""
    return (Message("user", text),)


def thought(effort: Effort, low: str, medium: str, high: str) -> str | None:
    """The analysis for the effort: longer for "high", none for "none"."""
    return {"none": None, "low": low, "medium": medium, "high": high}[effort]


_BEFORE = phrases("""
    Please | please | Can you tell me, | Hi, | Hello! | ok, | Hey, | Now, | So, | hi | Quick question: |
    Excuse me, | Ok so | Hello, | hey | And | I wonder, | pls | Could you tell me: | One question: | Good
    morning! | Thanks. Now, | Next question: | Well, | Hi there! | Tell me:
""")
_AFTER = phrases("""
    please | , please | thanks | , thanks | pls | plz | ? thanks | , thank you | for me | ? please
""")


def varied(rng: Random, template: str) -> str:
    """The template as people type it: with variations of case, punctuation and politeness, or a typing error.
    Slots are not changed.
    """
    text = template
    if rng.random() < 0.1:
        text = mistyped(rng, text)
    if rng.random() < 0.16 and text[0] != "{":
        text = f"{rng.choice(_BEFORE)} {text[0].lower() + text[1:]}"
    roll = rng.random()
    if roll < 0.12:
        text = text[0].lower() + text[1:]
    elif roll < 0.24:
        text = text.lower()
    elif roll < 0.25:
        text = _loud(text)
    if rng.random() < 0.3 and text[-1] in ".?!":
        text = text[:-1]
        if rng.random() < 0.2:
            after = rng.choice(_AFTER)
            text += after if after[0] in ",?" else f" {after}"
    elif rng.random() < 0.06 and text[-1] in ".?":
        text = text[:-1] + rng.choice(["!", "??", " ?", "...", " please" + text[-1], ", please" + text[-1]])
    elif rng.random() < 0.04 and text[-1] not in ".?!":
        text += rng.choice(["?", " ?", ".", "!"])
    return text


def mistyped(rng: Random, text: str) -> str:
    """The text with one typing error in a longer word: letters swapped, omitted, doubled, or replaced by a
    neighbour on the keyboard.
    """
    words = text.split(" ")
    long = [place for place, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long:
        return text
    place = rng.choice(long)
    word = words[place]
    at = rng.randrange(1, len(word) - 1)
    words[place] = rng.choice(
        [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :],
        ]
    )
    return " ".join(words)


def _loud(text: str) -> str:
    """The text in capitals, except for the slots."""
    return "".join(part if part.startswith("{") else part.upper() for part in re.split(r"(\{\w*\})", text))
