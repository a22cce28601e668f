"""The table of facts the model learns by heart, and the questions about it.

Facts cannot be held out, because they must be known.  So wordings and spellings of questions are held out.
"""

from __future__ import annotations

from random import Random

from demo.corpus.sample import Answer, Dialogue, Setting, ask, listed, phrases, table, thought, varied
from demo.corpus.words import DAYS, MONTHS

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
ALIASES = ("England", "the UK", "the USA")
"""Other names of countries, or a country within one, whose capital another line has."""
OPPOSITES = table("""
    hot=cold | cold=hot | big=small | small=big | large=small | up=down | down=up | day=night | night=day |
    fast=slow | slow=fast | old=young | young=old | new=old | happy=sad | sad=happy | black=white |
    white=black | good=bad | bad=good | left=right | right=left | open=closed | closed=open | high=low |
    low=high | wet=dry | dry=wet | hard=soft | soft=hard | light=dark | dark=light | early=late |
    late=early | full=empty | empty=full | true=false | false=true | in=out | out=in | yes=no | no=yes |
    rich=poor | poor=rich | strong=weak | weak=strong | long=short | short=long | tall=short | loud=quiet |
    quiet=loud | clean=dirty | dirty=clean | love=hate | hate=love | begin=end | start=stop | win=lose |
    near=far | far=near | thick=thin | thin=thick | more=less | always=never | first=last | last=first |
    warm=cool | cheap=expensive | on=off | easy=difficult
""")
COUNTED = [
    ("days", "a week", "A week has 7 days."),
    ("months", "a year", "A year has 12 months."),
    ("hours", "a day", "A day has 24 hours."),
    ("minutes", "an hour", "An hour has 60 minutes."),
    ("seconds", "a minute", "A minute has 60 seconds."),
    ("days", "a year", "A year has 365 days, a leap year 366."),
]
NUMERALS = listed("""
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
""")
_SHORT_NUMERALS = listed("1st 2nd 3rd 4th 5th 6th 7th 8th 9th 10th 11th 12th")
_CAPITAL_QUESTIONS = phrases("""
    What is the capital of {}? | What's the capital of {}? | Which city is the capital of {}? | Name the
    capital of {}. | Tell me the capital of {}. | What is the capital city of {}? | Do you know the
    capital of {}? | Capital of {}? | Can you tell me the capital of {}? | What is {}'s capital? | The
    capital of {}? | Give me the capital of {}. | I want to know the capital of {}. | What is the name
    of the capital of {}? | {} capital | {}'s capital? | What is the capital of {}? | What city is the
    capital of {}? | {}: capital? | capital {} | Which is the capital of {}? | And the capital of {}? | and of
    {}? what is its capital? | I need the capital of {}. | What would be the capital of {}? | What is {}'s
    capital city? | Could you name the capital of {}? | capital city of {} | Whats the capital of {} | What
    do they call the capital of {}? | How is the capital of {} called? | What about the capital of {}? |
    Please name the capital city of {}. | {}, what is its capital? | Say the capital of {}. | The capital
    of {} is? | The capital of {} is called what? | I forgot the capital of {}. | The capital of {} is
    which city? | Which city is {}'s capital? | Remind me of the capital of {}.
""")
_COUNTRY_QUESTIONS = phrases("""
    {} is the capital of which country? | Which country has the capital {}? | Of which country is {} the
    capital? | What country is {} the capital of? | Which country's capital is {}? | {} is the capital of
    what? | What is {} the capital of?
""")
_COUNTRIES = {capital: country for country, capital in CAPITALS.items() if country not in ALIASES}
_LIST_QUESTIONS = phrases("""
    Which capitals do you know? | What capitals do you know? | Which countries do you know? | List the
    capitals you know. | Of which countries do you know the capital? | What countries do you know? | Which
    countries can I ask you about? | List the countries you know.
""")
_ORDERS = phrases("""
    What {0} comes {1} {2}? | Which {0} is {1} {2}? | Which {0} comes {1} {2}? | What {0} is {1} {2}? |
    What comes {1} {2}? | What is the {0} {1} {2}? | The {0} {1} {2}? | {0} {1} {2} | Name the {0} {1}
    {2}. | Tell me the {0} {1} {2}. | What's the {0} {1} {2}? | Which {0} do we have {1} {2}? | Do you
    know which {0} comes {1} {2}? | Which {0} of the calendar is {1} {2}? | Can you tell me what {0} comes
    {1} {2}? | what is {1} {2} | {1} {2} comes what? | Give me the {0} {1} {2}. | Which {0} is right {1}
    {2}? | What {0} comes right {1} {2}? | What {0} is it {1} {2}?
""")
_PLACED = phrases("""
    What is the {0} {1} of the {2}? | Which is the {0} {1} of the {2}? | What's the {0} {1} of the {2}? |
    Name the {0} {1} of the {2}. | {0} {1} of the {2}? | Which {1} is the {0}? | Tell me the {0} {1} of
    the {2}. | the {0} {1} | Which {1} is the {0} of the {2}? | What is the {0} {1}? | What is the name of
    the {0} {1} of the {2}?
""")
_ROWS = phrases("""
    What are the {0} of the {1}? | List the {0} of the {1}. | Name the {0} of the {1}. | Name all {0} of
    the {1}. | Tell me the {0} of the {1}. | Say the {0} of the {1}. | List all the {0} of the {1}. | What
    are the {0}? | {0} of the {1} | Can you list the {0} of the {1}? | Write the {0} of the {1}. | Give me
    the {0} of the {1}. | Do you know the {0} of the {1}? | list the {0} | all {0} of the {1} | Which {0}
    are there? | What {0} are there in a {1}? | Can you name the {0} of the {1}?
""")
_HOW_MANY = phrases("""
    How many {0} are in {1}? | How many {0} does {1} have? | How many {0} are there in {1}? | How many {0}
    in {1}? | {0} in {1}? | How many {0} has {1}? | Tell me how many {0} {1} has. | Do you know how many
    {0} are in {1}? | What is the number of {0} in {1}? | {1} has how many {0}? | number of {0} in {1}
""")
_OPPOSITE_QUESTIONS = phrases("""
    What is the opposite of {}? | Name the opposite of {}. | What's the opposite of {}? | Opposite of {}?
    | Tell me the opposite of {}. | The opposite of {}? | Which word is the opposite of {}? | Do you know
    the opposite of {}? | Give me the opposite of {}. | the opposite of {} is? | What is the opposite of
    the word {}? | opposite of "{}" | What is the opposite of "{}"? | {}: opposite? | Can you tell me the
    opposite of {}? | What word is opposite to {}? | What is the contrary of {}? | Find the opposite of
    {}. | whats the opposite of {} | What would be the opposite of {}? | Say the opposite of {}. | I need
    the opposite of {}. | What is opposite to {}? | antonym of {} | What is an antonym of {}?
""")
_DATES = phrases("""
    What is today's date? | What is the date? | Which date is it? | What's the date today? | Today's date?
    | What is the current date? | Tell me the date. | What date is it today? | Do you know today's date? |
    date? | What is the date today? | Can you tell me today's date? | Give me today's date. | Which date
    is today? | whats the date | Tell me today's date. | today's date please | What date do we have today?
""")


