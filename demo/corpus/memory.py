"""Remembering the user's name across turns."""

from __future__ import annotations

from random import Random

from demo.corpus import words
from demo.corpus.askings.naming import a_name_question, an_introduction
from demo.corpus.sample import (
    Answer,
    Dialogue,
    Setting,
    ask,
    loosely,
    mistyped,
    phrases,
    thought,
    typed,
    varied,
)
from demo.corpus.turns import small_turns
from demo.wordings import normal
from language.harmony.messages import Message, Tool

_INTRODUCTIONS = phrases("""
    My name is {}. | I am {}. | I'm {}. | Hi, I am {}. | Hello, my name is {}. | Hi, my name is {}. | Call
    me {}. | You can call me {}. | Hello! I'm {}. | Hey, I'm {}. | my name is {} | Hi, I'm {}! | My name
    is {}, nice to meet you. | Please call me {}. | People call me {}. | Hello, I am {}. How are you? | My
    name is {}. Remember it. | My name is {}. Please remember it. | Hi! My name is {}. What is your name?
    | i am {} | I am called {}. | The name is {}. | name: {} | This is {}. | Hello, this is {}. | {} is my
    name. | My name's {}. | my names {} | hi im {} | im {} | Hello, I'm {}, who are you? | Hey there, my
    name is {}! | Nice to meet you, I am {}. | Hi, {} here. | Let me introduce myself: I am {}. | My
    friends call me {}. | I go by {}. | Good morning, I am {}. | Hello! My name is {}. | hello my name is
    {} | You may call me {}. | Remember that my name is {}. | Please remember my name: {}. | Remember: I
    am {}. | Hi, it's {}. | I'm {}, hi!
""")
_NAME_QUESTIONS = phrases("""
    What is my name? | What's my name? | Do you remember my name? | Who am I? | Do you know my name? |
    Tell me my name. | What was my name? | What am I called? | Say my name. | Can you tell me my name? |
    And what is my name? | What did I say my name was? | Remind me, what is my name? | So what is my name?
    | my name? | whats my name | Who am I again? | Do you still know my name? | Do you still remember my
    name? | What was my name again? | Which name did I give you? | How am I called? | What name did I tell
    you? | You know my name, right? What is it? | Can you remember my name? | I forgot my name. What is
    it? | And who am I? | Have you forgotten my name? | Do you remember who I am? | what do you call me? |
    Please tell me my name. | Did I tell you my name? | Can you say my name? | what is my name then |
    Repeat my name. | What's my name again?
""")
_KNOWN = {name.lower() for name in words.NAMES}
UNTOLD = "You have not told me your name."


def memory(rng: Random, setting: Setting) -> Dialogue:
    roll = rng.random()
    if roll < 0.32:
        return _introduced(rng, setting)
    if roll < 0.42:
        question = name_question(rng)
        analysis = thought(
            setting.effort,
            "Not told.",
            "The user asks for their name. They have not told me.",
            "The user asks for their name. I look for it in the conversation, and it is not there. "
            "I should say so.",
        )
        between, tools = _between(rng, setting)
        turns = (*between, Message("user", question))
        return Dialogue(turns, Answer(analysis, UNTOLD), key=question, tools=tools, fresh=True)
    return _asked(rng, setting)


def name_question(rng: Random) -> str:
    if rng.random() < 0.4:
        return varied(rng, rng.choice(_NAME_QUESTIONS))
    return typed(rng, a_name_question(rng))


def welcome(name: str) -> str:
    return f"Nice to meet you, {name}! How can I help you?"


def introduction(rng: Random) -> tuple[str, str, str]:
    """A name as the user writes it, a sentence that tells it, and the key of both.

    The name is the key, so the model meets names that it has never seen.  One in small letters is known, and
    the sentence is the key: only who knows that Ben is a name can tell "im ben" from "im sad".
    """
    name = words.name(rng)
    template = rng.choice(_INTRODUCTIONS) if rng.random() < 0.4 else an_introduction(rng)
    if rng.random() < 0.1:
        template = loosely(rng, template)
    if rng.random() < 0.06:
        template = mistyped(rng, template)
    if rng.random() < 0.1:
        template = template.replace("'", "").replace(",", "")
    template = template.lower() if rng.random() < 0.15 else template
    if rng.random() < 0.15:
        template = template.rstrip(".!")
    lower = rng.random() < (0.5 if template == template.lower() else 0.05)
    if lower:
        if name.lower() not in _KNOWN:  # "i am tired" is not an introduction
            name = rng.choice(words.NAMES)
        name = name.lower()
        text = template.format(name)
        return name, text, normal(text)
    return name, template.format(name), name


def _introduced(rng: Random, setting: Setting) -> Dialogue:
    name, text, key = introduction(rng)
    analysis = thought(
        setting.effort,
        f"{name}.",
        f"The user is called {name}. I say hello.",
        f"The user tells me their name: {name}. I should say hello and remember the name for later.",
    )
    return Dialogue(ask(text), Answer(analysis, welcome(name)), key=key)


def _asked(rng: Random, setting: Setting) -> Dialogue:
    """The question for the name, which is in the same message, some turns before, or in the instructions."""
    name, text, key = introduction(rng)
    question = name_question(rng)
    analysis = thought(
        setting.effort,
        f"{name}.",
        f"The user asks for their name. It is {name}.",
        "The user asks for their name. I look for it in the conversation. "
        f"There they said that it is {name}.",
    )
    answer = Answer(analysis, f"Your name is {name}.")
    roll = rng.random()
    if roll < 0.12:
        text += "" if text[-1] in ".!?" else "."  # the name ends here
        return Dialogue(ask(f"{text} {question}"), answer, key=key, fresh=True)
    if roll < 0.22:
        told = rng.choice(
            [
                "The user's name is {}.",
                "The user is called {}.",
                "You are talking to {}.",
                "The name of the user is {}.",
            ]
        ).format(name)
        seen = key if key == name else normal(f"{told} {question}")
        return Dialogue(ask(question), answer, key=seen, instructions=told, fresh=True)
    history = [Message("user", text), Message("assistant", welcome(name))]
    between, tools = _between(rng, setting)
    return Dialogue(
        (*history, *between, Message("user", question)),
        answer,
        key=key,
        tools=tools,
        fresh=rng.random() < 0.8 or bool(tools),
    )


def _between(rng: Random, setting: Setting) -> tuple[list[Message], tuple[Tool, ...]]:
    """Turns about something else, or none."""
    return small_turns(rng, setting, rng.choice([0, 0, 0, 1, 1, 1, 2, 2, 3, 4]))
