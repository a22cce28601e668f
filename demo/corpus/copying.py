"""Repeating the user's text."""

from __future__ import annotations

import re
from random import Random

from demo.corpus import words
from demo.corpus.sample import (
    Answer,
    Dialogue,
    Setting,
    ask,
    listed,
    mistyped,
    phrases,
    thought,
    up_to_the_slot,
    varied,
)

_REPEAT = phrases("""
    Repeat after me: {} | Repeat: {} | Say {} | Say "{}" | Repeat exactly: {} | Echo: {} | Copy this: {} |
    Please say: {} | Please repeat the following text: {} | Say: {} | Repeat this: {} | Repeat the
    following: {} | echo {} | Repeat this text exactly: {} | Repeat "{}" | Copy the following text: {} |
    Reply with {} | Reply with exactly "{}" | Answer with: {} | Type this: {} | Just say {} | Can you say
    {}? | Can you repeat: {} | Repeat this sentence: {} | Say the following: {} | Reply only with: {} |
    Respond with {} | repeat {} | say {} | Could you repeat this: {} | Could you say {}? | I want you to
    say: {} | Now say: {} | Parrot this: {} | Send back: {} | Say this back to me: {} | Say exactly this:
    {} | copy: {} | echo: {} | Answer only with {} | Repeat what I say: {} | Reply: {} | Write this down:
    {} | Print this: {} | Write exactly: {} | Return the following: {} | Repeat after me, {} | Please just
    repeat {} | Write the following: {} | Say the words {} | Repeat these words: {} | Repeat the text {} |
    Write the words {} | Repeat the sentence {} | Say it after me: {}
""")
_REPEAT_WORD = phrases("""
    Say the word {}. | Repeat the word {}. | Write the word {}. | Say the word {} and nothing else. | Say
    {}. | Repeat {}. | Please say {}. | Reply with the word {}. | Just say the word {}. | Say just {}. |
    say only {} | Say {} please. | Repeat the word {} for me. | Can you say the word {}? | Now say {}. |
    Respond with the single word {}. | Answer with one word: {} | Please repeat the word {}. | Type the
    word {}.
""")
_KINDLY = phrases("please | please | pls | for me | exactly | now | once | plz | again | word for word")
"""What may stand before the colon."""
_WORD_BEFORE = re.compile(r"(\w+) \{")
_COMMON = listed("hi hello hey yes no goodbye ok Paris cheese banana test thanks ping pong")


def copying(rng: Random, setting: Setting) -> Dialogue:
    """Repeat a text exactly."""
    if rng.random() < 0.25:
        text = words.code(rng) if rng.random() < 0.3 else words.word(rng)
        if rng.random() < 0.15:
            text = rng.choice(_COMMON)
        phrase = rng.choice(_REPEAT_WORD)
        while _runs_into_the_slot(template := up_to_the_slot(varied(rng, phrase), phrase), phrase):
            pass
        question = template.format(text)
    else:
        text = words.text(rng)
        phrase = rng.choice(_REPEAT)
        if phrase.endswith("{}?"):
            text = text.rstrip(".?!")
        question = _courteous(rng, phrase).format(text)
    analysis = thought(
        setting.effort,
        "Repeat.",
        "The user wants me to repeat a text.",
        f"The user wants me to repeat a text exactly. The text is: {text}",
    )
    return Dialogue(ask(question), Answer(analysis, text), key=text)


def foreign_request(rng: Random) -> str:
    """A request to repeat a text in other letters than Latin ones, which the model has not learned."""
    return _courteous(rng, rng.choice(_REPEAT)).format(words.foreign(rng))


def _courteous(rng: Random, phrase: str) -> str:
    template = phrase
    if rng.random() < 0.15:
        template = re.sub(r"(?<=\w)(?=[:,] \{)", f" {rng.choice(_KINDLY)}", template)
    roll = rng.random()
    if roll < 0.06 and not _runs_into_the_slot(wrong := mistyped(rng, template), phrase):
        template = wrong
    if roll < 0.2:
        return template[0].lower() + template[1:]
    return (
        "Please " + template[0].lower() + template[1:]
        if roll < 0.28 and not template.startswith("Please")
        else template
    )


def _runs_into_the_slot(template: str, phrase: str) -> bool:
    """Whether the word just before the slot is not spelt as in the phrase, and may be taken for a part of the
    text: "say ongy monkey".
    """
    return _WORD_BEFORE.findall(template.lower()) != _WORD_BEFORE.findall(phrase.lower())
