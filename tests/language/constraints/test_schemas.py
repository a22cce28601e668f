"""Every answer that is sampled under a schema is valid, and no schema keeps the server busy."""

import json
import random
import time
from typing import Any

import jsonschema
import pytest

from language.constraints import AnswerSpec, GrammarFailed, SchemaError
from language.constraints import schemas as limits
from language.constraints.grammar import LIMITS
from language.constraints.sandbox import CompilerSandbox
from language.harmony.messages import ResponseFormat, Tool
from tests.language.constraints.drawn_answers import Speaker, speaker_of

COMPILE_SECONDS, MASK_SECONDS = 6.0, 1.0
"""CPU time of this thread: several times the needed time, and independent of other programs, except for their
use of caches and memory."""


def answer_with(schema: dict[str, Any], *, strict: bool = True) -> AnswerSpec:
    form = ResponseFormat("drawn", schema)
    return AnswerSpec(response_format=form, strict_response=strict, prefilled=True)


def drawn(speaker: Speaker, schema: dict[str, Any], seeds: range) -> list[Any]:
    constraint = speaker.constraints.compile(answer_with(schema))
    bodies = [speaker.read_body(speaker.draw(constraint.copy(), seed), 0, "")[0].body for seed in seeds]
    return [json.loads(body) for body in bodies]


# -- random schemas ------------------------------------------------------------------------------------------


