"""Remembering, across turns, a name and a few other things the user said about themselves."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from demo.corpus import words
from demo.corpus.sample import Answer, Dialogue, Setting, ask, phrases, thought, varied
from demo.corpus.turns import small_turn
from language.harmony.messages import Message

_INTRODUCTIONS = phrases("""
    My name is {}. | I am {}. | I'm {}. | Hi, I am {}. | Hello, my name is {}. | Hi, my name is {}. |
    Call me {}. | You can call me {}. | Hello! I'm {}. | Hey, I'm {}. | my name is {} | Hi, I'm {}! | My
    name is {}, nice to meet you. | Please call me {}. | People call me {}. | Hello, I am {}. How are
    you? | My name is {}. Remember it. | My name is {}. Please remember it. | Hi! My name is {}. What is
    your name?
""")
_NAME_QUESTIONS = phrases("""
    What is my name? | What's my name? | Do you remember my name? | Who am I? | Do you know my name? |
    Tell me my name. | What was my name? | What am I called? | Say my name. | Can you tell me my name? |
    And what is my name? | What did I say my name was? | Remind me, what is my name? | So what is my
    name?
""")
_LIKES: dict[str, tuple[list[str], Callable[[Random], str]]] = {
    "favourite colour": (["My favourite colour is {}."], lambda rng: rng.choice(words.COLOURS)),
    "favorite color": (["My favorite color is {}."], lambda rng: rng.choice(words.COLOURS)),
    "favourite animal": (["My favourite animal is the {}."], lambda rng: rng.choice(words.ANIMALS)),
    "favourite number": (["My favourite number is {}."], lambda rng: words.number(rng, 3)),
    "favorite number": (["My favorite number is {}."], lambda rng: words.number(rng, 3)),
    "favourite city": (["My favourite city is {}."], words.city),
    "password": (["The password is {}.", "My password is {}."], words.invented),
    "dog's name": (["My dog's name is {}."], words.name),
    "code": (["My code is {}.", "The code is {}."], words.code),
}
UNTOLD = "You have not told me your name."


def memory(rng: Random, setting: Setting) -> Dialogue:
    roll = rng.random()
    if roll < 0.28:
        return _introduced(rng, setting)
    if roll < 0.38:
        question = varied(rng, rng.choice(_NAME_QUESTIONS))
        analysis = thought(
            setting.effort,
            "Not told.",
            "The user asks for their name. They have not told me.",
            "The user asks for their name. I look for it in the conversation, and it is not there. "
            "I should say so.",
        )
        return Dialogue(ask(question), Answer(analysis, UNTOLD), key=question, fresh=True)
    return _asked(rng, setting) if roll < 0.85 else _liked(rng, setting)


def welcome(name: str) -> str:
    return f"Nice to meet you, {name}! How can I help you?"


def introduction(rng: Random) -> tuple[str, str]:
    """A name, and how its owner says it."""
    name = words.name(rng)
    return name, rng.choice(_INTRODUCTIONS).format(name if rng.random() < 0.93 else name.lower())


def _introduced(rng: Random, setting: Setting) -> Dialogue:
    name, text = introduction(rng)
    shown = name if name in text else name.lower()
    analysis = thought(
        setting.effort,
        f"{shown}.",
        f"The user is called {shown}. I say hello.",
        f"The user tells me their name: {shown}. I should say hello and remember the name for later.",
    )
    return Dialogue(ask(text), Answer(analysis, welcome(shown)), key=name)


def _asked(rng: Random, setting: Setting) -> Dialogue:
    """The question after the introduction: in one message, turns later, or told by the instructions."""
    name, text = introduction(rng)
    shown = name if name in text else name.lower()
    question = varied(rng, rng.choice(_NAME_QUESTIONS))
    analysis = thought(
        setting.effort,
        f"{shown}.",
        f"The user asks for their name. It is {shown}.",
        "The user asks for their name. I look for it in the conversation. "
        f"There they said that it is {shown}.",
    )
    answer = Answer(analysis, f"Your name is {shown}.")
    roll = rng.random()
    if roll < 0.12:
        return Dialogue(ask(f"{text} {question}"), answer, key=name, fresh=True)
    if roll < 0.22:
        told = rng.choice(
            [
                "The user's name is {}.",
                "The user is called {}.",
                "You are talking to {}.",
                "The name of the user is {}.",
            ]
        ).format(shown)
        return Dialogue(ask(question), answer, key=name, instructions=told, fresh=True)
    history = [Message("user", text), Message("assistant", welcome(shown))]
    return Dialogue(
        (*history, *_between(rng, setting), Message("user", question)),
        answer,
        key=name,
        fresh=rng.random() < 0.8,
    )


def _liked(rng: Random, setting: Setting) -> Dialogue:
    told, asked = (rng.choice(list(_LIKES)) for _ in range(2))
    if rng.random() < 0.7:
        asked = told
    frames, make = _LIKES[told]
    value = make(rng)
    frame = rng.choice(frames)
    said = varied(rng, frame).format(value)
    owner = "The" if frame.startswith("The ") else "Your"
    reply = "I will remember that."
    if rng.random() < 0.35:
        analysis = thought(
            setting.effort,
            "Remember.",
            f"The user tells me their {told}. I will remember it.",
            f"The user tells me their {told}: {value}. There is nothing to answer, but I should remember it.",
        )
        return Dialogue(ask(said), Answer(analysis, reply), key=f"{told} {value}")
    question = varied(
        rng, rng.choice(["What is my {}?", "What's my {}?", "Do you remember my {}?", "Tell me my {}."])
    ).format(asked)
    if owner == "The":
        question = question.replace(" my ", " the ")
    if asked == told or {asked, told} in (
        {"favourite colour", "favorite color"},
        {"favourite number", "favorite number"},
    ):
        article = "the " if told == "favourite animal" else ""
        final = f"{owner} {told} is {article}{value}."
        analysis = thought(
            setting.effort,
            f"{value}.",
            f"The user asks for the {told}. It is {value}.",
            f"The user asks for the {told}. I look for it in the conversation. "
            f"There they said that it is {value}.",
        )
    else:
        final = f"You have not told me your {asked}."
        question = question.replace(" the ", " my ")
        analysis = thought(
            setting.effort,
            "Not told.",
            f"The user asks for the {asked}. They have not told me.",
            f"The user asks for the {asked}. I look for it in the conversation, and it is not there. "
            "I should say so.",
        )
    messages = (
        Message("user", said),
        Message("assistant", reply),
        *_between(rng, setting),
        Message("user", question),
    )
    return Dialogue(messages, Answer(analysis, final), key=f"{told} {value}", fresh=True)


def _between(rng: Random, setting: Setting) -> tuple[Message, ...]:
    """No, one or two turns about something else."""
    turns: list[Message] = []
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        turns += small_turn(rng, setting)
    return tuple(turns)
