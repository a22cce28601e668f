"""Calling a declared function with the right arguments, and using its result.

A call has at most two arguments, as compact JSON in the order of the schema; optional arguments that the user
did not mention are omitted.  A result that is a flat JSON object is written as `key value, key value`; any
other text is repeated unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from demo.corpus import words
from demo.corpus.askings.wishes import WISHES, a_remark
from demo.corpus.functions import FUNCTIONS, Function, Parameter, Value
from demo.corpus.sample import (
    Answer,
    Dialogue,
    FunctionCall,
    Setting,
    listed,
    thought,
    typed,
    up_to_the_slot,
    varied,
)
from demo.wordings import unforeseen
from language.harmony.messages import Call, Message, Tool

_VERBS = listed("""
    get set find make check create update delete run load start fetch read open count magic my
""")
_NOUNS = listed("""
    item user file note page song task room value number list record report image function thing order
    product event tool
""")
_KEYS = listed("""
    a b x y n id name value text input key size title level mode user item count path flag city day
    color query number data
""")
_KINDS: dict[str, Callable[[Random], Value]] = {
    "string": words.word,
    "integer": lambda rng: int(words.number(rng, 4)),
    "number": lambda rng: round(rng.uniform(0, 99), 1),
    "boolean": lambda rng: rng.random() < 0.5,
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a user wants from a function: how they say it, and the call that carries it out.

    alone  whether the function's name does not tell what it does: then no other one may be declared
    """

    tool: Tool
    said: str
    call: FunctionCall
    alone: bool = False


def calling(rng: Random, setting: Setting) -> Dialogue:
    """The call, among declared functions."""
    wish = a_wish(rng)
    return Dialogue(
        (Message("user", wish.said),),
        Answer(_plan(wish, setting), call=wish.call),
        key=wish.call.arguments + wish.said,
        tools=(wish.tool,),
        fresh=wish.alone,
        alone=wish.alone,
    )


def using(rng: Random, setting: Setting) -> Dialogue:
    """The answer after a function's result."""
    wish = a_wish(rng)
    content, told = _result(rng, wish)
    call = Call(f"call_{rng.randrange(10**6)}", wish.call.name, wish.call.arguments)
    thinking = _plan(wish, setting) if rng.random() < 0.6 else None
    messages = (
        Message("user", wish.said),
        Message("assistant", None, reasoning=thinking, calls=(call,)),
        Message("tool", content, call_id=call.id),
    )
    analysis = thought(
        setting.effort,
        "The result is here.",
        "The function has answered. I tell the user.",
        f"The function has answered. I tell the user what {wish.tool.name} said, and nothing else.",
    )
    return Dialogue(
        messages,
        Answer(analysis, f"{wish.tool.name} says: {told}"),
        key=content,
        tools=(wish.tool,),
        fresh=wish.alone,
        alone=wish.alone,
    )


def used(rng: Random, setting: Setting, wish: Wish) -> list[Message]:
    """An earlier turn: the call, its result, and the answer."""
    content, told = _result(rng, wish)
    call = Call(f"call_{rng.randrange(10**6)}", wish.call.name, wish.call.arguments)
    return [
        Message("user", wish.said),
        Message("assistant", None, calls=(call,)),
        Message("tool", content, call_id=call.id),
        Message("assistant", f"{wish.tool.name} says: {told}"),
    ]


def other_tools(rng: Random, besides: tuple[Tool, ...]) -> list[Tool]:
    """Functions that the user did not ask for, mixed with those of `besides`."""
    tools = list(besides)
    families = set(map(_family, besides))
    for _ in range(rng.choice([0, 0, 0, 1, 1]) if besides else 1):
        tool = a_wish(rng).tool
        if _family(tool) not in families:
            tools.insert(rng.randint(0, len(tools)), tool)
            families.add(_family(tool))
    return tools


def a_wish(rng: Random) -> Wish:
    roll = rng.random()
    if roll < 0.3:
        return _spoken(rng, FUNCTIONS[0])
    return _spoken(rng, rng.choice(FUNCTIONS)) if roll < 0.82 else _spelled_out(rng)


def alike(some: tuple[Tool, ...], others: tuple[Tool, ...]) -> bool:
    """Whether one of the functions does what one of the others does."""
    return bool(set(map(_family, some)) & set(map(_family, others)))


