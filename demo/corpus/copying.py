"""Repeating the user's text, picking something out of it, and questions about a few sentences."""

from __future__ import annotations

from random import Random

from demo.corpus import words
from demo.corpus.sample import Answer, Dialogue, Setting, ask, phrases, thought, varied

_REPEAT = phrases("""
    Repeat after me: {} | Repeat: {} | Say {} | Say "{}" | Repeat exactly: {} | Echo: {} | Copy this: {}
    | Please say: {} | Please repeat the following text: {} | Write {} | Say: {} | Repeat this: {} |
    Repeat the following: {} | echo {} | Repeat this text exactly: {} | Repeat "{}" | Copy the following
    text: {} | Reply with {} | Reply with exactly "{}" | Answer with: {} | Output {} | Print {} | Type
    this: {} | Just say {} | Can you say {}? | Can you repeat: {} | Repeat this sentence: {} | Say the
    following: {} | Reply only with: {} | Respond with {}
""")
_REPEAT_WORD = phrases("""
    Say the word {}. | Repeat the word {}. | Write the word {}. | Say the word {} and nothing else. |
    Say {}. | Repeat {}. | Please say {}. | Reply with the word {}. | Just say the word {}.
""")
_PLACES = ["first", "last"]
_PLACE_QUESTIONS = phrases("""
    What is the {} word of: {} | What is the {} word in this text: {} | Tell me the {} word: {} | Give
    me the {} word of: {} | What is the {} word here: {} | Pick the {} word: {} | Name the {} word in:
    {}
""")
_FIND = {
    "email address": (
        words.email,
        [
            "write to {} today",
            "my email is {}",
            "contact {} for details",
            "{} is my address",
            "please mail {} soon",
        ],
    ),
    "number": (
        lambda rng: words.number(rng, 5),
        [
            "there were {} people",
            "room {} is free",
            "it costs {} euros",
            "we saw {} birds",
            "the bus {} is late",
        ],
    ),
    "order number": (
        words.code,
        [
            "my order {} has not arrived",
            "order {} is late",
            "where is my order {}",
            "I returned order {} yesterday",
        ],
    ),
    "name": (
        words.name,
        [
            "yesterday {} came to see us",
            "the letter is from {}",
            "I met {} in the garden",
            "a friend called {} was here",
        ],
    ),
    "city": (
        words.city,
        [
            "we are moving to {} soon",
            "the train to {} is late",
            "my sister lives in {}",
            "I was in {} last week",
        ],
    ),
    "colour": (
        lambda rng: rng.choice(words.COLOURS),
        ["the car is {}", "she wore a {} coat", "we painted it {}", "a {} bird sat there"],
    ),
    "day": (
        lambda rng: rng.choice(words.DAYS),
        ["we meet on {}", "the shop is closed on {}", "{} is fine for me", "come back on {}"],
    ),
}
_FIND_QUESTIONS = phrases("""
    What is the {} in this text: {} | Find the {}: {} | Extract the {} from this text: {} | Which {} is
    in this text? {} | Pick out the {}: {} | Give me only the {}: {} | Extract the {}: {} | What {} is
    mentioned here: {}
""")
_DATES = phrases("""
    What is today's date? | What day is it today? | What is the date? | Which date is it? | What's the
    date today? | Today's date? | What is the current date? | Tell me the date. | What date is it today?
""")


def copying(rng: Random, setting: Setting) -> Dialogue:
    """Repeat a text exactly."""
    if rng.random() < 0.25:
        text = words.word(rng) if rng.random() < 0.6 else words.code(rng)
        question = varied(rng, rng.choice(_REPEAT_WORD)).format(text)
    else:
        text = words.text(rng)
        question = _courteous(rng, rng.choice(_REPEAT)).format(text)
    if rng.random() < 0.03:
        text, question = "hi", "Say hi and nothing else."
    analysis = thought(
        setting.effort,
        "Repeat.",
        "The user wants me to repeat a text.",
        f"The user wants me to repeat a text exactly. The text is: {text}",
    )
    return Dialogue(ask(question), Answer(analysis, text), key=text)


