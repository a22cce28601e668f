"""The table of facts the model learns by heart, and the questions about it.

Facts cannot be held out, because they must be known.  So wordings and spellings of questions are held out.
"""

from __future__ import annotations

from random import Random

from demo.corpus import days
from demo.corpus.askings.grammar import Grammar
from demo.corpus.askings.knowledge import a_capital_question, a_country_question, an_opposite_question
from demo.corpus.sample import Answer, Dialogue, Setting, ask, phrases, table, thought, varied
from demo.wordings import unforeseen

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
_OPPOSITE_QUESTIONS = phrases("""
    What is the opposite of {}? | Name the opposite of {}. | What's the opposite of {}? | Opposite of {}?
    | Tell me the opposite of {}. | The opposite of {}? | Which word is the opposite of {}? | Do you know
    the opposite of {}? | Give me the opposite of {}. | the opposite of {} is? | What is the opposite of
    the word {}? | opposite of "{}" | What is the opposite of "{}"? | {}: opposite? | Can you tell me the
    opposite of {}? | What word is opposite to {}? | What is the contrary of {}? | Find the opposite of
    {}. | whats the opposite of {} | What would be the opposite of {}? | Say the opposite of {}. | I need
    the opposite of {}. | What is opposite to {}? | antonym of {} | What is an antonym of {}? | What is
    the opposite word to {}? | Give me an opposite word of {}. | Opposite word to {}? | Tell me the
    opposite word of {}.
""")


def facts(rng: Random, setting: Setting) -> Dialogue:
    roll = rng.random()
    if roll < 0.34:
        return _capital(rng, setting)
    if roll < 0.46:
        return _country(rng, setting)
    if roll < 0.48:
        return _all_capitals(rng, setting)
    if roll < 0.66:
        return days.order(rng, setting)
    if roll < 0.72:
        return days.placed(rng, setting)
    if roll < 0.77:
        return days.all_of_them(rng, setting)
    if roll < 0.82:
        return days.counted(rng, setting)
    return days.date(rng, setting) if roll < 0.85 else _opposite(rng, setting)


def _fact(question: str, analysis: str | None, final: str) -> Dialogue:
    return Dialogue(ask(question), Answer(analysis, final), key=question)


def as_typed(rng: Random, common: list[str], composed: Grammar, proper: str) -> str:
    """A question with the name in it, in lower case if the rest is, or at random."""
    question = unforeseen(lambda: varied(rng, rng.choice(common) if rng.random() < 0.4 else composed(rng)))
    small = question == question.lower()
    name = proper.lower() if rng.random() < (0.7 if small else 0.06) else proper
    if rng.random() < 0.15:
        name = name.removeprefix("the ")
    return question.replace("{}", name)


def capital_question(rng: Random, country: str) -> str:
    return as_typed(rng, _CAPITAL_QUESTIONS, a_capital_question, country)


def opposite_question(rng: Random, word: str) -> str:
    return as_typed(rng, _OPPOSITE_QUESTIONS, an_opposite_question, word)


def country_question(rng: Random, capital: str) -> str:
    return as_typed(rng, _COUNTRY_QUESTIONS, a_country_question, capital)


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
