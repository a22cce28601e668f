"""The format of the visible answer: a JSON schema, a pattern, a choice, a grammar, tags, tokens.

`response_format` is OpenAI's field (in Responses `text.format`), `structured_outputs` vLLM's.  Other servers'
names are replaced by these before a body is validated (server/fields/elsewhere.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from language.constraints import Format
from language.harmony.messages import Grammar, ResponseFormat
from server.api.shared_fields import Body, Many, TokenId
from server.errors import bad_request

FormatName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
BadWord = Annotated[str, Field(min_length=1, max_length=200)]

LONGEST = 100_000
"""Maximum characters of a pattern, a grammar, or of all choices together; language/constraints accepts no
more.
"""

NAME = "response"
"""Name of a schema that has none.  The prompt needs one."""


class JsonSchema(Body):
    name: FormatName | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormatBody(Body):
    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    structures: list[Any] | None = None
    triggers: list[Any] | None = None
    format: dict[str, Any] | None = None


class StructuredOutputs(Body):
    """Exactly one of these fields says what format the answer has."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = Field(None, min_length=1, max_length=LONGEST)
    choice: Annotated[Many[str], Field(min_length=1, max_length=1000)] | None = None
    grammar: str | None = Field(None, min_length=1, max_length=LONGEST)
    json_object: bool | None = None
    structural_tag: dict[str, Any] | str | None = None

    @property
    def given(self) -> dict[str, Any]:
        fields = ("json_", "regex", "choice", "grammar", "json_object", "structural_tag")
        values = {name.rstrip("_"): getattr(self, name) for name in fields}
        return {name: value for name, value in values.items() if value is not None and value is not False}


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """The format that a request asks for.

    strict  whether an unsupported keyword of the schema is an error
    param   the field of the request that asks for it
    """

    format: Format = "text"
    strict: bool = False
    param: str = "response_format"


class OutputFields(Body):
    """The fields beyond OpenAI's that determine the format of the visible answer, in all of its APIs.

    FORMAT  OpenAI's field for it
    """

    FORMAT: ClassVar[str]

    structured_outputs: StructuredOutputs | None = None
    allowed_token_ids: Many[TokenId] | None = Field(None, min_length=1, max_length=10_000)
    bad_words: Many[BadWord] | None = Field(None, max_length=100)

    def openai_format(self) -> AnswerFormat | None:
        """What FORMAT asks for; None: any text.  Raises ApiError."""
        raise NotImplementedError

    def answer_format(self) -> AnswerFormat:
        """Raises ApiError."""
        asked = self.openai_format()
        outputs = self.structured_outputs.given if self.structured_outputs else {}
        given = [
            *([self.FORMAT] if asked else []),
            *(f"structured_outputs.{name}" for name in outputs),
            *(name for name in ("allowed_token_ids", "bad_words") if getattr(self, name)),
        ]
        if len(given) > 1:
            first, second, *_ = given
            raise bad_request(f"{second}: it cannot be combined with {first}", second)
        if asked is not None:
            return asked
        for name, value in outputs.items():
            return _of_structured_outputs(name, value)
        return AnswerFormat()

    def format_demands(self, known: Callable[[int], bool], special: frozenset[int]) -> dict[str, Any]:
        """The fields of `Demands` that determine the visible answer.

        known    whether a number is the id of a token
        special  tokens that are never part of an answer; they may always end it

        Raises ApiError.
        """
        asked = self.answer_format()
        tokens, allows_none = None, False
        if self.allowed_token_ids is not None:
            for i, id in enumerate(self.allowed_token_ids):
                if not known(id):
                    param = f"allowed_token_ids[{i}]"
                    raise bad_request(f"{param}: {id} is not the id of a token", param)
            tokens = tuple(id for id in self.allowed_token_ids if id not in special)
            allows_none = len(tokens) < len(self.allowed_token_ids)  # an end is among them
            if not tokens:
                raise bad_request("allowed_token_ids: an answer needs a token of text", "allowed_token_ids")
        return {
            "response_format": asked.format,
            "strict_response": asked.strict,
            "format_param": asked.param,
            "allowed_tokens": tokens,
            "allows_none": allows_none,
            "bad_words": tuple(self.bad_words or ()),
        }


class AnswerFields(OutputFields):
    """The fields of chats and completions that determine the format of the visible answer."""

    FORMAT: ClassVar[str] = "response_format"

    response_format: ResponseFormatBody | None = None

    def openai_format(self) -> AnswerFormat | None:
        asked = self.response_format
        return None if asked is None or asked.type == "text" else _of_response_format(asked)


def _of_response_format(asked: ResponseFormatBody) -> AnswerFormat:
    match asked.type:
        case "json_object" if asked.schema_ is not None:
            return AnswerFormat(ResponseFormat(NAME, asked.schema_), param="response_format.schema")
        case "json_object":
            return AnswerFormat("json_object")
        case "json_schema":
            named = asked.json_schema
            if named is None and asked.schema_ is not None:
                return AnswerFormat(ResponseFormat(NAME, asked.schema_), param="response_format.schema")
            if named is None:
                param = "response_format.json_schema"
                raise bad_request(f"{param}: it is missing", param)
            schema = {"type": "object"} if named.json_schema is None else named.json_schema
            return AnswerFormat(
                ResponseFormat(named.name or NAME, schema, named.description), bool(named.strict)
            )
    tag: dict[str, Any] = {"structures": asked.structures, "triggers": asked.triggers}
    tag = {"format": asked.format} if asked.format is not None else tag
    return AnswerFormat(Grammar("structural_tag", json.dumps(tag)))


def _of_structured_outputs(name: str, value: Any) -> AnswerFormat:
    param = f"structured_outputs.{name}"
    match name:
        case "json_object":
            return AnswerFormat("json_object", param=param)
        case "json":
            return AnswerFormat(ResponseFormat(NAME, _object(value, param)), param=param)
        case "regex":
            return AnswerFormat(Grammar("regex", _without_anchors(value)), param=param)
        case "choice":
            if sum(map(len, value)) > LONGEST:
                raise bad_request(f"{param}: at most {LONGEST} characters together", param)
            return AnswerFormat(Grammar("regex", "|".join(map(_literally, value))), param=param)
        case "grammar":
            return AnswerFormat(Grammar("gbnf" if "::=" in value else "lark", value), param=param)
    return AnswerFormat(Grammar("structural_tag", json.dumps(_object(value, param))), param=param)


def _object(value: dict[str, Any] | str, param: str) -> dict[str, Any]:
    """A JSON object, or one that is written in a string."""
    if isinstance(value, dict):
        return value
    if len(value) > LONGEST:
        raise bad_request(f"{param}: at most {LONGEST} characters", param)
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise bad_request(f"{param}: it is not a JSON object", param)
    return parsed


def _without_anchors(pattern: str) -> str:
    """A pattern without ^ and $, which change nothing because the whole answer must match."""
    pattern = pattern.removeprefix("^")
    bare = pattern.removesuffix("$")
    escaped = (len(bare) - len(bare.rstrip("\\"))) % 2 == 1
    return pattern if escaped else bare


def _literally(text: str) -> str:
    """A pattern that matches only this text."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)
