"""docs/messages.md lists every field of Anthropic's requests, and what it says is true."""

import re
from pathlib import Path

import pytest

from server.api.messages.body import MessagesBody
from tests.server.api.messages.anthropic_form import post, told_of
from tests.server.fakes import final, live

PAGE = Path(__file__).parents[4] / "docs" / "messages.md"
TOLD = dict(re.findall(r"^\| `(\w+)` \| (honoured|ignored|refused) \|", PAGE.read_text(), re.MULTILINE))


def named(verdict):
    return sorted(field for field, told in TOLD.items() if told == verdict)


def test_every_field_of_the_server_is_told():
    assert set(MessagesBody.model_fields) == {*named("honoured"), *named("refused")}


@pytest.mark.parametrize("types", ["types", "types.beta"])
def test_every_field_of_the_sdk_is_told(types):
    params = pytest.importorskip(f"anthropic.{types}.message_create_params")
    fields = set(params.MessageCreateParamsNonStreaming.__annotations__) - {"betas"}  # which is a header
    assert fields <= TOLD.keys(), fields - TOLD.keys()


@pytest.mark.parametrize("field", named("ignored"))
def test_an_ignored_field_may_be_anything(field, tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello")) as server:
        assert post(server, **{field: {"any": ["thing"]}}).status_code == 200


@pytest.mark.parametrize("field", named("refused"))
def test_a_refused_field_is_refused_by_name(field, tiny_tokenizer):
    with live(tiny_tokenizer, final("Hello")) as server:
        status, _, message = told_of(server, **{field: ["x"]})
    assert status == 400
    assert message.startswith(field)