def facts(rng: Random, setting: Setting) -> Dialogue:
    roll = rng.random()
    if roll < 0.44:
        return _capital(rng, setting)
    if roll < 0.52:
        return _country(rng, setting)
    if roll < 0.54:
        return _all_capitals(rng, setting)
    if roll < 0.7:
        return _order(rng, setting)
    if roll < 0.74:
        return _placed(rng, setting)
    if roll < 0.78:
        return _row(rng, setting)
    if roll < 0.82:
        return _counted(rng, setting)
    return _date(rng, setting) if roll < 0.85 else _opposite(rng, setting)


def _fact(question: str, analysis: str | None, final: str) -> Dialogue:
    return Dialogue(ask(question), Answer(analysis, final), key=question)


def as_typed(rng: Random, template: str, proper: str) -> str:
    """The question with the name in it, in lower case if the rest is, or at random."""
    question = varied(rng, template)
    small = question == question.lower()
    name = proper.lower() if rng.random() < (0.7 if small else 0.06) else proper
    if rng.random() < 0.15:
        name = name.removeprefix("the ")
    return question.replace("{}", name)


def capital_question(rng: Random, country: str) -> str:
    return as_typed(rng, rng.choice(_CAPITAL_QUESTIONS), country)


def opposite_question(rng: Random, word: str) -> str:
    return as_typed(rng, rng.choice(_OPPOSITE_QUESTIONS), word)


def country_question(rng: Random, capital: str) -> str:
    return as_typed(rng, rng.choice(_COUNTRY_QUESTIONS), capital)


def _capital(rng: Random, setting: Setting) -> Dialogue:
    country = rng.choice(list(CAPITALS))
    capital = CAPITALS[country]
    analysis = thought(
        setting.effort,
        f"{country}: {capital}.",
        f"The user asks for the capital of {country}. It is {capital}.",
        f"The user asks for the capital of {country}. Capitals are in my table of facts. "
        f"The capital of {country} is {capital}.",
    )
    return _fact(capital_question(rng, country), analysis, f"The capital of {country} is {capital}.")


def _country(rng: Random, setting: Setting) -> Dialogue:
    capital = rng.choice(list(_COUNTRIES))
    country = _COUNTRIES[capital]
    analysis = thought(
        setting.effort,
        f"{capital}: {country}.",
        f"The user asks for the country of {capital}. It is {country}.",
        f"The user asks for the country whose capital is {capital}. Capitals are in my table of facts. "
        f"It is {country}.",
    )
    return _fact(country_question(rng, capital), analysis, f"{capital} is the capital of {country}.")