class Author:
    """Writes random schemas with usual keywords."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def document(self) -> dict[str, Any]:
        """An object schema with definitions, to which it refers."""
        definitions = {"leaf": self.leaf(), "tree": self.tree()}
        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        return {**dialect, **self.object(3), "$defs": definitions}

    def any(self, depth: int) -> dict[str, Any]:
        if depth == 0:
            return self.leaf()
        kinds = [self.leaf, lambda: self.object(depth - 1), lambda: self.array(depth - 1)]
        kinds += [
            lambda: self.union(depth - 1),
            lambda: {"$ref": "#/$defs/leaf"},
            lambda: {"$ref": "#/$defs/tree"},
        ]
        return self.random.choice(kinds)()

    def leaf(self) -> dict[str, Any]:
        pick = self.random.randrange
        low = pick(-50, 50)
        return self.random.choice(
            [
                {"type": "string"},
                {"type": "string", "minLength": pick(4), "maxLength": 4 + pick(9), "description": "a few"},
                {"type": "string", "enum": ["red", "grün", 'a "quoted" one', "\n", ""]},
                {
                    "type": "string",
                    "pattern": self.random.choice(["^[a-c]{2,5}$", "^(x|yy)+z?$", "[0-9]{3}", "^$"]),
                },
                {"type": "string", "format": self.random.choice(["date", "uuid", "ipv4", "email", "time"])},
                {"type": "integer"},
                {"type": "integer", "minimum": low, "maximum": low + pick(200)},
                {"type": "integer", "exclusiveMinimum": low, "multipleOf": self.random.choice([1, 3, 10])},
                {"type": "number", "minimum": low / 8, "exclusiveMaximum": low / 8 + 1},
                {"type": "boolean"},
                {"type": "null"},
                {"type": ["integer", "null"]},
                {"const": {"fixed": [1, None, "ü"]}},
                {"enum": [1, "one", None, False, [2], {"three": 3}]},
            ]
        )

    def object(self, depth: int) -> dict[str, Any]:
        names = self.random.sample(["a", "ab", "b", "größe", "with space", 'quo"te', "$ref", "default"], 4)
        properties = {name: self.any(depth) for name in names[: self.random.randrange(5)]}
        required = [name for name in properties if self.random.random() < 0.6]
        more = self.random.choice([False, False, True, {"type": "integer"}])
        whole = {"type": "object", "properties": properties, "required": required}
        return {**whole, "additionalProperties": more, "title": "An object"}

    def array(self, depth: int) -> dict[str, Any]:
        least = self.random.randrange(3)
        if self.random.random() < 0.3:
            fixed = [self.any(depth), self.leaf()]
            return {"type": "array", "prefixItems": fixed, "items": False, "minItems": 1}
        bounds = self.random.choice([{}, {"minItems": least}, {"minItems": least, "maxItems": least + 2}])
        return {"type": "array", "items": self.any(depth), **bounds}

    def union(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.any(depth) for _ in range(self.random.randrange(1, 4))]}

    def tree(self) -> dict[str, Any]:
        branches = {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}
        return {
            "type": "object",
            "properties": {"value": self.leaf(), "branches": branches},
            "required": ["branches"],
            "additionalProperties": False,
        }


@pytest.mark.parametrize("seed", range(50))
def test_what_is_drawn_under_a_random_schema_validates(seed):
    schema = Author(seed).document()
    for answer in drawn(speaker_of("small"), schema, range(6)):
        jsonschema.Draft202012Validator(schema).validate(answer)


@pytest.mark.parametrize(
    "seed", [100, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in (101, 102, 103))]
)
def test_and_with_the_vocabulary_of_the_real_model(seed):
    schema = Author(seed).document()
    for answer in drawn(speaker_of("real"), schema, range(2)):
        jsonschema.Draft202012Validator(schema).validate(answer)


# -- refusals ------------------------------------------------------------------------------------------------

TEXT = {"type": "string"}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = TEXT
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


REFUSED = {
    "a type that there is not": ({"type": "strin"}, "strin"),
    "no schema": ({"properties": {"a": 5}}, "schema must be an object"),
    "a keyword that is not carried out": ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    "nothing satisfies it": ({"type": "integer", "minimum": 5, "maximum": 2}, "minimum"),
    "an address": ({"$ref": "https://example.com/schema.json"}, "same schema"),
    "a file": ({"items": {"$ref": "file:///etc/passwd"}}, "same schema"),
    "a relative address": ({"$id": "https://example.com/a", "$ref": "b"}, "same schema"),
    "a reference to nothing": ({"$ref": "#/$defs/none"}, "none"),
    "a reference to itself": ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "back to itself"),
    "a loop through allOf": ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, ""),
    "too deep": (nested(70), "levels deep"),
    "too deep by far": (nested(50_000), "levels deep"),
    "too wide": ({"properties": {f"k{i}": TEXT for i in range(501)}}, "properties"),
    "too long": ({"enum": [f"value {i}" for i in range(100_000)]}, "longer"),
    "too long a string": ({"const": "x" * 10_001}, "longer"),
    "too large a number": ({"type": "integer", "maximum": 10**5000}, "number"),
    "not a number": ({"type": "number", "maximum": float("nan")}, "number"),
    "endless": ({"type": "number", "maximum": float("inf")}, "number"),
    "an automaton of a million states": ({"type": "integer", "multipleOf": 999_983}, "multipleOf"),
    "and of as many in disguise": ({"properties": {"default": {"multipleOf": 0.99983}}}, "multipleOf"),
    "and in parts": ({"allOf": [{"multipleOf": n} for n in (7, 11, 13, 17, 19)]}, "multipleOf"),
    "look-around": ({"type": "string", "pattern": "^(?=.*a)b$"}, "look-around"),
    "back-references": ({"type": "string", "pattern": r"^(a)\1$"}, "backreferences"),
    "half a surrogate pair": ({"const": "\ud800"}, ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_with_the_reason(name):
    schema, reason = REFUSED[name]
    with pytest.raises(SchemaError) as error:
        speaker_of("small").constraints.compile(answer_with(schema))
    assert reason in str(error.value)
    assert len(str(error.value)) < 500
    assert error.value.param == "response_format.json_schema.schema"


def test_the_error_names_the_tool():
    tools = (
        Tool("fine", None, {"type": "object"}),
        Tool("broken", None, {"properties": {"a": {"type": "strin"}}}),
    )
    spec = AnswerSpec(tools, strict_tools=frozenset({"fine", "broken"}))
    with pytest.raises(SchemaError) as error:
        speaker_of("small").constraints.compile(spec)
    assert error.value.param == "tools[1].function.parameters"
    for parameters in ({"type": "string"}, {"type": ["object", "null"]}):
        with pytest.raises(SchemaError, match="type 'object'"):
            speaker_of("small").constraints.compile(
                AnswerSpec((Tool("f", None, parameters),), strict_tools=frozenset("f"))
            )


HUGE = {"type": "object", "properties": {"a": {"enum": [f"{i:09}" for i in range(5000)]}}}


@pytest.mark.parametrize(
    "parameters",
    [
        [{"type": "string"}],
        [{"properties": {"a": {"type": "strin"}}}],
        [{"properties": {"a": {"$ref": "http://elsewhere/b"}}}],
        [HUGE, {**HUGE, "description": "another"}],
    ],
    ids=["no object", "broken", "elsewhere", "too large together"],
)
def test_a_schema_that_nobody_insists_on_and_that_cannot_be_followed_leaves_any_object(parameters, caplog):
    tools = tuple(Tool(f"f{i}", None, each) for i, each in enumerate(parameters))
    speaker = speaker_of("small")
    constraint = speaker.constraints.compile(AnswerSpec(tools))
    text = '<|channel|>commentary to=functions.f0 <|constrain|>json<|message|>{"x": [1]}<|call|>'
    for token in speaker.tokenizer.encode_with_specials(text):
        assert token in speaker.allowed(constraint)
        constraint.accept(token)
    assert "the arguments of the function f0 may be any JSON object: " in caplog.text


def test_one_schema_that_cannot_be_followed_leaves_the_others_as_they_are():
    tools = (
        Tool("f0", None, {"properties": {"a": {"type": "strin"}}}),
        Tool("f1", None, {"properties": {"n": INTEGER}}),
    )
    speaker = speaker_of("small")
    constraint = speaker.constraints.compile(AnswerSpec(tools))
    text = '<|channel|>commentary to=functions.f1 <|constrain|>json<|message|>{"n": "'
    *before, last = speaker.tokenizer.encode_with_specials(text)
    for token in before:
        assert token in speaker.allowed(constraint)
        constraint.accept(token)
    assert last not in speaker.allowed(constraint)


INTEGER = {"type": "integer"}


def test_if_not_strict_what_cannot_be_carried_out_is_left_out():
    schema = {"type": "array", "uniqueItems": True, "items": {"oneOf": [TEXT, {**TEXT, "minLength": 2}]}}
    constraint = speaker_of("small").constraints.compile(answer_with(schema, strict=False))
    for seed in range(4):
        answer = speaker_of("small").draw(constraint.copy(), seed)
        jsonschema.validate(json.loads(speaker_of("small").tokenizer.decode(answer[:-1])), {"items": TEXT})


def test_options_of_the_grammar_are_not_the_clients_to_set():
    schema = {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}
    with pytest.raises(SchemaError, match="uniqueItems"):
        speaker_of("small").constraints.compile(answer_with(schema))


def test_all_schemas_of_a_request_have_one_limit():
    enum = {"type": "object", "properties": {"a": {"enum": [f"{i:09}" for i in range(5000)]}}}
    tools = tuple(Tool(f"f{i}", None, enum) for i in range(2))
    for i in range(2):
        assert speaker_of("small").constraints.compile(AnswerSpec(tools[i : i + 1], tool_choice="required"))
    with pytest.raises(SchemaError, match="together"):
        speaker_of("small").constraints.compile(AnswerSpec(tools, tool_choice="required"))


# -- hostile schemas -----------------------------------------------------------------------------------------


def record(properties: dict[str, Any], required: bool = True) -> dict[str, Any]:
    whole = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**whole, "required": list(properties) if required else []}


def branches(n: int) -> dict[str, Any]:
    return {"allOf": [{"anyOf": [{"properties": {f"{c}{i}": TEXT}} for c in "ab"]} for i in range(n)]}


def doubling(keyword: str) -> dict[str, Any]:
    levels = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    return {"$ref": "#/$defs/d0", "$defs": {**levels, "d40": TEXT}}


PATTERNS = {
    "nested repetition": "^(a+)+$",
    "a thousand thousand": "^(a{1,1000}){1,1000}$",
    "far apart": "a.{0,30}b.{0,30}c.{0,30}d",
    "counting": "^[^a]*(b|c)?[^d]{0,500}x{3,900}$",
    "many lengths": "^(" + "|".join(f"[a-z]{{{i}}}x" for i in range(300)) + ")+$",
    "sixty levels": "(" * 60 + "a" + "{1,9})" * 60,
    "letters": r"^\p{L}{1,9000}$",
    "long": "^.{100000}$",
}
HOSTILE = {
    "patterns that must all hold": {
        "type": "string",
        "allOf": [{"pattern": f".*{chr(97 + i)}.{{3}}{chr(98 + i)}.*"} for i in range(20)],
    },
    "optional": record({f"k{i}": TEXT for i in range(500)}, required=False),
    "open": {**record({f"k{i}": TEXT for i in range(500)}, required=False), "additionalProperties": True},
    "multiples": record({f"k{i}": {"type": "integer", "multipleOf": 9973, "minimum": i} for i in range(400)}),
    "ranges": record({f"k{i}": {"minimum": 0.12345 * i, "maximum": 98765.4321 * i + 1} for i in range(400)}),
    "products": branches(9),
    "many products": record({f"k{i}": branches(6) for i in range(50)}),
    "alternatives": {"anyOf": [record({f"k{i}": TEXT}) for i in range(700)]},
    "exclusive": {"oneOf": [record({"t": {"const": i}}) for i in range(700)]},
    "a million items": {"type": "array", "minItems": 10**9, "items": {"minLength": 10**6}},
    "doubled by anyOf": doubling("anyOf"),
    "doubled by allOf": doubling("allOf"),
    "endless": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "long constants": record({f"k{i}": {"const": f"{i}" + "x" * 9000} for i in range(9)}),
    **{f"pattern: {name}": {"type": "string", "pattern": pattern} for name, pattern in PATTERNS.items()},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_or_carried_out_in_time(name):
    speaker = speaker_of("real")
    started = time.thread_time()
    try:
        constraint = speaker.constraints.compile(answer_with(HOSTILE[name]))
    except SchemaError:
        constraint = None
    assert time.thread_time() - started < COMPILE_SECONDS
    rng = random.Random(name)
    try:
        for _ in range(25 if constraint else 0):
            started = time.thread_time()
            constraint.mask()
            assert time.thread_time() - started < MASK_SECONDS
            token = rng.choice(speaker.allowed(constraint))
            if token == speaker.special("return"):
                return
            constraint.accept(int(token))
    except GrammarFailed:  # of its own request alone
        pass


def test_a_schema_that_must_be_stopped_harms_no_other():
    constraints = speaker_of("small").constraints
    with pytest.raises(SchemaError, match="more than"):
        constraints.compile(answer_with(HOSTILE["patterns that must all hold"]))
    assert constraints.compile(answer_with(TEXT))


def test_a_schema_in_use_does_not_wait_while_a_stranger_s_is_tried():
    sandbox = CompilerSandbox(LIMITS)
    usual, broken = 'start: "a"', "start: nowhere"
    said = sandbox.why_not(broken)
    assert said
    assert sandbox.why_not(usual) == ""
    with sandbox._turn:  # as long as the other process is busy
        assert sandbox.why_not(usual) == ""
        assert sandbox.why_not(broken) == said


def test_the_limits_leave_room_for_honest_schemas():
    """With the depth that OpenAI allows for strict schemas, and more properties than are usual."""
    level: dict[str, Any] = record({"leaf": TEXT})
    for i in range(9):
        level = record({f"name_{i}_{j}": TEXT for j in range(20)} | {"inner": level})
    assert len(json.dumps(level)) < limits.MAX_CHARACTERS
    assert speaker_of("small").constraints.compile(answer_with(level))
