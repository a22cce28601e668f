"""Filling a small JSON object from what the user says.

Its keys are given by a schema in the developer message (`response_format`), or by the user's message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from demo.corpus import words
from demo.corpus.functions import Value
from demo.corpus.sample import Answer, Dialogue, Setting, ask, listed, phrases, thought, varied
from demo.corpus.tools import compact, plain, spoken
from language.harmony.messages import ResponseFormat


@dataclass(frozen=True, slots=True)
class Field:
    """phrases  ways to say the value, after a subject; each has one slot"""

    keys: tuple[str, ...]
    make: Callable[[Random], Value]
    phrases: tuple[str, ...]
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
    Field(("age", "years"), _small, ("is {} years old", "is {}", "is aged {}"), "integer"),
    Field(("city", "town", "location", "home"), words.city, ("lives in {}", "comes from {}", "is from {}")),
    Field(("job", "profession", "occupation"), lambda rng: rng.choice(_JOBS), ("works as a {}", "is a {}")),
    Field(("email", "mail"), words.email, ("has the email {}", "can be reached at {}")),
    Field(("pet", "animal"), lambda rng: rng.choice(words.ANIMALS), ("has a {}", "owns a {}")),
    Field(
        ("color", "favourite_color", "colour"),
        lambda rng: rng.choice(words.COLOURS),
        ("likes the colour {}", "loves {}"),
    ),
    Field(("children", "kids"), lambda rng: rng.randint(1, 6), ("has {} children",), "integer"),
)
_ARTICLE = (
    Field(("price", "cost"), _price, ("costs {}", "costs {} euros", "is {} euros"), "number"),
    Field(("color", "colour"), lambda rng: rng.choice(words.COLOURS), ("is {}", "comes in {}")),
    Field(("quantity", "count", "stock"), _small, ("is there {} times",), "integer"),
    Field(
        ("size",),
        lambda rng: rng.choice(["small", "medium", "large"]),
        ("is {}", "has size {}"),
        enum=("small", "medium", "large"),
    ),
    Field(("shop", "store"), words.name, ("is sold by {}",)),
)
_EVENT = (
    Field(("day",), lambda rng: rng.choice(words.DAYS), ("is on {}", "takes place on {}")),
    Field(("city", "place", "location"), words.city, ("is in {}", "happens in {}")),
    Field(
        ("guests", "people", "participants"),
        lambda rng: [words.name(rng).split()[0] for _ in range(rng.randint(1, 2))],
        ("is for {}", "is with {}"),
        "array",
    ),
    Field(
        ("time", "start"),
        lambda rng: f"{rng.randint(0, 23)}:{rng.choice(['00', '15', '30', '45'])}",
        ("starts at {}", "begins at {}"),
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
        lambda rng: f"The {words.word(rng)}",
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
_PRESENTED = phrases("""
    My brother {} | Our neighbour {} | My colleague {} | Meet {}, who | {}, who | Here is {}, who | I know
    {}, who | The new one is {}, who | This is my friend {}, who | That's {}, who | That is {}, who | Do
    you know {}, who | This here is {}, who | You know {}, who | this is my colleague {}, who | Say hello
    to {}, who
""")
_KEYS = listed("""
    name age city id title color price size count type tag code level user email value key year day note
    kind status total rank
""")
_ORDERS = phrases("""
    Give me JSON with the keys {k}: {t} | Reply with JSON, keys {k}: {t} | Extract {k} as JSON: {t} | {t}
    Give me that as JSON with {k}. | {t} Reply in JSON with the keys {k}. | Make a JSON object with {k}: {t}
    | As JSON with {k}: {t} | Return a JSON object with the keys {k}. {t} | Write this as JSON with the keys
    {k}: {t} | Convert to JSON with the keys {k}: {t} | JSON with {k}: {t} | {t} Give {k} as JSON. | {t}
    Give me {k} as JSON. | {t} JSON with {k}, please. | {t} Put {k} into JSON. | Put this into JSON with
    {k}: {t} | Fill JSON with {k}: {t} | json {k}: {t} | {t} Extract {k} as JSON. | {t} Make JSON with {k}.
    | {t} Write {k} as JSON. | {t} Return JSON with {k}. | I need JSON with {k}: {t} | I want {k} in JSON.
    {t} | Get {k} as JSON: {t} | Write {k} as JSON. {t} | Find {k}, answer in JSON. {t} | {k} in JSON: {t} |
    Show me {k} as JSON: {t} | {t} As a JSON object with {k}. | {t} Answer in JSON with {k}. | {t} Reply
    with JSON: {k}. | {t} Turn it into JSON with {k}.
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
        template = _order(rng, rng.choice(_ORDERS)).replace("{k}", listed)
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


def _order(rng: Random, template: str) -> str:
    return (
        template
        if template.startswith("{") or rng.random() < 0.8
        else "Please " + template[0].lower() + template[1:]
    )


def described(rng: Random) -> tuple[str, dict[str, Value], dict[str, str], dict[str, tuple[str, ...]]]:
    """A description of somebody or something: the text, the object, and the types and enums of its keys."""
    _, names, make, fields = rng.choice([_SUBJECTS[0], _SUBJECTS[0], *_SUBJECTS])
    subject = make(rng)
    chosen = rng.sample(fields, rng.choice([1, 1, 2, 2]))
    found: dict[str, Value] = {rng.choice(names): subject.removeprefix("The ")}
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
    if fields is _PERSON and rng.random() < 0.12:
        subject = rng.choice(_PRESENTED).format(subject)
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
        found[key] = words.sentence(rng) if kind == "string" and rng.random() < 0.1 else words.word(rng)
        if kind == "integer":
            found[key] = int(words.number(rng, 4))
        elif kind == "boolean":
            found[key] = rng.random() < 0.5
    link, joint = rng.choice(
        [(" is ", ", "), (": ", ", "), (" = ", ", "), (" is ", " and "), (" ", ", "), ("=", " ")]
    )
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
    if rng.random() < 0.85:
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
        said = _order(rng, rng.choice(_ORDERS)).replace("{k}", named).replace("{t}", text)
    else:
        said = varied(rng, rng.choice(_BARE)).format(t=text, n=name)
    return said, ResponseFormat(name, schema)
