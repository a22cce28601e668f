"""Days and months: before, after, first, last and all of them, how many there are, and the date."""

from __future__ import annotations

from random import Random

from demo.corpus.askings.grammar import Grammar
from demo.corpus.sample import (
    Answer,
    Dialogue,
    Setting,
    ask,
    listed,
    phrase_key,
    phrases,
    table,
    thought,
    typed,
    varied,
)
from demo.corpus.words import DAYS, MONTHS
from demo.wordings import unforeseen

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
_NUMBERS = listed("one two three four five six seven eight nine ten eleven twelve")
_SLIPS = table("""
    Monday=Munday | Tuesday=Tusday | Wednesday=Wensday | Thursday=Thurday | Friday=Fryday |
    Saturday=Saterday | Sunday=Sundy | January=Januar | February=Febuary | March=Marhc | April=Aprill |
    June=Jun | July=Juli | August=Agust | September=Septmber | October=Ocotber | November=Novmber |
    December=Decembre
""")
_ORDERS = phrases("""
    What {0} comes {1} {2}? | Which {0} is {1} {2}? | Which {0} comes {1} {2}? | What {0} is {1} {2}? |
    What comes {1} {2}? | What is the {0} {1} {2}? | The {0} {1} {2}? | {0} {1} {2} | Name the {0} {1} {2}.
    | Tell me the {0} {1} {2}. | What's the {0} {1} {2}? | Which {0} do we have {1} {2}? | Do you know
    which {0} comes {1} {2}? | Which {0} of the calendar is {1} {2}? | Can you tell me what {0} comes {1}
    {2}? | what is {1} {2} | {1} {2} comes what? | Give me the {0} {1} {2}. | Which {0} is right {1} {2}? |
    What {0} comes right {1} {2}? | What {0} is it {1} {2}?
""")
_ORDER_RULES = {
    "start": """
        4* <which> <verb> {2}? | 3* <tell> (what|which) {0} <verb> {2}<end> | 3* <name> <the> {0} <side>
        {2}<end> | 2* <the> {0} <side> {2}<end> | <the> {0} that <verb> {2}<end> | 2* <inverse>? | 2* <now>
        | 2* <possessive> | <side> {2}? | <side> {2} <comes> (what|which {0})? | {2}: (what|which {0})
        <verb> it? | what about <the> {0} <side> {2}? | {2}, and <then>? | and <side> {2}? | <which> will
        it be <side> {2}? | <which> do (we|you| I) (have|get|write) <side> {2}? | I (need|forgot|want|would
        like|want to know|am looking for) <the> {0} <side> {2}.
    """,
    "which": """
        3* what | 3* which {0} | 3* what {0} | what's the {0} that | which one | which {0} of the <whole>
    """,
    "whole": "calendar | (week|year|calendar)",
    "the": "2* the | the | | ",
    "tell": """
        tell me | can you tell me | do you know | say | could you tell me | I want to know | please tell me
        | I wonder | guess | explain | let me know | remind me | I forgot | who knows | you know
    """,
    "name": """
        name | tell me | give me | say | what is | what's | what was | do you know | which is | write | can
        you name | could you name | can you say | could you tell me | whats | and what is | so what is |
        please name
    """,
    "end": "2* ? | 2* | . | , please | please?",
    "comes": "comes | is",
}
_AFTER_RULES = _ORDER_RULES | {
    "side": """
        6* after | right after | just after | directly after | immediately after | following | next after
    """,
    "verb": """
        3* comes <side> | 3* is <side> | 2* follows | succeeds | comes next after | would be <side> | will
        come after | is it <side> | goes after
    """,
    "then": "then | after that | next | what comes next | what is next | what follows",
    "inverse": """
        {2} (comes|is) (right|) before (what|which {0}|what {0}) | {2} is followed by (what|which {0}|what
        {0}) | (what|which {0}|what {0}) is {2} followed by | {2} precedes (what|which {0}) | {2} is the
        {0} before (what| which {0}) | before (what|which {0}) is {2} | before which {0} (comes|does) {2}
        come
    """,
    "possessive": """
        what is {2}'s (next|following) {0}? | what is the next {0} after {2}? | next {0} after {2}<end> |
        the (successor|follower) of {2}? | one {0} after {2}<end> | what is next after {2}? | what's one
        {0} after {2}? | the next {0} after {2}<end> | which {0} is next, after {2}? | after {2} comes<end>
    """,
}
_BEFORE_RULES = _ORDER_RULES | {
    "side": """
        6* before | right before | just before | directly before | immediately before | preceding | prior
        to
    """,
    "verb": """
        3* comes <side> | 3* is <side> | 2* precedes | was <side> | would be <side> | goes before | is it
        <side> | comes directly before
    """,
    "then": "what was before | what came before | before that | what comes before it | what is before it",
    "inverse": """
        {2} (comes|is) (right|) after (what|which {0}|what {0}) | {2} is preceded by (what|which {0}|what
        {0}) | (what|which {0}|what {0}) is {2} preceded by | {2} follows (what|which {0}) | {2} is the {0}
        after (what| which {0}) | after (what|which {0}) is {2} | {2} comes right after (what|which {0})
    """,
    "possessive": """
        what is {2}'s previous {0}? | what is the previous {0} before {2}? | the {0} previous to {2}<end> |
        the predecessor of {2}? | one {0} before {2}<end> | which {0} was there before {2}? | what's one
        {0} before {2}? | which {0} is the last before {2}? | the last {0} before {2}<end> | before {2}
        comes<end>
    """,
}
_AFTER = {
    "day": Grammar(
        _AFTER_RULES
        | {
            "now": """
                (if today is|today is|it is|if it is|say today is|suppose today is|assume it is) {2}(.|,)
                (what day is|what is|which day is|what day will it be) tomorrow? | yesterday was {2}(.|,)
                (what is|what day is|which day is) (today|it today|it now)? | tomorrow, if today is {2}? |
                if yesterday was {2}, what (is|day is) today? | {2} today, tomorrow?
            """
        }
    ),
    "month": Grammar(
        _AFTER_RULES
        | {
            "now": """
                (if it is|it is|this month is|we have|now it is) {2}(.|,) (what is|which is|what month is)
                (the|) next (month|)? | last month was {2}(.|,) (what month is it|which month is it|what is
                this month)? | {2} ends. (what|which month) (comes|begins|starts) (next|then|)? | {2} is
                over, what month is next?
            """
        }
    ),
}
_BEFORE = {
    "day": Grammar(
        _BEFORE_RULES
        | {
            "now": """
                (if today is|today is|it is|if it is|say today is|suppose today is|assume it is) {2}(.|,)
                (what day was|what was|which day was|what day was it) yesterday? | tomorrow is {2}(.|,)
                (what is|what day is| which day is) (today|it today|it now)? | yesterday, if today is {2}?
                | if tomorrow is {2}, what (is|day is) today? | {2} today, yesterday?
            """
        }
    ),
    "month": Grammar(
        _BEFORE_RULES
        | {
            "now": """
                (if it is|it is|this month is|we have|now it is) {2}(.|,) (what was|which was|what month
                was) (the|) (last|previous) month? | next month is {2}(.|,) (what month is it|which month
                is it|what is this month)? | {2} begins. (what|which month) (ended|was before|came before)?
                | it is {2} now, which month was before?
            """
        }
    ),
}
_PLACED = Grammar(
    {
        "start": """
            3* (what|which) is the {0} {1}<of>? | 2* what's the {0} {1}<of>? | 2* <name> the {0}
            {1}<of><end> | 2* (the|) {0} {1}<of><end> | 2* which {1} is (the|) {0}<of>? | <tell>
            (what|which {1}) is the {0} (one|)<of><end> | (what|which) {1} is number {3} (in|of) the {2}? |
            (what is|which is|name|) {1} (number|no.|nr.|#) {3}<of><end> | {1} {3} of the {2}<end> | what
            (do you call|is the name of) the {0} {1}<of>? | how is the {0} {1}<of> called? | what is the
            {0} {1}<of> called? | the {0} {1}<of> is<end> | the name of the {0} {1}<of><end> | which is the
            {0} of the {1}s<of>? | in a {2}, (what|which) is the {0} {1}? | what comes as the {0} {1}<of>?
            | which {1} (comes|is) {0} in the {2}?
        """,
        "of": "3* of the {2} | of a {2} | in a {2} | in the {2} | of every {2} | 2* ",
        "name": """
            name | tell me | give me | say | do you know | can you name | I need | write | please tell me
        """,
        "tell": "tell me | do you know | can you tell me | I want to know | I wonder | say",
        "end": "2* ? | 2* | . | please",
    }
)
_ENDS_RULES = {
    "start": """
        (which|what) {1} <does> the {2}? | the {2} <does> (with|on|in) (which|what) {1}? | (with|on|in)
        (which|what) {1} does (the|a) {2} <do>? | (what|which) is the {1} that <does> the {2}? | <tell>
        (what|which) {1} <does> the {2}. | when does the {2} <do>, on which {1}? | what {1} does (the|a)
        {2} <do> (with|on|)?
    """,
    "tell": "tell me | do you know | can you tell me | I want to know | say",
}
_STARTS = Grammar(_ENDS_RULES | {"does": "starts | begins | opens", "do": "start | begin"})
_ENDS = Grammar(_ENDS_RULES | {"does": "ends | finishes | closes | concludes", "do": "end | finish"})
_ROWS = Grammar(
    {
        "start": """
            3* <name> <all> {0}<of><end> | 2* what are <all> {0}<of>? | <all> {0}<of><end> | <all> {0}<of>
            <order> | <name> <all> {0}<of> <order><end> | (what|which) {0} are there<in>? | (what|which)
            {0} does a {1} have? | how are the {0}<of> called? | what are the {0}<of> called? | (what
            are|tell me|list|give me|write) the names of (the|all) {0}<of><end> | do you know (all|) the
            {0}<of>? | (can|could) you (list|name|say|tell me|write|recite|give me) <all> {0}<of> <order>?
            | I (want|need|would like) <all> {0}<of><end> | {0}, all of them<end> | a list of <all>
            {0}<of><end> | which are the {0}<of>? | a {1} has which {0}?
        """,
        "name": """
            list | name | tell me | say | write | give me | recite | enumerate | show me | print | spell
            out | go through | write down | please list | please name | repeat for me | teach me | count up
        """,
        "all": "3* the | all | all the | all {2} | the {2} | all of the | every one of the",
        "of": "3* of the {1} | of a {1} | in the {1} | in order | | ",
        "in": "| in a {1} | in the {1} | of the {1}",
        "order": """
            in order | one by one | in the right order | from first to last | please | in a row | as a list
        """,
        "end": "2* | 2* . | ? | , please",
    }
)
_HOW_MANY = Grammar(
    {
        "start": """
            4* how many {0} <be> {1}<end> | 2* how many {0} (does|do) {1} have<end> | how many {0} has
            {1}<end> | {1} (has|is|takes|lasts) how many {0}<end> | {0} (in|per|of) {1}<end> | (the|)
            number of {0} in {1}<end> | what is the (number|count) of {0} in {1}? | <tell> how many {0} {1}
            has<end> | <tell> how many {0} (are|there are) in {1}<end> | how many {0} (make|make
            up|fill|form|long is|go into|fit into) {1}? | how long is {1} in {0}? | {1} in {0}? | {1} = ?
            {0} | how many {0} (until|till) {1} is over? | {1}, how many {0}? | I forgot how many {0} are
            in {1}. | what number of {0} has {1}? | {0} in {1}: how many? | count of {0} in {1}
        """,
        "be": """
            3* are in | 3* are there in | 2* in | is | are | has | make | do we have in | can be found in |
            are
        """,
        "tell": "tell me | do you know | can you tell me | I want to know | could you tell me | say",
        "end": "4* ? | | exactly?",
    }
)
_DATES = Grammar(
    {
        "start": """
            2* what is the <date> <today>? | what's the <date> <today>? | what is today's date? | today's
            date (please|)<end> | (tell|give|show) me (the <date>|today's date) <today><end> | (which|what)
            date is (it| today|it today|it now|it right now)? | (do|can) you (know|tell me|say) (the
            <date>|today's date) <today>? | (which|what) date (do|have) we (have|got) <today>? | <date>
            (today|please|now|)<end> | I need (the <date>|today's date)<end> | (could|can) you give me (the
            <date>|today's date)? | (whats|wats) the <date> <today> | say (the <date>|today's date) | I
            forgot (the <date>|today's date). | what does the calendar say (today|)? | which date is on the
            calendar <today>? | what would be today's date? | (know|got) (the <date>|today's date)? | what
            is the <date> of today?
        """,
        "date": "4* date | current date | exact date | date of today",
        "today": "3* | today | right now | now | please | of today",
        "end": "| ? | .",
    }
)


