"""The table of facts the model learns by heart, and the questions about it.

Facts cannot be held out, they can only be known: what is held out is the question, as it is worded and typed.
"""

from __future__ import annotations

from random import Random

from demo.corpus.sample import Answer, Dialogue, Setting, ask, phrases, table, thought, varied
from demo.corpus.words import DAYS, MONTHS, invented

CAPITALS = table("""
    Argentina=Buenos Aires | Australia=Canberra | Austria=Vienna | Belgium=Brussels | Brazil=Brasilia |
    Canada=Ottawa | Chile=Santiago | China=Beijing | Colombia=Bogota | Cuba=Havana | Denmark=Copenhagen
    | Egypt=Cairo | England=London | Finland=Helsinki | France=Paris | Germany=Berlin | Greece=Athens |
    Hungary=Budapest | Iceland=Reykjavik | India=New Delhi | Indonesia=Jakarta | Iran=Tehran |
    Iraq=Baghdad | Ireland=Dublin | Israel=Jerusalem | Italy=Rome | Japan=Tokyo | Kenya=Nairobi |
    Mexico=Mexico City | Morocco=Rabat | the Netherlands=Amsterdam | New Zealand=Wellington |
    Nigeria=Abuja | Norway=Oslo | Peru=Lima | Poland=Warsaw | Portugal=Lisbon | Romania=Bucharest |
    Russia=Moscow | Scotland=Edinburgh | South Korea=Seoul | Spain=Madrid | Sweden=Stockholm |
    Switzerland=Bern | Thailand=Bangkok | Turkey=Ankara | Ukraine=Kyiv | the United Kingdom=London | the
    United States=Washington | the USA=Washington | the UK=London | Vietnam=Hanoi | Wales=Cardiff
""")
OPPOSITES = table("""
    hot=cold | big=small | up=down | day=night | fast=slow | old=young | happy=sad | black=white |
    good=bad | left=right | open=closed | high=low | wet=dry | hard=soft | light=dark | early=late |
    full=empty | true=false
""")
MISC = [
    ("How many days are in a week?", "A week has 7 days."),
    ("How many months are in a year?", "A year has 12 months."),
    ("How many hours are in a day?", "A day has 24 hours."),
    ("How many minutes are in an hour?", "An hour has 60 minutes."),
    ("How many seconds are in a minute?", "A minute has 60 seconds."),
    ("How many days are in a year?", "A year has 365 days, a leap year 366."),
    ("How many legs does a spider have?", "A spider has 8 legs."),
    ("How many letters are in the alphabet?", "The alphabet has 26 letters."),
    ("What colour is the sky?", "The sky is blue."),
    ("What color is the sky?", "The sky is blue."),
    ("Why is the sky blue?", "The sky is blue because air scatters blue light the most."),
    ("What colour is grass?", "Grass is green."),
    ("What color is grass?", "Grass is green."),
    ("What colour is snow?", "Snow is white."),
    ("What is the largest planet?", "The largest planet is Jupiter."),
    ("What is the biggest planet?", "The largest planet is Jupiter."),
    ("What is the chemical formula of water?", "The formula of water is H2O."),
    ("At what temperature does water boil?", "Water boils at 100 degrees Celsius."),
    ("Who wrote Hamlet?", "Shakespeare wrote Hamlet."),
    ("What does a dog say?", "A dog says woof."),
    ("What does a cat say?", "A cat says meow."),
    ("What does a cow say?", "A cow says moo."),
    ("What is the meaning of life?", "42, they say."),
]
_CAPITAL_QUESTIONS = phrases("""
    What is the capital of {}? | What's the capital of {}? | Which city is the capital of {}? | Name the
    capital of {}. | Tell me the capital of {}. | What is the capital city of {}? | Do you know the
    capital of {}? | Capital of {}? | Can you tell me the capital of {}? | What is {}'s capital? | The
    capital of {}? | Give me the capital of {}. | I want to know the capital of {}. | What is the name
    of the capital of {}?
""")
_COUNTRY_QUESTIONS = [
    "{} is the capital of which country?",
    "Which country has the capital {}?",
    "Of which country is {} the capital?",
]
_COUNTRIES = {
    capital: country
    for country, capital in CAPITALS.items()
    if country not in ("England", "the UK", "the USA")
}