def _all_capitals(rng: Random, setting: Setting) -> Dialogue:
    analysis = thought(
        setting.effort,
        "My table.",
        "The user asks which capitals I know. I list them.",
        "The user asks which capitals I know. I list the countries in my table of facts.",
    )
    final = f"I know the capitals of {', '.join(CAPITALS)}."
    return _fact(varied(rng, rng.choice(_LIST_QUESTIONS)), analysis, final)


def _order(rng: Random, setting: Setting) -> Dialogue:
    row, kind = rng.choice([(DAYS, "day"), (MONTHS, "month")])
    place = rng.randrange(len(row))
    side, step = rng.choice([("after", 1), ("before", -1)])
    here, there = row[place], row[(place + step) % len(row)]
    if rng.random() < 0.05 and kind == "day":
        tomorrow = "tomorrow" if step == 1 else "yesterday"
        be = "is" if step == 1 else "was"
        question = varied(
            rng,
            rng.choice(
                ["If today is {}, what day $ %?", "Today is {}. What day $ %?", "It is {}. What day $ %?"]
            ),
        )
        question = question.replace("%", tomorrow).replace("$", be).replace("{}", here)
    else:
        question = varied(rng, rng.choice(_ORDERS))
        small = question == question.lower() and rng.random() < 0.7
        question = question.format(kind, side, here.lower() if small else here)
    analysis = thought(
        setting.effort,
        f"{side} {here}: {there}.",
        f"The user asks for the {kind} {side} {here}. It is {there}.",
        f"The user asks for the {kind} {side} {here}. I know the order of the {kind}s. "
        f"{there} comes {side} {here}.",
    )
    return _fact(question, analysis, f"{there} comes {side} {here}.")


def _placed(rng: Random, setting: Setting) -> Dialogue:
    if rng.random() < 0.3:
        place, row, kind, whole = rng.choice([0, 6]), DAYS, "day", "week"
    else:
        place, row, kind, whole = rng.randrange(12), MONTHS, "month", "year"
    numeral = "last" if place == len(row) - 1 and rng.random() < 0.7 else NUMERALS[place]
    if numeral == "seventh" and kind == "day":
        numeral = "last"
    shown = numeral if rng.random() < 0.85 or numeral == "last" else _SHORT_NUMERALS[place]
    question = varied(rng, rng.choice(_PLACED)).format(shown, kind, whole)
    analysis = thought(
        setting.effort,
        f"{numeral} {kind}: {row[place]}.",
        f"The user asks for the {numeral} {kind}. It is {row[place]}.",
        f"The user asks for the {numeral} {kind} of the {whole}. I know the order of the {kind}s. "
        f"It is {row[place]}.",
    )
    return _fact(question, analysis, f"The {numeral} {kind} of the {whole} is {row[place]}.")


def _row(rng: Random, setting: Setting) -> Dialogue:
    row, kind, whole = rng.choice([(DAYS, "days", "week"), (MONTHS, "months", "year")])
    analysis = thought(
        setting.effort,
        f"The {kind}.",
        f"The user wants the {kind} of the {whole}. I list them.",
        f"The user wants the {kind} of the {whole}. I know their order, so I list them all.",
    )
    question = varied(rng, rng.choice(_ROWS)).format(kind, whole)
    return _fact(question, analysis, f"The {kind} of the {whole} are {', '.join(row[:-1])} and {row[-1]}.")


def _counted(rng: Random, setting: Setting) -> Dialogue:
    small, large, fact = rng.choice(COUNTED)
    topic = fact.rstrip(".")
    analysis = thought(
        setting.effort,
        f"{topic}.",
        f"I know this one. {topic}.",
        f"The user asks a question of fact. It is in my table: {topic}.",
    )
    return _fact(varied(rng, rng.choice(_HOW_MANY)).format(small, large), analysis, fact)


def _date(rng: Random, setting: Setting) -> Dialogue:
    question = varied(rng, rng.choice(_DATES))
    analysis = thought(
        setting.effort,
        f"{setting.date}.",
        "The user asks for the date. The system message has it.",
        f"The user asks for the date. The system message has it: {setting.date}.",
    )
    final = f"Today is {setting.date}."
    return Dialogue(ask(question), Answer(analysis, final), key=f"{setting.date} {question}")


def _opposite(rng: Random, setting: Setting) -> Dialogue:
    one = rng.choice(list(OPPOSITES))
    other = OPPOSITES[one]
    analysis = thought(
        setting.effort,
        f"{one}: {other}.",
        f"The user asks for the opposite of {one}. It is {other}.",
        f"The user asks for the opposite of {one}. Opposites are in my table of facts. "
        f"The opposite of {one} is {other}.",
    )
    return _fact(opposite_question(rng, one), analysis, f"The opposite of {one} is {other}.")
