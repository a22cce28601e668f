"""Calls of a tool that takes text have exactly the text that its grammar allows, after the right header."""

import pytest

from language.constraints import AnswerSpec, SchemaError
from language.harmony.builtin import TOOLS
from language.harmony.header_tokens import HeaderTokens
from language.harmony.messages import Grammar, Tool
from tests.language.constraints.drawn_answers import speaker_of

PATCH = """
start: "*** Begin Patch" LF line+ "*** End Patch" LF?
line: ("+" | "-") /(.*)/ LF
%import common.LF
"""
PATCHES = Tool("patch", text=Grammar("lark", PATCH))
DATE = Tool("date", text=Grammar("regex", r"\d{4}/\d\d|\\/\n?"))
FREE = Tool("note", text=True)
GOOD = "*** Begin Patch\n+a <b> }\n-\n*** End Patch"


@pytest.fixture(scope="module")
def speaker():
    return speaker_of("small")


def taken(speaker, tool, body, *others):
    """Whether a call with this body can be sampled."""
    spec = AnswerSpec((tool, *others), tool_choice="required")
    constraint = speaker.constraints.compile(spec)
    tokenizer = speaker.tokenizer
    tokens = [*HeaderTokens(tokenizer).call(tool), *tokenizer.encode(body), tokenizer.special("<|call|>")]
    for token in tokens:
        if token not in speaker.allowed(constraint):
            return False
        constraint.accept(token)
    return True


@pytest.mark.parametrize(
    ("tool", "good", "bad"),
    [
        (PATCHES, GOOD, "*** Begin Patch\n*** End Patch"),
        (PATCHES, GOOD + "\n", '{"input": "x"}'),
        (DATE, "2025/06", "2025-06"),
        (DATE, "\\/\n", "2025/0"),
    ],
)
def test_the_input_follows_the_grammar(speaker, tool, good, bad):
    assert taken(speaker, tool, good, FREE, Tool("get"))
    assert not taken(speaker, tool, bad, FREE, Tool("get"))


@pytest.mark.parametrize("text", ["", "*** anything }\n\\", '"', GOOD])
def test_text_without_a_grammar_is_any_text(speaker, text):
    assert taken(speaker, FREE, text, PATCHES)
    assert taken(speaker, TOOLS["python"], text, FREE)


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        (Grammar("lark", "start: nothing"), "grammar"),
        (Grammar("lark", 'start: "a"\n}\nstart: "b"'), "grammar"),
        (Grammar("lark", 'start: "a'), "grammar"),
        (Grammar("lark", ""), "grammar"),
        (Grammar("regex", "(a"), "grammar"),
        (Grammar("regex", "a(?=b)"), "grammar"),
        (Grammar("lark", "a" * 200_000), "longer"),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_refused_with_its_place(speaker, grammar, said):
    with pytest.raises(SchemaError, match=said) as error:
        speaker.constraints.compile(AnswerSpec((FREE, Tool("bad", text=grammar))))
    assert error.value.param == "tools[1].format"