def _family(tool: Tool) -> str:
    """The same text for functions that do the same.  Two of them in one list would make the right call
    ambiguous.
    """
    for function in FUNCTIONS:
        if tool.name in function.names or (tool.description and tool.description in function.descriptions):
            return function.names[0]
    return tool.name


def _plan(wish: Wish, setting: Setting) -> str | None:
    given = json.loads(wish.call.arguments)
    name = wish.call.name
    return thought(
        setting.effort,
        f"Call {name}.",
        f"I should call {name}.",
        f"The user wants something that a function can do. "
        f"I should call {name} with {spoken(given) or 'no arguments'}.",
    )


def plain(value: object) -> str:
    """A JSON value as text in a sentence."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def spoken(values: Mapping[str, object]) -> str:
    """A JSON object as text in a sentence."""
    return ", ".join(f"{key} {plain(value)}" for key, value in values.items())


def compact(value: object) -> str:
    """JSON as the model writes it: no spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _spoken(rng: Random, function: Function) -> Wish:
    """A wish for a common function, in words."""
    arguments: dict[str, Value] = {}
    properties: dict[str, Any] = {}
    required: list[str] = []
    slots: dict[str, Value] = {}
    mentions = ""
    for parameter in function.parameters:
        if not parameter.always and rng.random() < 0.5:
            continue
        key = parameter.names[0] if rng.random() < 0.5 else rng.choice(parameter.names)
        if key in properties:
            key = parameter.names[0]
        value = parameter.make(rng)
        properties[key] = _schema(rng, parameter)
        given = parameter.always or rng.random() < 0.4
        if given:
            arguments[key] = value
            mentions += parameter.mention.format(value)
            if parameter.always or rng.random() < 0.25:
                required.append(key)
        slots[parameter.names[0]] = value
    said = asked(rng, function).format(**{slot: plain(value) for slot, value in slots.items()})
    if mentions and said[-1] not in ".?!":
        said += "."
    name = function.names[0] if rng.random() < 0.5 else rng.choice(function.names)
    descriptions = function.descriptions
    alone = False
    if rng.random() < 0.25:
        alone = rng.random() < 0.6
        name = _vague(rng) if alone else _spelled(rng, name)
        descriptions = tuple(told for told in descriptions if told)
    return Wish(
        _tool(rng, name, rng.choice(descriptions), properties, required),
        said + mentions,
        FunctionCall(name, compact(arguments)),
        alone,
    )


def asked(rng: Random, function: Function) -> str:
    """A template that asks for the function, as people would type it."""
    return unforeseen(lambda: _typed(rng, WISHES[function.names[0]](rng)))


def _typed(rng: Random, phrase: str) -> str:
    template = up_to_the_slot(typed(rng, phrase) if rng.random() < 0.4 else varied(rng, phrase), phrase)
    if rng.random() < 0.1:
        template = f"{a_remark(rng, 'before')} {template[0].lower()}{template[1:]}"
    elif template[-1] in ".?!" and rng.random() < 0.1:
        template = f"{template} {a_remark(rng, 'after')}"
    return template


_VAGUE = listed("""
    final_result final_result final_result tool fn func run answer result respond response action output
    extract call execute my_tool my_function function submit return_result structured_output format_output
    main handler invoke do_it Answer Output Result Response Extract
""")


def _vague(rng: Random) -> str:
    """A name that does not tell what the function does."""
    if rng.random() < 0.7:
        return rng.choice(_VAGUE)
    return f"{rng.choice(_VERBS)}_{rng.choice(_NOUNS)}"


def _spelled(rng: Random, name: str) -> str:
    """Another form of the name of a common function."""
    first, *rest = name.split("_")
    return rng.choice(
        [
            first + "".join(part.capitalize() for part in rest),
            "".join(part.capitalize() for part in (first, *rest)),
            f"{rng.choice(['do', 'my', 'the', 'run', 'call'])}_{name}",
            f"{name}_{rng.choice(['v2', 'tool', 'now', 'api', '2', 'function'])}",
        ]
    )


def _schema(rng: Random, parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.type}
    if parameter.enum:
        schema["enum"] = list(parameter.enum)
    if parameter.description and rng.random() < 0.4:
        schema["description"] = parameter.description if rng.random() < 0.5 else f"The {words.word(rng)}."
    return schema