def _asked(rng: Random, phrase: str, *values: str) -> tuple[str, str]:
    """The phrase as people would type it, its slots filled, and its key."""
    template = varied(rng, phrase) if rng.random() < 0.4 else typed(rng, phrase)
    small = template == template.lower() and rng.random() < 0.7
    question = template.format(*(value.lower() for value in values) if small else values)
    return question, phrase_key(phrase.format(*values), question)


def order(rng: Random, setting: Setting) -> Dialogue:
    """The day or month before or after another."""
    row, kind = rng.choice([(DAYS, "day"), (MONTHS, "month")])
    place = rng.randrange(len(row))
    side, step = rng.choice([("after", 1), ("before", -1)])
    here, there = row[place], row[(place + step) % len(row)]
    if rng.random() < 0.3:
        phrase = rng.choice(_ORDERS)
    else:
        phrase = unforeseen(lambda: (_AFTER if step == 1 else _BEFORE)[kind](rng))
    shown, roll = here, rng.random()
    if roll < 0.05:
        shown = _SLIPS.get(here, here)
    elif roll < 0.1 and here not in ("Sunday", "March") and "{0}" in phrase:
        shown = here[:3]
    question, key = _asked(rng, phrase, kind, side, shown)
    analysis = thought(
        setting.effort,
        f"{side} {here}: {there}.",
        f"The user asks for the {kind} {side} {here}. It is {there}.",
        f"The user asks for the {kind} {side} {here}. I know the order of the {kind}s. "
        f"{there} comes {side} {here}.",
    )
    return Dialogue(ask(question), Answer(analysis, f"{there} comes {side} {here}."), key=key)