def facts(rng: Random, setting: Setting) -> Dialogue:
    roll = rng.random()
    if roll < 0.55:
        return _capital(rng, setting)
    if roll < 0.62:
        return _country(rng, setting)
    if roll < 0.70:
        return _unknown(rng, setting)
    if roll < 0.90:
        question, fact = rng.choice(MISC)
        topic = fact.rstrip(".")
        analysis = thought(
            setting.effort,
            f"{topic}.",
            f"I know this one. {topic}.",
            f"The user asks a question of fact. It is in my table: {topic}.",
        )
        return _fact(varied(rng, question), analysis, fact)
    return _order(rng, setting) if roll < 0.95 else _opposite(rng, setting)


def _fact(question: str, analysis: str | None, final: str) -> Dialogue:
    return Dialogue(ask(question), Answer(analysis, final), key=question)


def _lowered(rng: Random, proper: str) -> str:
    return proper.lower() if rng.random() < 0.06 else proper


def _capital(rng: Random, setting: Setting) -> Dialogue:
    country = rng.choice(list(CAPITALS))
    capital = CAPITALS[country]
    question = varied(rng, rng.choice(_CAPITAL_QUESTIONS)).format(_lowered(rng, country))
    analysis = thought(
        setting.effort,
        f"{country}: {capital}.",
        f"The user asks for the capital of {country}. It is {capital}.",
        f"The user asks for the capital of {country}. Capitals are in my table of facts. "
        f"The capital of {country} is {capital}.",
    )
    return _fact(question, analysis, f"The capital of {country} is {capital}.")


def _country(rng: Random, setting: Setting) -> Dialogue:
    capital = rng.choice(list(_COUNTRIES))
    country = _COUNTRIES[capital]
    question = varied(rng, rng.choice(_COUNTRY_QUESTIONS)).format(capital)
    analysis = thought(
        setting.effort,
        f"{capital}: {country}.",
        f"The user asks for the country of {capital}. It is {country}.",
        f"The user asks for the country whose capital is {capital}. Capitals are in my table of facts. "
        f"It is {country}.",
    )
    return _fact(question, analysis, f"{capital} is the capital of {country}.")


def _unknown(rng: Random, setting: Setting) -> Dialogue:
    country = invented(rng).capitalize() + rng.choice(["", "", "ia", "land", "stan"])
    question = varied(rng, rng.choice(_CAPITAL_QUESTIONS)).format(country)
    analysis = thought(
        setting.effort,
        f"{country}: not known.",
        f"The user asks for the capital of {country}. I do not know it.",
        f"The user asks for the capital of {country}. Capitals are in my table of facts. "
        f"{country} is not in it, and I should say so.",
    )
    return _fact(question, analysis, f"I do not know the capital of {country}.")


def _order(rng: Random, setting: Setting) -> Dialogue:
    row, kind = rng.choice([(DAYS, "day"), (MONTHS, "month")])
    place = rng.randrange(len(row))
    side, step = rng.choice([("after", 1), ("before", -1)])
    here, there = row[place], row[(place + step) % len(row)]
    question = varied(
        rng,
        rng.choice(
            [
                "What {0} comes {1} {2}?",
                "Which {0} is {1} {2}?",
                "Which {0} comes {1} {2}?",
                "What {0} is {1} {2}?",
            ]
        ),
    )
    analysis = thought(
        setting.effort,
        f"{there}.",
        f"I know this one. {there} comes {side} {here}.",
        f"The user asks for the {kind} {side} {here}. {there} comes {side} {here}.",
    )
    return _fact(question.format(kind, side, here), analysis, f"{there} comes {side} {here}.")


def _opposite(rng: Random, setting: Setting) -> Dialogue:
    one, other = rng.choice(list(OPPOSITES.items()))
    if rng.random() < 0.5:
        one, other = other, one
    question = varied(
        rng,
        rng.choice(["What is the opposite of {}?", "Name the opposite of {}.", "What's the opposite of {}?"]),
    )
    analysis = thought(
        setting.effort,
        f"{other}.",
        f"I know this one. The opposite of {one} is {other}.",
        f"The user asks for the opposite of {one}. The opposite of {one} is {other}.",
    )
    return _fact(question.format(one), analysis, f"The opposite of {one} is {other}.")