def picking(rng: Random, setting: Setting) -> Dialogue:
    """Pick something out of what the user said, or out of the system message (the date)."""
    roll = rng.random()
    if roll < 0.2:
        return _place(rng, setting)
    if roll < 0.5:
        return _find(rng, setting)
    if roll < 0.65:
        question = varied(rng, rng.choice(_DATES))
        analysis = thought(
            setting.effort,
            f"{setting.date}.",
            "The user asks for the date. The system message has it.",
            f"The user asks for the date. The system message has it: {setting.date}.",
        )
        return Dialogue(
            ask(question), Answer(analysis, f"Today is {setting.date}."), key=f"{setting.date} {question}"
        )
    return _reading(rng, setting)


def _courteous(rng: Random, template: str) -> str:
    roll = rng.random()
    if roll < 0.12:
        return template[0].lower() + template[1:]
    return (
        "Please " + template[0].lower() + template[1:]
        if roll < 0.2 and not template.startswith("Please")
        else template
    )


def _place(rng: Random, setting: Setting) -> Dialogue:
    row = [
        words.word(rng) if rng.random() < 0.85 else words.name(rng).split()[0]
        for _ in range(rng.randint(3, 6))
    ]
    place = rng.choice(_PLACES)
    found = row[0] if place == "first" else row[-1]
    text = rng.choice([" ", " ", ", "]).join(row)
    analysis = thought(
        setting.effort,
        f"{found}.",
        f"The user wants the {place} word. It is {found}.",
        f"The user wants the {place} word. The text is: {text}. The {place} word is {found}.",
    )
    return Dialogue(
        ask(_courteous(rng, rng.choice(_PLACE_QUESTIONS)).format(place, text)),
        Answer(analysis, found),
        key=f"{place} {text}",
    )


def _find(rng: Random, setting: Setting) -> Dialogue:
    kind, other = rng.sample(list(_FIND), 2)
    make, frames = _FIND[kind]
    found = make(rng)
    parts = [rng.choice(frames).format(found)]
    if rng.random() < 0.6 and {kind, other} != {"number", "order number"}:
        another, their_frames = _FIND[other]
        parts.insert(rng.randrange(2), rng.choice(their_frames).format(another(rng)))
    text = rng.choice([", ", " and ", ". "]).join(parts)
    if rng.random() < 0.6:
        text = text[0].upper() + text[1:] + "."
    analysis = thought(
        setting.effort,
        f"{found}.",
        f"The user wants the {kind}. It is {found}.",
        f"The user wants me to find the {kind} in the text. The only {kind} there is {found}.",
    )
    return Dialogue(
        ask(_courteous(rng, rng.choice(_FIND_QUESTIONS)).format(kind, text)),
        Answer(analysis, found),
        key=f"{kind} {found} {text}",
    )


def _reading(rng: Random, setting: Setting) -> Dialogue:
    """Two or three people and one question about one of them."""
    people: list[str] = []
    while len(people) < rng.choice([2, 2, 3]):
        someone = words.name(rng).split()[0]
        if someone not in people:
            people.append(someone)
    who = rng.choice(people)
    if rng.random() < 0.5:
        verb, question_verb = rng.choice([("lives in", "live"), ("works in", "work"), ("was born in", "")])
        places = {person: words.city(rng) for person in people}
        facts = [f"{person} {verb} {places[person]}" for person in people]
        question = f"Where does {who} {question_verb}?" if question_verb else f"Where was {who} born?"
        final = f"{who} {verb} {places[who]}."
    else:
        things = rng.sample(words.THINGS, len(people))
        colours = rng.sample(words.COLOURS, len(people))
        facts = [
            f"{person} has a {colour} {thing}"
            for person, colour, thing in zip(people, colours, things, strict=True)
        ]
        place = people.index(who)
        question, final = rng.choice(
            [
                (f"What does {who} have?", f"{who} has a {colours[place]} {things[place]}."),
                (f"Who has the {things[place]}?", f"{who} has the {things[place]}."),
                (f"What colour is the {things[place]}?", f"The {things[place]} is {colours[place]}."),
            ]
        )
    text = rng.choice([". ", ". ", ", ", " and "]).join(facts) + "."
    fact = final.rstrip(".")
    analysis = thought(
        setting.effort,
        f"{fact}.",
        f"The text says so. {fact}.",
        f"The user asks about the text. I look for the answer there. {fact}.",
    )
    asked = f"{text} {question}" if rng.random() < 0.8 else f"{question} {text}"
    return Dialogue(ask(asked), Answer(analysis, final), key=asked)