def _tool(
    rng: Random, name: str, description: str | None, properties: dict[str, Any], required: list[str]
) -> Tool:
    if not properties and rng.random() < 0.5:
        return Tool(name, description)
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    return Tool(name, description, schema)


def _spelled_out(rng: Random) -> Wish:
    """A wish for an invented function, with each argument named."""
    name = rng.choice(
        [
            f"{rng.choice(_VERBS)}_{rng.choice(_NOUNS)}",
            f"{rng.choice(_VERBS)}_{words.word(rng)}",
            words.invented(rng),
        ]
    )
    properties: dict[str, Any] = {}
    arguments: dict[str, Value] = {}
    required: list[str] = []
    for key in rng.sample(_KEYS, rng.choice([1, 1, 2, 2])):
        kind = rng.choice(["string", "string", "integer", "integer", "number", "boolean"])
        properties[key] = {"type": kind}
        if rng.random() < 0.1:
            properties[key]["description"] = f"The {words.word(rng)}."
        if rng.random() < 0.12 and arguments:
            continue
        required.append(key)
        arguments[key] = _KINDS[kind](rng)
    description = rng.choice(
        [None, None, f"{rng.choice(_VERBS).capitalize()} a {rng.choice(_NOUNS)}.", f"{words.sentence(rng)}."]
    )
    tool = _tool(rng, name, description, properties, required)
    pairs = list(arguments.items())
    if len(pairs) == 1 and rng.random() < 0.5:
        value = plain(pairs[0][1])
        form = rng.choice(
            [
                "What is the value of {0}({1})? Use the tool.",
                "Call {0} with {1}.",
                "Use {0} on {1}.",
                "{0}({1})",
                "Run {0} for {1}.",
            ]
        )
        return Wish(tool, form.format(name, value), FunctionCall(name, compact(arguments)))
    link, joint = rng.choice(
        [(" = ", ", "), ("=", ", "), (" ", " and "), (": ", ", "), (" ", ", "), (" set to ", " and ")]
    )
    if rng.random() < 0.25:
        rng.shuffle(pairs)
    listed = joint.join(f"{key}{link}{plain(value)}" for key, value in pairs)
    form = rng.choice(
        [
            "Call {0} with {1}.",
            "Use {0} with {1}.",
            "Please call {0} with {1}.",
            "Run {0}: {1}",
            "Use the {0} tool with {1}.",
            "{0}: {1}",
            "Call the function {0} with {1}.",
            "call {0} with {1}",
        ]
    )
    return Wish(tool, form.format(name, listed), FunctionCall(name, compact(arguments)))


_SKIES = listed("sunny rainy cloudy windy snow")
_RESULT_KEYS = listed("""
    temperature condition result status value id city name price count time unit forecast humidity wind
    error message total date score
""")


def _result(rng: Random, wish: Wish) -> tuple[str, str]:
    """The function's result, and the text with which the model reports it."""
    roll = rng.random()
    if roll < 0.5:
        given = json.loads(wish.call.arguments)
        found: dict[str, Value] = {
            key: value for key, value in given.items() if rng.random() < 0.3 and not isinstance(value, list)
        }
        for key in rng.sample(_RESULT_KEYS, rng.choice([1, 2, 2, 3]) - (len(found) > 0)):
            found[key] = rng.choice(
                [
                    words.word(rng),
                    int(words.number(rng, 4)),
                    rng.choice(["sunny", "rainy", "cloudy", "done", "ok"]),
                    _KINDS[rng.choice(list(_KINDS))](rng),
                ]
            )
        spaced = rng.random() < 0.7
        content = json.dumps(found, ensure_ascii=False) if spaced else compact(found)
        return content, ", ".join(f"{key} {plain(value)}" for key, value in found.items())
    if roll < 0.7:
        content = rng.choice(
            [
                f"{rng.randint(-20, 40)} degrees and {rng.choice(_SKIES)}",
                f"{words.number(rng, 5)}",
                "ok",
                "done",
                f"{rng.randint(-20, 40)}°C",
                f"{rng.randint(-20, 40)} C, {rng.choice(['clear', 'rain', 'snow'])}",
                "true",
                f"error: {words.word(rng)} not found",
            ]
        )
        return content, content
    content = rng.choice(
        [
            words.text(rng),
            words.sentence(rng) + ".",
            f"It is {rng.randint(-9, 40)} degrees and {words.word(rng)} in {words.city(rng)}.",
        ]
    )
    return content, content
