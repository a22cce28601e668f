"""lm-format-enforcer: requests as its users send them to vLLM; its parsers check the answers.

Each answer is read character by character, or token by token.  The parser must allow each of them, and the
end.
"""

from enum import Enum

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from tests.clients.conftest import ROOT, Server
from tests.clients.packages import require

require("lmformatenforcer")

from lmformatenforcer import (  # noqa: E402
    CharacterLevelParserConfig,
    JsonSchemaParser,
    RegexParser,
    TokenEnforcer,
    TokenEnforcerTokenizerData,
)
from lmformatenforcer.consts import (  # noqa: E402
    CONFIG_ENV_VAR_MAX_CONSECUTIVE_WHITESPACES as MAX_WHITESPACE,
)


class Team(Enum):
    BULLS = "Bulls"
    LAKERS = "Lakers"


class Season(BaseModel):
    model_config = ConfigDict(extra="forbid")
    year: int = Field(ge=1946, le=2100)
    team: Team


class Player(BaseModel):
    """Like the type in lm-format-enforcer's README, with a list, a reference, a choice and bounds."""

    model_config = ConfigDict(extra="forbid")
    first_name: str = Field(max_length=12)
    number: int = Field(ge=0, le=99)
    active: bool
    seasons: list[Season] = Field(min_length=1, max_length=2)


PLAYER = Player.model_json_schema()
SENTIMENT = "[Pp]ositive|[Nn]egative"
DATE = r"20\d\d-(0[1-9]|1[0-2])-[0-3]\d"
BACKEND = {"guided_decoding_backend": "lm-format-enforcer"}
LIMIT = {"temperature": 0, "frequency_penalty": 1, "max_tokens": 400}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.base_url, api_key="x", max_retries=0, timeout=300) as client:
        yield client


@pytest.fixture
def ask(client, server):
    def ask(question, **fields):
        answer = client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": question}], **LIMIT, **fields
        )
        return answer.choices[0].message.content

    return ask


def accepts(parser, text):
    """Its alphabet is printable ASCII; a string of JSON may have any other character too."""
    parser.config = CharacterLevelParserConfig(alphabet=parser.config.alphabet + text)
    for character in text:
        if character not in parser.get_allowed_characters():
            return False
        parser = parser.add_character(character)
    return parser.can_end()


@pytest.mark.parametrize(
    "fields",
    [
        {"extra_body": {"guided_json": PLAYER, **BACKEND}},
        {"extra_body": {"structured_outputs": {"json": PLAYER, "_backend": "lm-format-enforcer"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "player", "schema": PLAYER}}},
    ],
    ids=["guided_json", "structured_outputs", "response_format"],
)
def test_its_parser_of_schemas_accepts_the_answer(ask, fields):
    said = ask("Who was Michael Jordan? Answer with JSON.", **fields)
    assert accepts(JsonSchemaParser(PLAYER), said), said
    assert Player.model_validate_json(said)


def test_its_parser_of_schemas_accepts_a_stream(client, server):
    chunks = client.chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": "Who was Michael Jordan?"}], stream=True,
        extra_body={"guided_json": PLAYER, **BACKEND}, **LIMIT,
    )  # fmt: skip
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert accepts(JsonSchemaParser(PLAYER), said), said


def test_its_parser_of_any_json_accepts_an_object(ask):
    said = ask(
        "Ben is 14 years old. Give me his name and age as JSON.", response_format={"type": "json_object"}
    )
    assert accepts(JsonSchemaParser(None), said), said


@pytest.mark.parametrize("pattern", [SENTIMENT, DATE, r"[A-Z]\d{2}(-[a-f]{3})?"])
@pytest.mark.parametrize("name", ["guided_regex", "structured_outputs"])
def test_its_parser_of_patterns_accepts_the_answer(ask, pattern, name):
    body = {"guided_regex": pattern, **BACKEND} if name == "guided_regex" else {name: {"regex": pattern}}
    said = ask("Classify this sentiment: LMFE is wonderful!", extra_body=body)
    assert accepts(RegexParser(pattern), said), said


def test_its_parsers_refuse_what_a_free_answer_says(ask):
    """Else the tests above would show nothing."""
    said = ask("Hello!")
    assert not accepts(RegexParser(SENTIMENT), said)
    assert not accepts(JsonSchemaParser(PLAYER), said)
    assert not accepts(JsonSchemaParser(PLAYER), '{"first_name": "Anna", "number": 100}')


def test_a_choice_is_one_of_those_given(ask):
    assert ask("Is LMFE good?", extra_body={"guided_choice": ["yes", "no"], **BACKEND}) in ("yes", "no")


@pytest.fixture(scope="module")
def tokens(server):
    """The demo's tokens, in the form in which lm-format-enforcer wants them."""
    if server.model != Server.model:
        pytest.xfail("another model has other tokens")
    tokenizer = Tokenizer.from_file(str(ROOT / "demo" / "weights" / "tokenizer.json"))
    special = tokenizer.get_added_tokens_decoder()
    texts = {id: tokenizer.decode([id]) for id in range(tokenizer.get_vocab_size()) if id not in special}
    return TokenEnforcerTokenizerData(
        [(id, text, False) for id, text in texts.items()],
        lambda ids: tokenizer.decode(ids).rstrip("�"),  # half a character
        tokenizer.token_to_id("<|return|>"),
        use_bitmask=False,
        vocab_size=tokenizer.get_vocab_size(),
    )


@pytest.mark.parametrize(
    ("field", "value", "parser"),
    [("guided_json", PLAYER, JsonSchemaParser), ("guided_regex", DATE, RegexParser)],
)
def test_its_enforcer_allows_each_token_of_the_answer(
    client, server, tokens, field, value, parser, monkeypatch
):
    monkeypatch.setenv(MAX_WHITESPACE, "66")  # the server allows spaces around a line end and 64 more
    body = {field: value, "return_token_ids": True, **BACKEND}
    answer = client.completions.create(
        model=server.model, prompt="Michael Jordan: ", extra_body=body, **LIMIT
    )
    *ids, end = answer.choices[0].token_ids
    enforcer = TokenEnforcer(tokens, parser(value))
    for place, id in enumerate([*ids, end]):
        assert id in enforcer.get_allowed_tokens(ids[:place]).allowed_tokens, (answer.choices[0].text, place)
    assert end == tokens.eos_token_id


def test_its_enforcer_can_hold_an_answer_from_outside(client, server, tokens):
    """One token a request, of those that it allows: what its logits processors do inside other servers."""
    enforcer, ids = TokenEnforcer(tokens, RegexParser(DATE)), []
    while tokens.eos_token_id not in (allowed := enforcer.get_allowed_tokens(ids).allowed_tokens):
        assert len(ids) < 10
        body = {"allowed_token_ids": allowed, "return_token_ids": True}
        answer = client.completions.create(
            model=server.model, prompt=[1, *ids], temperature=0, max_tokens=1, extra_body=body
        )
        (token,) = answer.choices[0].token_ids
        assert token in allowed
        ids.append(token)
    said = tokens.decoder(ids)
    assert accepts(RegexParser(DATE), said), said
