"""JSON schemas as types: openai-harmony's text where that expresses everything, a complete one elsewhere."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from language.harmony.messages import Conversation, ConversationError, ResponseFormat, Tool
from language.harmony.render import Renderer
from language.harmony.typescript import MAX_DEPTH, ROOM, function_tools
from language.tokenizer import Tokenizer

Schema = dict[str, Any]


def declaration(parameters: Schema | None, description: str = "") -> str:
    text = function_tools([Tool("f", description, parameters)])
    start, end = "# Tools\n\n## functions\n\nnamespace functions {\n\n", "\n\n} // namespace functions"
    assert text.startswith(start)
    assert text.endswith(end)
    return text.removeprefix(start).removesuffix(end)


def the_librarys(oracle: Any, parameters: Schema | None, description: str = "") -> str:
    import openai_harmony as lib

    tools = [lib.ToolDescription.new("f", description, parameters)]
    content = lib.DeveloperContent.new().with_function_tools(tools)
    tokens = oracle.render(lib.Message.from_role_and_content(lib.Role.DEVELOPER, content))
    text = str(oracle.decode(tokens))
    return text.split("namespace functions {\n\n", 1)[1].rsplit("\n\n} // namespace", 1)[0]


def obj(*required: str, **properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def body(**properties: Any) -> str:
    """The text between the braces of a function with these optional parameters."""
    text = declaration(obj(**properties))
    return text.removeprefix("type f = (_: {\n").removesuffix("}) => any;")


# -- where openai-harmony is right ---------------------------------------------------------------------------

ALIKE: dict[str, Schema | None] = {
    "none": None,
    "scalars": obj("b", a={"type": "string"}, b={"type": "integer"}, c={"type": "boolean"}),
    "required in any order": obj("c", "a", a={"type": "string"}, b={"type": "number"}, c={}),
    "no types": obj(a={}, b={"type": "whatever"}),
    "description": obj(a={"type": "string", "description": "An `a`: \"quoted\", with // slashes"}),
    "title": obj(a={"type": "string", "title": "A", "description": "first"}),
    "examples": obj(a={"type": "string", "examples": ["x", "y z"], "description": "d", "title": "t"}),
    "enum": obj(a={"type": "string", "enum": ["x"]}, b={"type": "string", "enum": ["x", "y"]}),
    "default of an enum": obj(a={"type": "string", "enum": ["x", "y"], "default": "y"}),
    "defaults": obj(a={"type": "string", "default": "x"}, b={"type": "number", "default": 1.5}),
    "other defaults": obj(a={"type": "object", "properties": {}, "default": {"k": [1, None, True]}}),
    "arrays": obj(a={"type": "array", "items": {"type": "string"}}, b={"type": "array"}),
    "nested arrays": obj(a={"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}),
    "anything in arrays": obj(a={"type": "array", "items": {}}),
    "types": obj(a={"type": ["string", "null"]}, b={"type": ["integer", "string"], "default": None}),
    "nullable": obj(a={"type": "string", "nullable": True}, b={"type": ["string", "null"], "nullable": True}),
    "nested": obj("a", a=obj("c", b={"type": "string"}, c=obj(d={"type": "number", "description": "deep"}))),
    "array of objects": obj(a={"type": "array", "items": obj("b", b={}), "description": "many"}),
    "described items": obj(a={"type": "array", "items": {**obj(b={"type": "string"}), "description": "one"}}),
    "object without properties": obj(a={"type": "object"}),
    "description of all": {**obj(a={"type": "string"}), "description": "all"},
    "names that are no identifiers": obj("a-b", **{"a-b": {"type": "string"}, "$c d": {"type": "string"}}),
    "oneOf": obj(a={"oneOf": [{"type": "string"}, {"type": "number"}]}),
    "described oneOf": obj(
        a={"description": "one", "oneOf": [{"type": "string", "description": "v"}, {"type": "number"}]},
        b={"oneOf": [{"type": "string", "description": "v", "default": "x"}, {"type": "number"}]},
        c={"oneOf": [{"type": "string"}, {"type": "number", "description": "w"}], "default": 3},
        d={"oneOf": [obj("x", x={"type": "string"}), obj(y={"type": "number"})]},
    ),
    "one property's own description again": obj(
        a={"description": "same", "oneOf": [{"type": "number"}, {"type": "string", "description": "same"}]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALIKE)
def test_types_equal_those_of_openai_harmony(oracle: Any, name: str) -> None:
    assert declaration(ALIKE[name]) == the_librarys(oracle, ALIKE[name])


lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
titles = st.fixed_dictionaries({}, optional={"title": lines})
remarks = st.fixed_dictionaries({}, optional={"description": lines, "title": lines})
types = st.sampled_from(["string", "integer", "boolean", ["string", "null"]])
scalars = st.builds(lambda type, remark: {"type": type, **remark}, types, remarks)
enums = st.builds(
    lambda values, remark: {"type": "string", "enum": values, **remark},
    st.lists(names, min_size=1, unique=True),
    remarks,
)


def nested(values: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """Arrays and objects of `values`, as far as openai-harmony writes them without loss."""
    single = values.filter(lambda v: "enum" not in v and isinstance(v["type"], str))
    items = single.map(lambda v: {key: value for key, value in v.items() if key != "description"})
    arrays = st.builds(lambda v, remark: {"type": "array", "items": v, **remark}, items, remarks)
    properties = st.dictionaries(names, values, max_size=3)
    objects = st.builds(lambda p, title: {**obj(*list(p)[::2], **p), **title}, properties, titles)
    return arrays | objects


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parameters=st.dictionaries(names, st.recursive(scalars | enums, nested, max_leaves=8), min_size=1))
def test_any_plain_type_equals_that_of_openai_harmony(oracle: Any, parameters: Schema) -> None:
    schema = obj(*list(parameters)[1::2], **parameters)
    assert declaration(schema, "d") == the_librarys(oracle, schema, "d")


def test_descriptions_of_functions_are_comments_line_by_line(oracle: Any) -> None:
    for description in ("", "one", "one\ntwo", "one\r\n\r\ntwo\n", "\n", "form\ffeed\u2028"):
        assert declaration(None, description) == the_librarys(oracle, None, description)


# -- where it is not -----------------------------------------------------------------------------------------


def test_functions_without_arguments_have_none() -> None:
    """openai-harmony writes `(_: {\\n})`, which the model answers with odd arguments."""
    for parameters in (None, {}, {"type": "object"}, {"type": "object", "properties": {}}):
        assert declaration(parameters) == "type f = () => any;"


def test_references_are_written_out() -> None:
    """openai-harmony: `any`."""
    schema = {
        **obj(home={"$ref": "#/$defs/Place"}, work={"$ref": "#/definitions/a~1b%20c", "description": "Nine"}),
        "$defs": {"Place": {**obj("city", city={"type": "string"}), "description": "Where"}},
        "definitions": {"a/b c": {"type": "string", "description": "hidden", "default": "x"}},
    }  # fmt: skip
    assert declaration(schema) == (
        "type f = (_: {\n"
        "// Where\n"
        "home?: {\n"
        "    city: string,\n"
        "    },\n"
        "// Nine\n"
        'work?: string, // default: "x"\n'
        "}) => any;"
    )


def test_parameters_may_be_a_reference() -> None:
    schema = {"$ref": "#/$defs/P", "$defs": {"P": obj("x", x={"type": "integer"})}}
    assert declaration(schema) == "type f = (_: {\nx: number,\n}) => any;"


@pytest.mark.parametrize(
    "reference", ["#/$defs/none", "other.json#/a", "#/properties/a/nowhere", "#a", "#/required/" + "9" * 5000]
)
def test_references_that_lead_nowhere_are_any(reference: str) -> None:
    schema = obj(a={"type": "string"}, b={"$ref": reference})
    assert declaration(schema) == "type f = (_: {\na?: string,\nb?: any,\n}) => any;"


def test_a_type_that_contains_itself_is_any_there() -> None:
    node = obj(
        "value", value={"type": "number"}, children={"type": "array", "items": {"$ref": "#/$defs/Node"}}
    )
    schema = {**obj(root={"$ref": "#/$defs/Node"}), "$defs": {"Node": node}}
    assert declaration(schema) == (
        "type f = (_: {\nroot?: {\n    value: number,\n    children?: any[],\n    },\n}) => any;"
    )
    assert declaration(obj(a={"$ref": "#"})) == "type f = (_: {\na?: {\n    a?: any,\n    },\n}) => any;"
    circle = {"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}}
    assert declaration({**obj(a={"$ref": "#/$defs/A"}), **circle}) == "type f = (_: {\na?: any,\n}) => any;"


def test_references_may_point_into_lists() -> None:
    text = body(a={"anyOf": [{"const": 1}, {"const": 2}]}, b={"$ref": "#/properties/a/anyOf/1"})
    assert text == "a?: 1 | 2,\nb?: 2,\n"


def test_unions_intersections_and_literals_are_written_out() -> None:
    """openai-harmony: mostly `any`."""
    assert (
        body(a={"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]})
        == "a?: string | number | null,\n"
    )
    assert body(a={"anyOf": [{"type": "number"}, {"type": "integer"}]}) == "a?: number,\n"
    assert body(a={"const": "x"}, b={"const": 3}, c={"const": None}) == 'a?: "x",\nb?: 3,\nc?: null,\n'
    assert body(a={"type": "integer", "enum": [1, 2]}) == "a?: 1 | 2,\n"
    assert body(a={"enum": ["x", 1, None, True]}) == 'a?: "x" | 1 | null | true,\n'
    assert body(a={"type": ["array", "null"], "items": {"type": "string"}}) == "a?: string[] | null,\n"
    assert body(a={"type": "null"}) == "a?: null,\n"
    assert body(a={"allOf": [{"type": "string"}], "default": "x"}) == 'a?: string, // default: "x"\n'
    assert (
        body(a={"allOf": [{"enum": [1, 2]}, {"type": "object", "properties": {}}]})
        == "a?: (1 | 2) & {\n    },\n"
    )
    assert body(a=False, b=True) == "a?: never,\nb?: any,\n"


def test_variants_that_say_nothing_leave_the_type_alone() -> None:
    a = {"type": "string", "anyOf": [{"format": "date"}, {"format": "time"}]}
    b = {**obj(x={"type": "string"}), "anyOf": [{"required": ["x"]}, {"required": ["y"]}]}
    assert body(a=a, b=b) == "a?: string,\nb?: {\n    x?: string,\n    },\n"
    narrow = {"type": "string", "anyOf": [{"const": "a"}, {"const": "b"}]}
    assert body(a=narrow) == 'a?: "a" | "b",\n'


def test_described_variants_of_any_of_get_a_line_each() -> None:
    a = {
        "anyOf": [{"type": "string", "description": "ISO\ndate"}, {"type": "integer", "description": "epoch"}]
    }
    assert body(a=a) == "a?:\n | string // ISO date\n | number // epoch\n,\n"
    assert body(a={**a, "description": "When"}) == "// When\n" + body(a=a)


def test_unions_in_arrays_are_in_parentheses() -> None:
    """openai-harmony: `"p" | "q"[]`, which says something else."""
    assert (
        body(a={"type": "array", "items": {"type": "string", "enum": ["p", "q"]}}) == 'a?: ("p" | "q")[],\n'
    )
    assert (
        body(a={"type": "array", "items": {"type": "string", "nullable": True}}) == "a?: (string | null)[],\n"
    )
    variants = [{"type": "string"}, {"type": "number"}]
    assert body(a={"type": "array", "items": {"oneOf": variants}}) == "a?: (string | number)[],\n"
    assert body(a={"type": "array", "prefixItems": variants}) == "a?: [string, number],\n"


def test_maps_name_the_type_of_their_values() -> None:
    """openai-harmony: an empty object."""
    a = {"type": "object", "additionalProperties": {"type": "number", "description": "each"}}
    assert body(a=a) == "a?: {\n    // each\n    [key: string]: number,\n    },\n"
    b = {**obj(x={"type": "string"}), "additionalProperties": False}
    assert body(b=b) == "b?: {\n    x?: string,\n    },\n"
    assert declaration({"type": "object", "additionalProperties": True}) != "type f = () => any;"


def test_every_line_of_a_description_is_a_comment_once() -> None:
    """openai-harmony leaves the second line bare, and says the description of an object twice."""
    a = {**obj(b={"type": "string", "description": "in\nside"}), "description": "out\nside"}
    assert body(a=a) == "// out\n// side\na?: {\n    // in\n    // side\n    b?: string,\n    },\n"
    items = {"type": "array", "items": {**obj(b={"type": "string"}), "description": "one\ntwo"}}
    assert body(a=items) == "a?:     // one\n    // two\n{\n    b?: string,\n    }[],\n"


def test_descriptions_of_plain_items_are_kept() -> None:
    """openai-harmony drops them."""
    assert (
        body(a={"type": "array", "items": {"type": "string", "description": "IATA"}})
        == "a?:     // IATA\nstring[],\n"
    )


def test_literals_are_escaped() -> None:
    """openai-harmony breaks the line, or ends the string early."""
    assert body(a={"type": "string", "enum": ['x"y', "z\n"]}) == 'a?: "x\\"y" | "z\\n",\n'
    assert body(a={"type": "string", "default": 'é\n"'}) == 'a?: string, // default: "é\\n\\""\n'
    assert body(a={"examples": [1, {"k": "v"}]}) == '// Examples:\n// - 1\n// - {"k":"v"}\na?: any,\n'


# -- hostile -------------------------------------------------------------------------------------------------


def web(levels: int) -> Schema:
    """2 ** levels types, in a schema of `levels` lines."""
    both = [obj(a={"$ref": f"#/$defs/{i + 1}"}, b={"$ref": f"#/$defs/{i + 1}"}) for i in range(levels)]
    return {
        "$ref": "#/$defs/0",
        "$defs": {**dict(zip(map(str, range(levels)), both, strict=True)), str(levels): {}},
    }


def test_webs_of_references_are_bounded_for_all_tools_together() -> None:
    begin = time.process_time()
    text = function_tools([Tool(f"f{i}", None, web(40)) for i in range(100)])
    assert time.process_time() - begin < 5
    assert len(text) < 8 * ROOM
    small = function_tools([Tool("f", None, web(3))])
    assert small.count("a?") == 1 + 2 + 4


def test_references_to_something_large_are_not_measured_again_and_again() -> None:
    """Before, each of 20,000 references was written out, a megabyte, only to be dropped."""
    large = obj(**{f"p{i}": {"type": "string"} for i in range(30_000)})
    schema = {**obj(**{f"r{i}": {"$ref": "#/$defs/L"} for i in range(20_000)}), "$defs": {"L": large}}
    begin = time.process_time()
    assert declaration(schema).count("?: any,") == 20_000
    assert time.process_time() - begin < 10


def test_large_schemas_without_references_are_written_whole() -> None:
    schema = obj(**{f"p{i}": {"type": "string", "description": "x" * 100} for i in range(4000)})
    assert declaration(schema).count("x" * 100) == 4000


def test_deep_schemas_end_in_any() -> None:
    deep: Schema = {"type": "string"}
    for _ in range(500):
        deep = obj(a=deep)
    text = declaration(deep)
    assert text.count("a?: {") == MAX_DEPTH
    assert "a?: any" in text
    chain = {"$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(5000)}}
    assert declaration({**obj(a={"$ref": "#/$defs/0"}), **chain}) == "type f = (_: {\na?: any,\n}) => any;"


def test_schemas_too_deep_to_print_are_the_clients_error(small: Tokenizer) -> None:
    deep: Schema = {}
    for _ in range(200_000):
        deep = {"a": deep}
    for conversation, param in [
        (Conversation([], response_format=ResponseFormat("x", deep)), "response_format"),
        (Conversation([], [Tool("f", None, obj(a={"default": deep}))]), "tools"),
        (Conversation([], [Tool("f", None, obj(a={"default": 10**5000}))]), "tools"),
    ]:
        with pytest.raises(ConversationError, match="nested too deeply") as error:
            Renderer(small).render(conversation)
        assert error.value.param == param


KEYWORDS = ["type", "properties", "items", "anyOf", "oneOf", "allOf", "$ref", "$defs", "enum", "const"]
KEYWORDS += ["required", "default", "nullable", "description", "title", "examples", "prefixItems"]
KEYWORDS += ["additionalProperties", "patternProperties"]
scraps = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
scraps |= st.sampled_from(["object", "array", "string", "#", "#/$defs", "#/properties"])
nonsense = st.recursive(
    scraps,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), v, max_size=4),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(schema=st.dictionaries(st.sampled_from(KEYWORDS), nonsense))
def test_nonsense_is_written_as_something(schema: Schema) -> None:
    text = declaration(schema)
    assert text.startswith("type f = (")
    assert text.endswith(") => any;")
