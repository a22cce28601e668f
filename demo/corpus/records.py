"""Filling a small JSON object from what the user says.

Its keys are given by a schema in the developer message (`response_format`), or by the user's message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from demo.corpus import words
from demo.corpus.askings.grammar import Grammar
from demo.corpus.askings.orders import a_json_order
from demo.corpus.functions import Value
from demo.corpus.sample import Answer, Dialogue, Setting, ask, listed, phrases, thought, varied
from demo.corpus.tools import compact, plain, spoken
from language.harmony.messages import ResponseFormat


@dataclass(frozen=True, slots=True)
class Field:
    """phrases  ways to say the value, after a subject; each has one slot"""

    keys: tuple[str, ...]
    make: Callable[[Random], Value]
    phrases: list[str]
    type: str = "string"
    enum: tuple[str, ...] = ()


def _small(rng: Random) -> int:
    return rng.randint(1, 99)


def _price(rng: Random) -> float:
    return rng.choice([float(rng.randint(1, 60)), round(rng.uniform(0.5, 99), 2)])


_JOBS = listed("""
    teacher doctor baker painter farmer pilot singer nurse writer cook judge driver
""")
_PERSON = (
    Field(
        ("age", "years"),
        _small,
        phrases("""
            is {} years old | is {} | is aged {} | turned {} | just turned {} | turns {} today | is now
            {} | was {} years old | is a {} year old | has turned {} | will be {} soon | became {} years
            old | is already {}
        """),
        "integer",
    ),
    Field(
        ("city", "town", "location", "home"),
        words.city,
        phrases("""
            lives in {} | comes from {} | is from {} | lives now in {} | moved to {} | was born in {} |
            grew up in {} | works in {} | has a house in {} | stays in {} | is living in {} | studies in
            {} | resides in {} | was in {} | has lived in {} for years
        """),
    ),
    Field(
        ("job", "profession", "occupation"),
        lambda rng: rng.choice(_JOBS),
        phrases("""
            works as a {} | is a {} | became a {} | is working as a {} | was a {} | earns money as a {}
            | wants to be a {} | is employed as a {} | trained as a {}
        """),
    ),
    Field(
        ("email", "mail"),
        words.email,
        phrases("""
            has the email {} | can be reached at {} | writes from {} | uses {} | has the address {} |
            reads mail at {} | is {}
        """),
    ),
    Field(
        ("pet", "animal"),
        lambda rng: rng.choice(words.ANIMALS),
        phrases("""
            has a {} | owns a {} | keeps a {} | bought a {} | got a {} | loves a {} | walks a {}
        """),
    ),
    Field(
        ("color", "favourite_color", "colour"),
        lambda rng: rng.choice(words.COLOURS),
        phrases("""
            likes the colour {} | loves {} | likes {} | prefers {} | wears {} | always wears {}
        """),
    ),
    Field(
        ("children", "kids"),
        lambda rng: rng.randint(1, 6),
        phrases("has {} children | has {} kids | is raising {} children | takes care of {} kids"),
        "integer",
    ),
)
_ARTICLE = (
    Field(
        ("price", "cost"),
        _price,
        phrases("""
            costs {} | costs {} euros | is {} euros | sells for {} | goes for {} dollars | was {} | can
            be bought for {}
        """),
        "number",
    ),
    Field(
        ("color", "colour"),
        lambda rng: rng.choice(words.COLOURS),
        phrases("is {} | comes in {} | was painted {} | is sold in {} | looks {}"),
    ),
    Field(
        ("quantity", "count", "stock"),
        _small,
        phrases("is there {} times | is in stock {} times | was sold {} times"),
        "integer",
    ),
    Field(
        ("size",),
        lambda rng: rng.choice(["small", "medium", "large"]),
        phrases("is {} | has size {} | comes in {} | is of {} size"),
        enum=("small", "medium", "large"),
    ),
    Field(("shop", "store"), words.name, phrases("is sold by {} | comes from {} | can be found at {}")),
)
_EVENT = (
    Field(
        ("day",),
        lambda rng: rng.choice(words.DAYS),
        phrases("""
            is on {} | takes place on {} | was moved to {} | will be on {} | happens on {} | is planned
            for {}
        """),
    ),
    Field(
        ("city", "place", "location"),
        words.city,
        phrases("is in {} | happens in {} | takes place in {} | will be in {} | is held in {}"),
    ),
    Field(
        ("guests", "people", "participants"),
        lambda rng: [words.name(rng).split()[0] for _ in range(rng.randint(1, 2))],
        phrases("is for {} | is with {} | was arranged with {} | is planned with {}"),
        "array",
    ),
    Field(
        ("time", "start"),
        lambda rng: f"{rng.randint(0, 23)}:{rng.choice(['00', '15', '30', '45'])}",
        phrases("""
            starts at {} | begins at {} | is at {} | opens at {} | was moved to {} | will start at {}
        """),
    ),
)
_SUBJECTS: tuple[tuple[tuple[str, ...], tuple[str, ...], Callable[[Random], str], tuple[Field, ...]], ...] = (
    (
        ("person", "user", "profile", "contact", "Person", "UserInfo", "answer", "response"),
        ("name", "name", "first_name", "user"),
        words.name,
        _PERSON,
    ),
    (
        ("item", "product", "article", "thing"),
        ("item", "name", "product"),
        lambda rng: f"The {rng.choice(words.THINGS) if rng.random() < 0.6 else words.invented(rng)}",
        _ARTICLE,
    ),
    (
        ("event", "calendar_event", "CalendarEvent", "meeting"),
        ("event", "name", "title"),
        lambda rng: (
            f"The {rng.choice(['meeting', 'party', 'concert', 'lunch', 'dinner', 'lesson', words.word(rng)])}"
        ),
        _EVENT,
    ),
)
_PRESENTED = Grammar(
    {
        "start": """
            6* <whose> <relation> {} | <whose> <relation>, {}, | <whose> <relation> is (called|named) {}
            and | <whose> <relation> (called|named) {} | the <relation>'s name is {}, who | (meet|here
            is|I know|that's|that is|this is|do you know|this here is|you know|say hello to|we have|there
            is| this here was|the new one is|I met|I work with) ({}|<whose> <relation> {}), who | {}, who
            | {}, <whose> <relation>, | (so|well|ok|today|yesterday|note), {} | <whose> <relation> {} |
            (a|one) <relation>, {}, | our new <relation> {} | hi, {}
        """,
        "whose": "4* my | 2* our | her | his | your | their | the",
        "relation": """
            brother | sister | cousin | uncle | aunt | mother | father | son | daughter | friend | best friend
            | neighbour | colleague | boss | teacher | nephew | niece | wife | husband | roommate | client |
            customer | classmate | grandma | grandpa | girlfriend | boyfriend | old friend | student | guest |
            doctor | coach | partner | buddy | tenant | twin
        """,
    }
)
"""How a person is presented before what is said about them."""
_KEYS = listed("""
    name age city id title color price size count type tag code level user email value key year day note
    kind status total rank
