"""The reader never raises and loses no text, whatever the model samples, and counts deviations from the
format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from language.harmony.messages import Call, Conversation, Message
from language.harmony.reader import CallDelta, CallStart, ContentDelta, Delta, Reader, ReasoningDelta
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer
from tests.vocabularies import SPECIALS

shared = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Answer:
    """An answer assembled from deltas."""

    reasoning: str = ""
    content: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    recoveries: int = 0

    def add(self, delta: Delta) -> None:
        match delta:
            case ReasoningDelta(text):
                self.reasoning += text
            case ContentDelta(text):
                self.content += text
            case CallStart(index, name):
                assert index == len(self.calls)
                self.calls.append((name, ""))
            case CallDelta(index, arguments):
                name, so_far = self.calls[index]
                self.calls[index] = (name, so_far + arguments)


def read(tokenizer: Tokenizer, tokens: list[int], prefilled: str | None = None) -> Answer:
    reader = Reader(tokenizer, prefilled)
    answer = Answer()
    for token in tokens:
        for delta in reader.feed(token):
            answer.add(delta)
    for delta in reader.finish():
        answer.add(delta)
    assert reader.finish() == []
    answer.recoveries = reader.recoveries
    return answer


def heard(tokenizer: Tokenizer, text: str, prefilled: str | None = None) -> Answer:
    return read(tokenizer, tokenizer.encode_with_specials(text), prefilled)


# -- what the format says ------------------------------------------------------------------------------------

HM = "<|channel|>analysis<|message|>Hm.<|end|>"
THOUGHT = f"{HM}<|start|>assistant"
PROPER = {
    f"{THOUGHT}<|channel|>final<|message|>Hi!<|return|>": Answer("Hm.", "Hi!"),
    f'{THOUGHT}<|channel|>commentary to=functions.f <|constrain|>json<|message|>{{"a": 1}}<|call|>': Answer(
        "Hm.", "", [("f", '{"a": 1}')]
    ),
    "<|channel|>commentary<|message|>Let me see.<|end|>"
    "<|start|>assistant<|channel|>commentary to=functions.g<|message|>{}<|call|>"
    "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>[]<|call|>": Answer(
        "", "Let me see.", [("g", "{}"), ("f", "[]")]
    ),
    " to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>": Answer(
        "", "", [("f", "{}")]
    ),
    '<|channel|>final <|constrain|>json<|message|>{"ok": true}<|return|>': Answer("", '{"ok": true}'),
    "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>": Answer(
        "ab"
    ),
    "<|channel|>commentary to=functions.wait<|message|><|call|>": Answer("", "", [("wait", "")]),
    "<|channel|>final<|message|><|return|>": Answer(),
    "": Answer(),
}


@pytest.mark.parametrize("said", PROPER)
def test_proper_answers_are_read_without_recoveries(small: Tokenizer, said: str) -> None:
    assert heard(small, said) == PROPER[said]


@pytest.mark.parametrize("said", PROPER)
def test_an_answer_cut_short_keeps_what_it_had(small: Tokenizer, said: str) -> None:
    tokens = small.encode_with_specials(said)
    whole = PROPER[said]
    for end in range(len(tokens)):
        part = read(small, tokens[:end])
        assert whole.reasoning.startswith(part.reasoning)
        assert whole.content.startswith(part.content)
        assert [name for name, _ in part.calls] == [name for name, _ in whole.calls][: len(part.calls)]
        pairs = zip(part.calls, whole.calls, strict=False)
        assert all(all_of.startswith(some) for (_, some), (_, all_of) in pairs)


def test_a_prefilled_answer_is_content_from_its_first_token(small: Tokenizer) -> None:
    assert heard(small, "Hi!<|return|>", "final") == Answer("", "Hi!")
    assert heard(small, "Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi", "analysis") == Answer(
        "Hm.", "Hi"
    )


# -- what it does not say ------------------------------------------------------------------------------------

COMMENTARY = "<|channel|>commentary"
FINAL = "<|channel|>final<|message|>"
JSON = " <|constrain|>json<|message|>{}<|call|>"


def call(recoveries: int = 0) -> Answer:
    return Answer("", "", [("f", "{}")], recoveries)


def hi(recoveries: int = 0, reasoning: str = "") -> Answer:
    return Answer(reasoning, "Hi", [], recoveries)


ODD = {
    # In each of these openai-harmony raises ...
    f"{COMMENTARY} to=functions.f to=functions.f{JSON}": call(1),
    f" to=functions.f{COMMENTARY} to=functions.f{JSON}": call(1),
    f" to=functions.g{COMMENTARY} to=functions.f{JSON}": call(1),
    f"{COMMENTARY} to=functions.get weather{JSON}": Answer("", "", [("get weather", "{}")]),
    f"{HM}assistant{FINAL}Hi<|return|>": hi(1, "Hm."),
    f"{HM}{FINAL}Hi<|return|>": hi(2, "Hm."),
    f"{HM}<|message|>Hi<|return|>": hi(3, "Hm."),
    f"{HM}<|start|>{FINAL}Hi<|return|>": hi(1, "Hm."),
    f"{THOUGHT}assistant{FINAL}Hi<|return|>": hi(1, "Hm."),
    f"assistant{FINAL}Hi<|return|>": hi(1),
    # ... in these it takes the type for a name, or for part of one,
    f"{COMMENTARY} to=functions.f json<|message|>{{}}<|call|>": call(),
    f"{COMMENTARY} to=functions.f<|constrain|>json<|message|>{{}}<|call|>": call(),
    "<|channel|>final json<|message|>Hi<|return|>": hi(1),
    # ... and these belong to nobody.
    "<|channel|>thoughts<|message|>Hi<|return|>": hi(1),
    "<|channel|><|message|>Hi<|return|>": hi(1),
    "<|message|>Hi<|return|>": hi(1),
    "<|channel|>final final<|message|>Hi<|return|>": hi(1),
    f"<|channel|>analysis{FINAL}Hi<|return|>": hi(1),
    f"<|channel|>analysis <|constrain|>json{FINAL}Hi<|return|>": hi(1),
    # Text where a header should be.
    "Hi<|return|>": hi(2),
    "tomato soup": Answer("", "tomato soup", [], 2),
    " to": Answer(),  # the beginning of a recipient
    "to": Answer("", "to", [], 1),
    f"a<|start|>assistant{FINAL}b": Answer("", "ab", [], 2),
    "\n\nHi": Answer("", "\n\nHi", [], 2),
    f"{THOUGHT}Hi<|return|>": hi(2, "Hm."),
    f"{THOUGHT}\nHi<|return|>": Answer("Hm.", "\nHi", [], 2),
    f"{HM}Hi<|return|>": hi(4, "Hm."),
    "<|channel|>final\nHi<|return|>": Answer("", "\nHi", [], 1),
    "<|channel|>final Hi<|return|>": Answer("", " Hi", [], 1),
    "<|channel|>final <|constrain|>json{}<|return|>": Answer("", "{}", [], 1),
    f'{COMMENTARY} to=functions.f {{"a":\n1}}<|call|>': Answer("", "", [("f", ' {"a":\n1}')], 1),
    # An end that is missing, or another's.
    f"<|channel|>analysis<|message|>Hm.<|start|>assistant{FINAL}Hi": hi(1, "Hm."),
    f"<|channel|>analysis<|message|>Hm.{FINAL}Hi": hi(2, "Hm."),
    f"{COMMENTARY} to=functions.f<|message|>{{}}<|end|>": call(1),
    f"{FINAL}Hi<|call|>": hi(1),
    f"{FINAL}Hi<|return|><|return|>": hi(1),
    # Headers without a body.
    "<|channel|>final<|return|>": Answer(recoveries=1),
    "<|channel|>fin<|return|>": Answer(recoveries=1),
    f"{COMMENTARY} to=functions.f<|call|>": Answer(recoveries=1),
    f"{COMMENTARY} to=functions.f<|start|>assistant{FINAL}Hi": hi(1),
    f"<|start|>assistant{FINAL}Hi": hi(1),
    "<|return|>": Answer(recoveries=1),
    # Calls that are not quite calls of functions, and messages to those who are no functions.
    "<|channel|>analysis to=functions.f<|message|>{}<|call|>": call(1),
    f"{COMMENTARY} to=f{JSON}": call(1),
    "<|channel|>analysis to=python code<|message|>1+1<|call|>": Answer("", "", [("python", "1+1")], 1),
    f"{COMMENTARY} to=<|message|>Hi<|end|>": hi(),
    "<|channel|>final to=user<|message|>Hi<|return|>": hi(),
    # The roles of others.
    f"{FINAL}Hi<|end|><|start|>user<|message|>And you?<|end|>": hi(2, "And you?"),
    f"{FINAL}Hi<|end|><|start|>system<|message|>You are<|end|>": hi(2, "You are"),
    f"{COMMENTARY} to=functions.f{JSON}<|start|>functions.f to=assistant{COMMENTARY}<|message|>42<|end|>": (
        Answer("42", "", [("f", "{}")], 1)
    ),
    # Special tokens where they mean nothing.
    f"{FINAL}a<|message|>b<|constrain|>c<|endoftext|>d": Answer("", "abcd", [], 3),
    "<|endoftext|><|channel|>final<|startoftext|><|message|>Hi": hi(2),
}


@pytest.mark.parametrize("said", ODD)
def test_odd_answers_are_read_and_counted(small: Tokenizer, said: str) -> None:
    assert heard(small, said) == ODD[said]


def test_a_header_that_does_not_end_becomes_an_answer(small: Tokenizer) -> None:
    story = "word " * 200
    assert heard(small, f"<|channel|>final {story}") == Answer("", f" {story}", [], 1)
    assert heard(small, f"<|channel|>{story}") == Answer("", story, [], 2)
    many = "assistant" * 200
    answer = heard(small, f"<|start|>{many}")
    assert len(answer.content) > 1000


# -- soups ---------------------------------------------------------------------------------------------------


@shared
@given(data=st.data())
def test_random_tokens_never_raise(small: Tokenizer, data: st.DataObject) -> None:
    special = st.sampled_from(sorted(small.specials.values()))
    words = st.sampled_from(
        ["assistant", "analysis", "final", "commentary", " to=", "functions.f", "\n", "user", ":"]
    )
    token = st.integers(-2, small.size + 9).map(lambda id: [id]) | special.map(lambda id: [id])
    soup = data.draw(st.lists(token | words.map(small.encode)))
    read(small, [id for part in soup for id in part])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens=st.lists(st.integers(0, 201087) | st.integers(199990, 200020), max_size=100))
def test_random_tokens_of_the_real_vocabulary_never_raise(real: Tokenizer, tokens: list[int]) -> None:
    read(real, tokens)


@shared
@given(tokens=st.lists(st.integers(len(SPECIALS), 499)))
def test_text_without_any_header_is_all_there(small: Tokenizer, tokens: list[int]) -> None:
    text = small.decode(tokens)
    if "to=" not in text and not " to=".startswith(text.rstrip()):
        assert read(small, tokens).content == text


bodies = st.lists(st.integers(len(SPECIALS), 499), max_size=20)
headers = st.sampled_from(
    [
        ("<|start|>assistant<|channel|>analysis<|message|>", "reasoning"),
        ("<|start|>assistant<|channel|>final<|message|>", "content"),
        ("<|start|>assistant<|channel|>final <|constrain|>json<|message|>", "content"),
        ("<|start|>assistant<|channel|>commentary<|message|>", "content"),
        ("<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>", "call"),
        ("<|start|>assistant to=functions.f<|channel|>analysis<|message|>", "call"),
        ("<|start|>user<|message|>", "reasoning"),
        ("<|channel|>nonsense<|message|>", "content"),
        ("<|message|>", "content"),
    ]
)
ends = st.sampled_from(["<|end|>", "<|return|>", "<|call|>"])


@shared
@given(messages=st.lists(st.tuples(headers, bodies, ends), max_size=5))
def test_each_body_lands_whole_in_exactly_one_place(small: Tokenizer, messages: list[Any]) -> None:
    tokens: list[int] = []
    expected: dict[str, str] = {"reasoning": "", "content": "", "call": ""}
    for (header, place), body, end in messages:
        tokens += [*small.encode_with_specials(header), *body, small.special(end)]
        expected[place] += small.decode(body)
    answer = read(small, tokens)
    got = {"reasoning": answer.reasoning, "content": answer.content}
    assert {**got, "call": "".join(arguments for _, arguments in answer.calls)} == expected


texts = st.text(max_size=30) | st.lists(st.sampled_from([*SPECIALS, "é😀", "\n"])).map("".join)


@shared
@given(text=texts, arguments=texts, thought=texts)
@example(text="<|end|><|start|>", arguments='{"a": "😀"}', thought="é")
def test_what_is_said_does_not_depend_on_how_it_is_split(
    small: Tokenizer, text: str, arguments: str, thought: str
) -> None:
    single = {small.token_bytes(id): id for id in range(small.size)}

    def message(header: str, body: str, end: str) -> tuple[list[int], list[int]]:
        before, after = small.encode_with_specials(header), [small.special(end)]
        spelled = [single[bytes([byte])] for byte in body.encode()]
        return [*before, *small.encode(body), *after], [*before, *spelled, *after]

    parts = [
        message("<|channel|>analysis<|message|>", thought, "<|end|>"),
        message("<|start|>assistant<|channel|>commentary<|message|>", text, "<|end|>"),
        message("<|start|>assistant<|channel|>commentary to=functions.f<|message|>", arguments, "<|call|>"),
    ]
    expected = Answer(thought, text, [("f", arguments)])
    assert read(small, [id for merged, _ in parts for id in merged]) == expected
    assert read(small, [id for _, spelled in parts for id in spelled]) == expected


@shared
@given(reasoning=texts.filter(bool), content=texts.filter(bool), arguments=texts)
def test_what_is_written_is_read_back(small: Tokenizer, reasoning: str, content: str, arguments: str) -> None:
    """The reader can read the assistant messages that the renderer writes."""
    message = Message("assistant", content, reasoning, (Call("c", "f", arguments),))
    renderer = Renderer(small)
    before = renderer.render(Conversation([]))
    whole = renderer.render(Conversation([message]))
    tokens = whole[len(before) : -len(small.encode("assistant")) - 1]
    assert read(small, tokens) == Answer(reasoning, content, [("f", arguments)])


# -- streaming -----------------------------------------------------------------------------------------------


def test_characters_are_released_whole(small: Tokenizer) -> None:
    single = {small.token_bytes(id): id for id in range(small.size)}
    reader = Reader(small, "final")
    spelled = [reader.feed(single[bytes([byte])]) for byte in "é😀".encode()]
    assert spelled == [[], [ContentDelta("é")], [], [], [], [ContentDelta("😀")]]


def test_half_a_character_is_kept_where_it_was_said(small: Tokenizer) -> None:
    half = next(id for id in range(small.size) if small.token_bytes(id) == b"\xc3")
    final = small.encode_with_specials("<|channel|>final<|message|>")
    assert read(small, [*final, half]) == Answer("", "\ufffd")
    thought = small.encode_with_specials("<|channel|>analysis<|message|>Hm")
    end = small.encode_with_specials("<|end|><|start|>assistant")
    assert read(small, [*thought, half, *end, *final]) == Answer("Hm\ufffd")


def test_the_place_of_every_token_is_known(small: Tokenizer) -> None:
    """Log-probabilities are reported for all tokens of an answer, even if they complete no character."""
    single = {small.token_bytes(id): id for id in range(small.size)}
    reader = Reader(small)
    said: list[tuple[str, str]] = []
    for text in ("<|channel|>", "analysis", "<|message|>", "é", "<|end|>", "<|start|>", "assistant",
                 "<|channel|>", "final", "<|message|>", "é", "<|return|>"):  # fmt: skip
        tokens = (
            [single[bytes([b])] for b in text.encode()] if text == "é" else small.encode_with_specials(text)
        )
        for token in tokens:
            reader.feed(token)
            said.append((small.decode([token]), reader.place))
    assert [place for text, place in said if text == "\ufffd"] == ["reasoning"] * 2 + ["content"] * 2
    assert said[-1] == ("<|return|>", "header")


def test_openai_harmony_reads_proper_answers_alike(real: Tokenizer, oracle: Any) -> None:
    import openai_harmony as lib

    for said in PROPER:
        if said.startswith(" to=") or not said:
            continue
        tokens = real.encode_with_specials(said)
        messages = oracle.parse_messages_from_completion_tokens(tokens, lib.Role.ASSISTANT)
        theirs = Answer()
        for message in messages:
            text = "".join(part.text for part in message.content)
            if message.recipient and message.recipient.startswith("functions."):
                theirs.calls.append((message.recipient.removeprefix("functions."), text))
            elif message.channel == "analysis":
                theirs.reasoning += text
            else:
                theirs.content += text
        if "final <|constrain|>" not in said:  # which it takes for a call
            assert read(real, tokens) == theirs