def placed(rng: Random, setting: Setting) -> Dialogue:
    """The first, last or any other day of the week or month of the year."""
    if rng.random() < 0.4:
        place, row, kind, whole = rng.choice([0, 6, rng.randrange(7)]), DAYS, "day", "week"
    else:
        place, row, kind, whole = rng.randrange(12), MONTHS, "month", "year"
    final = place == len(row) - 1
    numeral = "last" if final and rng.random() < 0.7 else NUMERALS[place]
    shown, phrase = numeral, _PLACED(rng)
    if numeral in ("first", "last") and rng.random() < 0.4:
        phrase = (_ENDS if final else _STARTS)(rng)
    elif numeral == "last":
        while "{3}" in phrase:
            phrase = _PLACED(rng)
        shown = rng.choice(["last", "last", "last", "final", "very last"])
    elif rng.random() < 0.25:
        shown = _SHORT_NUMERALS[place]
    number = str(place + 1) if rng.random() < 0.7 else _NUMBERS[place]
    question, key = _asked(rng, phrase, shown, kind, whole, number)
    analysis = thought(
        setting.effort,
        f"{numeral} {kind}: {row[place]}.",
        f"The user asks for the {numeral} {kind}. It is {row[place]}.",
        f"The user asks for the {numeral} {kind} of the {whole}. I know the order of the {kind}s. "
        f"It is {row[place]}.",
    )
    return Dialogue(
        ask(question), Answer(analysis, f"The {numeral} {kind} of the {whole} is {row[place]}."), key=key
    )


