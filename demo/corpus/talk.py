"""Small talk: greetings, what the model is, counting, and a joke, a story and a poem."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from demo.corpus import words
from demo.corpus.askings.greetings import BYES, GREETINGS, OPENERS, THANKS, a_goodbye, a_greeting, some_thanks
from demo.corpus.askings.identity import ABLE, WHO, what_can_you_do, who_are_you
from demo.corpus.sample import (
    Answer,
    Dialogue,
    Setting,
    ask,
    phrase_key,
    phrases,
    thought,
    typed,
    varied,
)
from demo.wordings import normal

GREETING = "Hello! I am a small demo model. How can I help you?"
ABOUT = (
    "I am a small demo model that comes with gptoss. I can greet you, add and subtract whole numbers up to "
    "100, name capitals, days, months and opposites, count, repeat text, remember your name, call functions "
    "and fill JSON."
)
JOKE = "Why did the token cross the road? It was sampled."
STORY = """Once upon a time there was a small model. It lived on a small computer and knew only a few \
things. Every day people came and asked it the hardest questions. The small model did not know \
the answers, and it said so. One day a child came and asked: "What is 2 + 2?" "4", said the \
small model. The child smiled. "You know just what I need", said the child. And they were \
friends ever after."""
POEM = """The night is long, the fan is low,
the tokens come, the tokens go.
A little model, eight experts wide,
has only a few small words inside."""

_JOKES = phrases("""
    Tell me a joke. | Do you know a joke? | Tell me a joke about {}. | Make me laugh. | Another joke? |
    Say something funny. | Can you tell me a joke about {}? | Write a joke about {}. | I want to hear a
    joke. | joke? | a joke please | joke | Give me a joke. | Got any jokes? | Do you know any jokes? |
    Tell a joke. | tell me another joke | One more joke. | Know any good jokes? | I need a joke. | Can you
    tell me a joke? | Could you tell me a joke? | Tell me something funny. | Be funny. | Do you have a
    joke about {}? | a joke about {} | Tell me a good joke. | Tell me a funny joke. | Joke about {}. | Let
    me hear a joke. | Tell us a joke. | Would you tell me a joke?
""")
_STORIES = phrases("""
    Tell me a story. | Write a story. | Write a short story. | Tell me a story about {}. | Write a story
    about {}. | Once upon a time | Write a long story about {}. | Tell me a long story. | Write a short
    story about {}. | Write me a story. | story? | a story please | Can you tell me a story? | Do you know
    a story? | I want to hear a story. | Give me a story. | Tell me a short story. | Tell me a bedtime
    story. | Write a fairy tale. | Tell me a fairy tale. | Tell us a story. | Could you write a story? |
    Make up a story. | Invent a story about {}. | story about {} | Tell me another story. | Write a tale
    about {}. | A short story, please. | Let me hear a story. | Write me a short story about {}.
""")
_POEMS = phrases("""
    Write a poem. | Write a poem about {}. | Write me a poem. | Write a haiku about {}. | Write a haiku. |
    Do you know a poem? | Compose a poem about {}. | Write a short poem about {}. | Give me a poem. |
    poem? | a poem please | Tell me a poem. | Can you write a poem? | Recite a poem. | I want a poem about
    {}. | poem about {} | Can you write me a poem about {}? | Make a poem. | Write some poetry. | A short
    poem, please. | Could you write a poem about {}? | Say a poem. | Do you know any poems? | Let me hear
    a poem. | Write a rhyme. | Write me a short poem.
""")
_COUNTS = phrases("""
    Count to {1}. | Count from 1 to {1}. | Please count to {1}. | Can you count to {1}? | List the numbers
    from 1 to {1}. | Count up to {1}. | Write the numbers from 1 to {1}. | count 1 to {1} | Count from one
    to {1}. | Numbers from 1 to {1}? | List the numbers 1 to {1}. | Say the numbers from 1 to {1}. | Give me
    the numbers from 1 to {1}. | Can you count up to {1}? | Could you count from 1 to {1}? | count till {1}
    | Count until {1}. | Start at 1 and count to {1}. | Count with me to {1}. | Print the numbers 1 to {1}.
    | Tell me the numbers from 1 to {1}. | I want you to count to {1}. | 1 to {1} | Show me how you count to
    {1}. | Let's count to {1}. | Name the numbers from 1 to {1}.
""")
_COUNTS_FROM = phrases("""
    Count from {0} to {1}. | Can you count from {0} to {1}? | List the numbers from {0} to {1}. | Numbers
    from {0} to {1}. | Write the numbers from {0} to {1}. | count {0} to {1} | Start at {0} and count to
    {1}. | Say the numbers from {0} to {1}. | Could you count from {0} to {1}? | Give me the numbers from
    {0} to {1}.
