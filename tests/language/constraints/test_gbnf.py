"""llama.cpp's grammars allow the same texts after the translation to Lark; what Lark cannot express is
refused.
"""

import pytest

from language.constraints import AnswerSpec, SchemaError
from language.constraints.gbnf import GbnfError, as_lark
from language.harmony.messages import Grammar
from tests.language.constraints.drawn_answers import speaker_of

JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value
    ("," ws value)* )? "]" ws   # over two lines
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
SUMS = 'root ::= term ("+" term)*\nterm ::= [0-9]+ | "(" root ")"'


def taken(text, grammar):
    """Whether the whole answer can be this text."""
    speaker = speaker_of("small")
    spec = AnswerSpec(response_format=Grammar("gbnf", grammar), prefilled=True)
    constraint = speaker.constraints.compile(spec)
    for token in [*speaker.tokenizer.encode(text), speaker.special("return")]:
        if token not in speaker.allowed(constraint):
            return False
        constraint.accept(token)
    return True


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= "yes" | "no"', ["yes", "no"], ["yesno", "", "y"]),
        ('root ::= [a-z]* "c"', ["abc", "c", "cc"], ["ab", ""]),
        ('root ::= word "." \nword ::= "if" | "iffy" | "i" [a-z]', ["if.", "iffy.", "ix."], ["iff."]),
        ('root ::= ("a" | ) "b"{2,3}', ["abb", "bbb"], ["ab", "bbbb"]),
        (r'root ::= [^/"\]] [-+] [\]\[^-] .', ["x+]\n", "é-^/"], ["/+]a", "x*]a"]),
        (r'root ::= "\x41\u00e9\U0001F600/\"\\\t"', ['Aé😀/"\\\t'], ["A"]),
        ("root ::= ( item )+\nitem ::= \"- \" [^\\n]+ \"\\n\"", ["- a b\n- c\n"], ["- \n", "a\n"]),
        ('root ::=\n  "a" |\n  "b" # or\nother-rule ::= "c"', ["a", "b"], ["c"]),
        (SUMS, ["1+(22+3)", "((7))"], ["1+", "(1"]),
        (JSON, ['{"a": [1.5, {"b\\n": null}]}', "{}"], ['{"a" 1}', "[1]"]),
    ],
)  # fmt: skip
def test_it_allows_what_the_grammar_says(grammar, good, bad):
    assert [text for text in good if not taken(text, grammar)] == []
    assert [text for text in bad if taken(text, grammar)] == []


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("", "root"),
        ('x ::= "a"', "root"),
        ("root ::= other", "'other'"),
        ('root ::= "a', "line 1"),
        ('root ::= "b"\n  ("a"', "bracket"),
        ("root ::= )", "brackets"),
        ("root ::= " + "(" * 100, "brackets"),
        ("root ::= <think> .*", "'<think>'"),
        ("root ::= !<[17]>", "vocabulary"),
        ("root ::= * .", "repeat"),
        ("root ::= [b-a]", "backwards"),
        ("root ::= []", "empty"),
        (r'root ::= "\q"', "escape"),
        (r'root ::= "\ud800"', "character"),
        ('"a"', "begin"),
        ("root ::= a\n" + "\n".join(f'r{i} ::= "a"' for i in range(3000)), "more than"),
    ],
)
def test_what_it_cannot_be_is_refused_with_a_reason(grammar, reason):
    with pytest.raises(GbnfError, match=reason):
        as_lark(grammar)
    speaker = speaker_of("small")
    with pytest.raises(SchemaError, match="cannot be followed") as error:
        speaker.constraints.compile(
            AnswerSpec(response_format=Grammar("gbnf", grammar), format_param="grammar")
        )
    assert error.value.param == "grammar"


def test_a_long_grammar_is_translated_in_time_that_grows_with_its_length():
    rules = "\n".join(f'r{i} ::= "{"a" * 20}" r{i + 1} | [a-z]+' for i in range(1500))
    assert len(as_lark(f'root ::= r0\n{rules}\nr1500 ::= "end"').split("\n")) == 1503