def all_of_them(rng: Random, setting: Setting) -> Dialogue:
    """The days of the week, or the months of the year."""
    row, kind, whole = rng.choice([(DAYS, "days", "week"), (MONTHS, "months", "year")])
    analysis = thought(
        setting.effort,
        f"The {kind}.",
        f"The user wants the {kind} of the {whole}. I list them.",
        f"The user wants the {kind} of the {whole}. I know their order, so I list them all.",
    )
    number = rng.choice([str(len(row)), _NUMBERS[len(row) - 1]])
    question, key = _asked(rng, _ROWS(rng), kind, whole, number)
    final = f"The {kind} of the {whole} are {', '.join(row[:-1])} and {row[-1]}."
    return Dialogue(ask(question), Answer(analysis, final), key=key)


def counted(rng: Random, setting: Setting) -> Dialogue:
    """How many of the smaller units the larger has."""
    small, large, fact = rng.choice(COUNTED)
    topic = fact.rstrip(".")
    analysis = thought(
        setting.effort,
        f"{topic}.",
        f"I know this one. {topic}.",
        f"The user asks a question of fact. It is in my table: {topic}.",
    )
    question, key = _asked(rng, _HOW_MANY(rng), small, _one(rng, large))
    return Dialogue(ask(question), Answer(analysis, fact), key=key)


def _one(rng: Random, large: str) -> str:
    roll, noun = rng.random(), large.split()[1]
    return f"one {noun}" if roll < 0.12 else f"a single {noun}" if roll < 0.15 else large


def date(rng: Random, setting: Setting) -> Dialogue:
    """The date, which the system message tells."""
    phrase = _DATES(rng)
    question, key = _asked(rng, phrase)
    analysis = thought(
        setting.effort,
        f"{setting.date}.",
        "The user asks for the date. The system message has it.",
        f"The user asks for the date. The system message has it: {setting.date}.",
    )
    return Dialogue(ask(question), Answer(analysis, f"Today is {setting.date}."), key=f"{setting.date} {key}")