""")
_BARE = phrases("""
    {t} | {t} | Extract: {t} | Fill in the object: {t} | Extract the data: {t} | Extract the {n}
    information. {t} | Read this: {t} | Give me the {n}: {t} | {t} Give me the {n}. | As JSON: {t} |
    Extract the {n}: {t} | {t} Reply in JSON.
""")


def records(rng: Random, setting: Setting) -> Dialogue:
    text, found, types, enums = described(rng) if rng.random() < 0.82 else _listed(rng)
    analysis_keys = ", ".join(found)
    response_format = None
    if rng.random() < 0.6:
        text, response_format = _by_schema(rng, text, found, types, enums)
        analysis_keys = ", ".join(found)
    else:
        keys = list(found)
        listed = rng.choice(
            [", ".join(keys), " and ".join([", ".join(keys[:-1]), keys[-1]]) if len(keys) > 1 else keys[0]]
        )
        template = _order(rng).replace("{k}", listed)
        if template.endswith("{t}") and rng.random() < 0.2:
            text = text.rstrip(".")
        text = template.replace("{t}", text)
    analysis = thought(
        setting.effort,
        f"Fill in {analysis_keys}.",
        f"The user wants JSON with {analysis_keys}.",
        f"The user wants JSON. I look for each value in the text: {spoken(found)}.",
    )
    final = compact(found)
    return Dialogue(ask(text), Answer(analysis, final), key=final + text, response_format=response_format)


def _order(rng: Random) -> str:
    """A template that asks for JSON, sometimes in small letters."""
    template = a_json_order(rng)
    if template.startswith("{t} ") and rng.random() < 0.8:
        return template[:4] + template[4].upper() + template[5:]
    return template[0].lower() + template[1:] if rng.random() < 0.25 else template


def described(rng: Random) -> tuple[str, dict[str, Value], dict[str, str], dict[str, tuple[str, ...]]]:
    """A description of somebody or something: the text, the object, and the types and enums of its keys."""
    _, names, make, fields = rng.choice([_SUBJECTS[0], _SUBJECTS[0], *_SUBJECTS])
    subject = make(rng)
    chosen = rng.sample(fields, rng.choice([1, 1, 2, 2]))
    key = rng.choice(names)
    if key == "first_name" and " " in subject:
        key = "name"
    found: dict[str, Value] = {key: subject.removeprefix("The ")}
    types, enums = dict.fromkeys(found, "string"), {}
    clauses = []
    for field in chosen:
        key = rng.choice(field.keys)
        value = field.make(rng)
        found[key], types[key] = value, field.type
        if field.enum:
            enums[key] = field.enum
        clauses.append(
            rng.choice(field.phrases).format(" and ".join(value) if isinstance(value, list) else plain(value))
        )
    if fields is _PERSON and rng.random() < 0.25:
        presented = _PRESENTED(rng)
        subject = (presented if rng.random() < 0.7 else presented[0].lower() + presented[1:]).format(subject)
    said = rng.choice([", ".join(clauses), " and ".join(clauses), " and ".join(clauses)])
    text = f"{subject} {said}."
    if rng.random() < 0.2 and len(found) > 1:
        order = list(found)
        rng.shuffle(order)
        found = {key: found[key] for key in order}
    return text, found, types, enums


def _listed(rng: Random) -> tuple[str, dict[str, Value], dict[str, str], dict[str, tuple[str, ...]]]:
    """A text that lists keys and values, without a subject; results as in `described`."""
    found: dict[str, Value] = {}
    types: dict[str, str] = {}
    for key in rng.sample(_KEYS, rng.choice([1, 2, 2, 3])):
        kind = rng.choice(["string", "string", "integer", "boolean"])
        types[key] = kind
        found[key] = words.word(rng)
        if kind == "integer":
            found[key] = int(words.number(rng, 4))
        elif kind == "boolean":
            found[key] = rng.random() < 0.5
    link, joint = rng.choice([(" is ", ", "), (": ", ", "), (" = ", ", "), (" is ", " and "), ("=", " ")])
    return joint.join(f"{key}{link}{plain(value)}" for key, value in found.items()), found, types, {}


def _allowed(rng: Random, key: str, value: Value, enums: dict[str, tuple[str, ...]]) -> list[Value]:
    """The values that the schema allows: the field's own, or this one among others."""
    if key in enums:
        return list(enums[key])
    values: list[Value] = [value, *(words.word(rng) for _ in range(rng.randint(1, 2)))]
    rng.shuffle(values)
    return values


