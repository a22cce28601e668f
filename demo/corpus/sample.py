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

from demo.wordings import normal
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
    alone     whether no other functions may be declared
    """

    messages: tuple[Message, ...]
    answer: Answer
    key: str
    tools: tuple[Tool, ...] = ()
    response_format: ResponseFormat | None = None
    instructions: str | None = None
    fresh: bool = False
    alone: bool = False


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
    morning! | Thanks. Now, | Next question: | Well, | Hi there! | Tell me: | Good evening, | Good
    afternoon, | Hello there, | Hello bot, | Hi, how are you? | Hey there, | Just curious: | Sorry, | Good
    day, | Yo, | Hello again. | Thank you! And | Great. | Nice, | Dear model, | Hey bot, | I'm new here. |
    Test: | Help me: | Again: | First, | Last question: |
    I need to know: | Just tell me: | Quick one: | Serious question: | Random question: | Ok next: | Hm, |
    Alright, | Right, | Oh, | Homework: | One more thing: | And now: | Hi again, | Also, | By the way, |
    Hello friend, | I forgot: | My son asks: | Question:
""")
_AFTER = phrases("""
    please | , please | thanks | , thanks | pls | plz | ? thanks | , thank you | for me | ? please |
    , I forgot | ? I don't know | , if you can | ? quick | ? I forgot | , friend | ? thx | ? just curious
""")


_CHAT = table("""
    you=u | your=ur | are=r | please=pls | thanks=thx | what=wat | great=gr8 | later=l8r |
    tomorrow=tmrw | something=smth | people=ppl | know=kno | have=hav | the=teh | because=cuz | good=gud |
    what's=wats | with=w | that=dat | okay=k | really=rly | see=c | why=y | nice=nais | hello=ello |
    how=hw | this=dis | been=bin | message=msg | about=abt | anyone=any1 | someone=some1 | does=dose
""")


def loosely(rng: Random, text: str) -> str:
    """Two words drawn together (what's, I'm), or one or all of a chat's short forms (u, pls)."""
    if rng.random() < 0.6:
        text = re.sub(r"\b(what|how|who|it|that|there|here|where) is(?= \w)", r"\1's", text, flags=re.I)
        text = re.sub(r"\b(you|we) are(?= \w)", r"\1're", text, flags=re.I)
        return re.sub(r"\bI am(?= \w)", "I'm", text).replace("o not ", "on't ").replace("cannot", "can't")
    words = text.split(" ")
    short = [place for place, word in enumerate(words) if word.lower() in _CHAT]
    if short and rng.random() < 0.5:
        short = [rng.choice(short)]
    for place in short:
        words[place] = _CHAT[words[place].lower()]
    return " ".join(words)


def typed(rng: Random, text: str) -> str:
    """The text as people type it: with variations of case and punctuation, short forms, or typing errors."""
    if rng.random() < 0.3:
        text = loosely(rng, text)
    if rng.random() < 0.12:
        text = mistyped(rng, text)
    roll = rng.random()
    if roll < 0.36:
        text = text.lower()
    elif roll < 0.42:
        text = text[0].lower() + text[1:]
    elif roll < 0.43:
        text = _loud(text)
    roll = rng.random()
    if roll < 0.1:
        text = re.sub(r"(?<=\w)[',](?=\w| )", "", text).rstrip(".?!") or text
    elif roll < 0.3:
        text = text.rstrip(".?!") or text
    elif roll < 0.4:
        text = (text.rstrip(".?!") or text) + rng.choice(_ENDS)
    return text


_ENDS = [
    "!",
    "??",
    " ?",
    "...",
    "!!",
    " !",
    ".",
    "?!",
    "!!!",
    " :)",
    " ;)",
    " :-)",
    "..",
    "????",
    " :D",
    ",",
    " 😊",
    " 👋",
]


def phrase_key(composed: str, asked: str, common: frozenset[str] = frozenset()) -> str:
    """What holds out a composed asking: the whole phrase, however it is typed.

    Common phrases, which everybody uses, are never held out, and one or two words only if they are misspelt.
    """
    phrase = normal(composed)
    if phrase in common or phrase.count(" ") < 2:
        return "" if normal(asked) == phrase else asked
    return phrase


def varied(rng: Random, template: str) -> str:
    """The template as people type it: with variations of case, punctuation and politeness, or a typing error.
    Slots are not changed.
    """
    text = loosely(rng, template) if rng.random() < 0.1 else template
    if rng.random() < 0.1:
        text = mistyped(rng, text)
    if rng.random() < 0.16 and text[0] != "{":
        text = f"{rng.choice(_BEFORE)} {text[0].lower() + text[1:]}"
    roll = rng.random()
    if roll < 0.12:
        text = text[0].lower() + text[1:]
    elif roll < 0.24:
        text = text.lower()
    elif roll < 0.245:
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


def up_to_the_slot(template: str, phrase: str) -> str:
    """The template without what was added to its phrase after a slot at the end: it would be part of the text
    in the slot.
    """
    return template[: template.rindex("}") + 1] if phrase.endswith("}") else template


_BESIDE = {
    letter: row[max(0, place - 1) : place] + row[place + 1 : place + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for place, letter in enumerate(row)
}
"""The letters left and right of each on a keyboard."""


def mistyped(rng: Random, text: str) -> str:
    """The text with one typing error in a longer word: letters swapped, omitted, doubled, or, if other words
    help to guess it, replaced by a letter beside it on the keyboard.
    """
    words = text.split(" ")
    long = [place for place, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long:
        return text
    place = rng.choice(long)
    word = words[place]
    at = rng.randrange(1, len(word) - 1)
    errors = [
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + rng.choice(_BESIDE.get(word[at], word[at])) + word[at + 1 :],
    ]
    words[place] = rng.choice(errors if len(words) > 1 else errors[:3])
    return " ".join(words)


def _loud(text: str) -> str:
    """The text in capitals, except for the slots."""
    return "".join(part if part.startswith("{") else part.upper() for part in re.split(r"(\{\w*\})", text))