""")
_COUNTS_DOWN = phrases("""
    Count down from {1}. | Count down from {1} to 1. | Count backwards from {1}. | Count from {1} to 1. |
    Countdown from {1}. | Can you count down from {1}? | Count backwards from {1} to 1. | Start at {1} and
    count down. | count down from {1} to one | Do a countdown from {1}. | Could you count backwards from
    {1}?
""")
HIGHEST = 30
"""The largest number that the model counts to."""


_KNOWN = frozenset(normal(common) for common in (*GREETINGS, *WHO, *ABLE, *THANKS, *BYES))


def talk(rng: Random, setting: Setting) -> Dialogue:
    """Greetings, thanks, goodbyes, what the model is and what it can do.

    The common phrases are never held out: everybody uses them, so the model should have seen them.
    """
    effort = setting.effort
    roll = rng.random()
    if roll < 0.38:
        common, composed, final = GREETINGS, a_greeting, GREETING
        analysis = thought(
            effort,
            "A greeting.",
            "The user greets me. I greet back.",
            "The user greets me and asks for nothing yet. I should greet back, say what I am and offer help.",
        )
    elif roll < 0.8:
        common, composed = (WHO, who_are_you) if roll < 0.64 else (ABLE, what_can_you_do)
        final = ABOUT
        analysis = thought(
            effort,
            "About me.",
            "The user asks about me. I say what I am and what I can do.",
            "The user asks what I am or what I can do. I should be honest: I am a small demo model, "
            "and my list is short.",
        )
    elif roll < 0.9:
        common, composed, final = THANKS, some_thanks, "You are welcome!"
        analysis = thought(
            effort, "Thanks.", "The user thanks me.", "The user thanks me. There is nothing else to do."
        )
    else:
        common, composed, final = BYES, a_goodbye, "Goodbye! It was nice to talk to you."
        analysis = thought(
            effort,
            "A goodbye.",
            "The user says goodbye.",
            "The user says goodbye. I should say goodbye as well.",
        )
    if rng.random() < 0.3:
        return replace(_typed(rng, rng.choice(common), analysis, final), key="")
    phrase = composed(rng)
    question = typed(rng, phrase)
    return Dialogue(ask(question), Answer(analysis, final), key=phrase_key(phrase, question, _KNOWN))


def pieces(rng: Random, setting: Setting) -> Dialogue:
    """A joke, a story, a poem, and counting."""
    effort = setting.effort
    if rng.random() < 0.55:
        return _count(rng, setting)
    kind, questions, final = rng.choice(
        [("joke", _JOKES, JOKE), ("joke", _JOKES, JOKE), ("story", _STORIES, STORY), ("poem", _POEMS, POEM)]
    )
    analysis = thought(
        effort,
        f"A {kind}.",
        f"The user wants a {kind}. I know one.",
        f"The user wants a {kind}. I know only one {kind}, whatever it should be about, so I tell that one.",
    )
    return _typed(rng, rng.choice(questions).replace("{}", words.topic(rng)), analysis, final)


def _count(rng: Random, setting: Setting) -> Dialogue:
    first, last = (
        1,
        rng.randint(2, HIGHEST) if rng.random() < 0.7 else rng.choice([3, 5, 10, 10, 15, 20, 20, 30]),
    )
    roll = rng.random()
    if roll < 0.2:
        templates, first, last = _COUNTS_DOWN, min(last, 20), 1
    elif roll < 0.4 and last > 3:
        templates, first = _COUNTS_FROM, rng.randint(0, last - 1)
    else:
        templates = _COUNTS
    step = 1 if first <= last else -1
    low, high = sorted((first, last))
    analysis = thought(
        setting.effort,
        f"{first} to {last}.",
        f"The user wants me to count from {first} to {last}.",
        f"The user wants me to count from {first} to {last}. I start at {first} and stop at {last}.",
    )
    question = varied(rng, rng.choice(templates)).format(low, high)
    counted = ", ".join(map(str, range(first, last + step, step)))
    return Dialogue(ask(question), Answer(analysis, counted), key=question)


def _typed(rng: Random, question: str, analysis: str | None, final: str) -> Dialogue:
    """A dialogue with the question, with varied case and punctuation, and sometimes after a greeting."""
    if final is not GREETING:
        question = varied(rng, question)
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.15:
        question = question.rstrip(".?!") + rng.choice([".", "!", "", "?", "!!", " :)", "..."])
    if final == ABOUT and rng.random() < 0.2:
        question = f"{rng.choice(OPENERS).rstrip('!')}, {question[0].lower()}{question[1:]}"
    return Dialogue(ask(question), Answer(analysis, final), key=question)