def _by_schema(
    rng: Random, text: str, found: dict[str, Value], types: dict[str, str], enums: dict[str, tuple[str, ...]]
) -> tuple[str, ResponseFormat]:
    """The same asked for by a schema."""
    properties: dict[str, Any] = {}
    for key in found:
        properties[key] = {"type": types[key]}
        if types[key] == "array":
            properties[key]["items"] = {"type": "string"}
        if key in enums or (types[key] == "string" and rng.random() < 0.06):
            properties[key]["enum"] = _allowed(rng, key, found[key], enums)
        if rng.random() < 0.1:
            properties[key]["description"] = f"The {key}."
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.95:
        schema["required"] = list(found)
    if rng.random() < 0.6:
        schema["additionalProperties"] = False
    if rng.random() < 0.25:
        schema = {"title": rng.choice(["Answer", "Person", "Item"]), **schema}
    name = rng.choice([*rng.choice(_SUBJECTS)[0], "schema", "json", "answer"])
    if rng.random() < 0.2:
        keys = list(found)
        named = (
            ", ".join(keys)
            if rng.random() < 0.5
            else " and ".join([", ".join(keys[:-1]), keys[-1]]).removeprefix(" and ")
        )
        said = _order(rng).replace("{k}", named).replace("{t}", text)
    else:
        said = varied(rng, rng.choice(_BARE)).format(t=text, n=name)
    return said, ResponseFormat(name, schema)
