"""Every answer that is sampled under a constraint is valid harmony, and is what the request asked for."""

import json
import threading
import time
from dataclasses import replace

import jsonschema
import pytest

from language.constraints import AnswerSpec, Constraints, GrammarFailed, SchemaError
from language.constraints.grammar import KEPT_GRAMMARS, SLOW_SECONDS, GrammarConstraint
from language.harmony.messages import Call, Conversation, Grammar, Message, ResponseFormat, Tool
from language.harmony.reader import CallDelta, CallStart, ContentDelta, Reader, ReasoningDelta
from language.harmony.render import Renderer
from tests.language.constraints.drawn_answers import Said, Speaker, speaker_of


def _object(**properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


ANY = {"type": "object"}
CITY = _object(city={"type": "string"}, days={"type": "integer"})
FLAG = _object(on={"type": "boolean"})
GET, GET_WEATHER, NOW = Tool("get", None, FLAG), Tool("get_weather", None, CITY), Tool("now")
TOOLS = (GET, GET_WEATHER, NOW)
SCHEMAS = {"get": FLAG, "get_weather": CITY, "now": _object()}
FORMAT = ResponseFormat("flag", FLAG)


def to(name: str) -> str:
    return f"commentary to=functions.{name} <|constrain|>json"


@pytest.fixture(params=["small", "real"])
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return speaker_of(request.param)


def answers(speaker: Speaker, spec: AnswerSpec) -> list[list[Said]]:
    constraint = speaker.constraints.compile(spec)
    assert constraint is not None
    return [speaker.read(speaker.draw(constraint.copy(), seed)) for seed in speaker.seeds]


def headers(said: list[list[Said]]) -> tuple[set[str], set[str]]:
    """Of what came before the last message, and of the last."""
    thoughts = {message.header for messages in said for message in messages[:-1]}
    return thoughts, {messages[-1].header for messages in said}


ANALYSIS, PREAMBLE = "analysis", "commentary"
CALLS = {to("get"), to("get_weather"), to("now")}


@pytest.mark.parametrize(
    ("spec", "thoughts", "actions"),
    [
        (AnswerSpec(TOOLS), {ANALYSIS, PREAMBLE}, {"final"} | CALLS),
        (AnswerSpec(TOOLS, tool_choice="none"), {ANALYSIS}, {"final"}),
        (AnswerSpec(TOOLS, tool_choice="required"), {ANALYSIS, PREAMBLE}, CALLS),
        (
            AnswerSpec(TOOLS, tool_choice="required", allowed_tools=frozenset({"get"})),
            {ANALYSIS, PREAMBLE},
            {to("get")},
        ),
        (
            AnswerSpec(TOOLS, allowed_tools=frozenset({"get", "now"})),
            {ANALYSIS, PREAMBLE},
            {"final", to("get"), to("now")},
        ),
        (AnswerSpec(TOOLS, response_format=FORMAT, strict_response=True), {ANALYSIS}, {"final"} | CALLS),
        (AnswerSpec(response_format="json_object"), {ANALYSIS}, {"final"}),
        (AnswerSpec(TOOLS, reasoning=False), set(), {"final"} | CALLS),
        (AnswerSpec(TOOLS, reasoning=False, tool_choice="required"), set(), CALLS),
        (AnswerSpec(TOOLS, thinking_tokens=0), set(), {"final"} | CALLS),
        (AnswerSpec(reasoning=False), set(), {"final"}),
        (AnswerSpec(thinking_tokens=0), set(), {"final"}),
    ],
)
def test_every_legal_header_can_be_sampled_and_no_other(speaker, spec, thoughts, actions):
    before, last = headers(answers(speaker, spec))
    assert before <= thoughts
    assert last <= actions
    if len(speaker.seeds) > 30:
        assert (before, last) == (thoughts, actions)


def test_each_message_ends_as_its_kind_does(speaker):
    ends = {"analysis": "<|end|>", "commentary": "<|end|>", "final": "<|return|>"}
    for messages in answers(speaker, AnswerSpec(TOOLS)):
        for message in messages:
            assert message.end == ends.get(message.header, "<|call|>")


@pytest.mark.parametrize(
    ("spec", "valid"),
    [
        (AnswerSpec(TOOLS, strict_tools=frozenset(SCHEMAS)), SCHEMAS),
        (AnswerSpec(TOOLS, tool_choice="required"), SCHEMAS),
        (AnswerSpec(TOOLS), SCHEMAS),
        (AnswerSpec(TOOLS, loose_tools=frozenset({"get"})), {**SCHEMAS, "get": ANY}),
        (AnswerSpec(TOOLS, loose_tools=frozenset(SCHEMAS), tool_choice="required"), SCHEMAS),
        (
            AnswerSpec(TOOLS, strict_tools=frozenset({"get"}), response_format=FORMAT),
            {**SCHEMAS, "get": FLAG, "final": FLAG},
        ),
        (AnswerSpec(response_format=FORMAT, strict_response=True), {"final": FLAG}),
        (AnswerSpec(response_format="json_object"), {"final": ANY}),
    ],
)
def test_bodies_follow_their_schemas_and_analysis_is_free(speaker, spec, valid):
    for messages in answers(speaker, spec):
        action = messages[-1]
        name = action.header.removeprefix("commentary to=functions.").removesuffix(" <|constrain|>json")
        if name in valid:
            jsonschema.validate(json.loads(action.body), valid[name])
        else:
            assert name == "final"
            assert spec.response_format == "text"


def test_a_call_that_is_said_not_to_be_strict_may_hold_what_its_schema_forbids(speaker):
    constraint = speaker.constraints.compile(AnswerSpec((GET,), loose_tools=frozenset({GET.name})))
    for token in speaker.tokenizer.encode_with_specials(
        f'<|channel|>{to("get")}<|message|>{{"x": [1]}}<|call|>'
    ):
        assert token in speaker.allowed(constraint)
        constraint.accept(token)


def test_a_prefilled_answer_is_body_only(speaker):
    for spec in (AnswerSpec(response_format=FORMAT, prefilled=True), AnswerSpec(TOOLS, prefilled=True)):
        constraint = speaker.constraints.compile(spec)
        for seed in speaker.seeds:
            answer = speaker.draw(constraint.copy(), seed)
            said, end = speaker.read_body(answer, 0, "final")
            assert (said.end, end) == ("<|return|>", len(answer))
            if spec.response_format != "text":
                jsonschema.validate(json.loads(said.body), FLAG)


def test_plain_text_without_tools_is_free(speaker):
    assert speaker.constraints.compile(AnswerSpec()) is None
    assert speaker.constraints.compile(AnswerSpec(prefilled=True)) is None


def test_the_reader_has_nothing_to_recover_and_reads_the_same(speaker):
    constraint = speaker.constraints.compile(AnswerSpec(TOOLS))
    for seed in speaker.seeds:
        answer = speaker.draw(constraint.copy(), seed)
        reader = Reader(speaker.tokenizer)
        deltas = [delta for token in answer for delta in reader.feed(token)] + reader.finish()
        assert reader.recoveries == 0

        *thoughts, action = speaker.read(answer)
        calls = [delta.name for delta in deltas if isinstance(delta, CallStart)]
        arguments = "".join(delta.arguments for delta in deltas if isinstance(delta, CallDelta))
        content = "".join(delta.text for delta in deltas if isinstance(delta, ContentDelta))
        reasoning = "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))
        assert reasoning == "".join(t.body for t in thoughts if t.header == ANALYSIS)
        preambles = "".join(t.body for t in thoughts if t.header == PREAMBLE)
        if action.header == "final":
            assert (calls, arguments, content) == ([], "", preambles + action.body)
        else:
            assert action.header in {to(name) for name in calls}
            assert (len(calls), arguments, content) == (1, action.body, preambles)


def test_a_sampled_call_has_the_tokens_of_a_rendered_one(speaker):
    """Otherwise the prompt after a tool's result would not be found in the prefix cache."""
    constraint = speaker.constraints.compile(
        AnswerSpec((GET_WEATHER,), tool_choice="required", reasoning=False)
    )
    answer = speaker.draw(constraint, seed=1)
    header = answer[: answer.index(speaker.special("message")) + 1]
    call = Message("assistant", calls=(Call("call_1", "get_weather", "{}"),))
    prompt = Renderer(speaker.tokenizer).render(Conversation([Message("user", "?"), call]))
    rendered = [*header, *speaker.tokenizer.encode("{}"), speaker.special("call")]
    assert any(prompt[i : i + len(rendered)] == rendered for i in range(len(prompt)))


def test_ids_without_meaning_are_never_allowed(speaker):
    spec = AnswerSpec(TOOLS, prefilled=True)
    ids = speaker.allowed(speaker.constraints.compile(spec))
    assert ids.max() < speaker.vocab_size
    assert all(speaker.tokenizer.known(int(id)) for id in ids)
    assert {*ids} & {*speaker.tokenizer.specials.values()} == {speaker.special("return")}


def test_copies_go_their_own_ways(speaker):
    first = speaker.constraints.compile(AnswerSpec(TOOLS))
    second = first.copy()
    alone = speaker.draw(first.copy(), seed=5)
    assert speaker.draw(second, seed=4) != alone
    assert speaker.draw(first, seed=5) == alone


def test_a_token_that_is_not_allowed_is_an_error_that_quotes_no_request(speaker):
    constraint = speaker.constraints.compile(AnswerSpec((Tool("secret_tool"),)))
    with pytest.raises(GrammarFailed) as error:
        constraint.accept(speaker.special("return"))
    assert "secret_tool" not in str(error.value)
    with pytest.raises(GrammarFailed):  # and it stays one
        constraint.mask()


def test_a_call_that_must_be_and_cannot_is_refused(speaker):
    for spec in (
        AnswerSpec(tool_choice="required", response_format="json_object"),
        AnswerSpec(TOOLS, tool_choice="required", allowed_tools=frozenset({"unknown"})),
    ):
        with pytest.raises(SchemaError) as error:
            speaker.constraints.compile(spec)
        assert error.value.param == "tool_choice"


def test_the_embedding_must_have_a_row_for_every_token(speaker):
    with pytest.raises(ValueError, match="cannot fit"):
        Constraints(speaker.tokenizer, speaker.tokenizer.size - 1)


def test_copies_share_the_masks_of_what_they_have_in_common():
    """Sixty-four answers to one request begin with the same tokens; each mask is computed once."""
    speaker = speaker_of("small")
    first = speaker.constraints.compile(AnswerSpec(response_format=FORMAT))
    copies = [first.copy() for _ in range(8)]
    masks = [bytes(each.mask()) for each in copies]
    assert len(set(masks)) == 1
    assert len(first._shared.masks) == 1
    allowed = next(id for id in range(8 * len(masks[0])) if masks[0][id // 8] >> id % 8 & 1)
    for each in copies:
        each.accept(allowed)
    after = [bytes(each.mask()) for each in copies]
    assert len(set(after)) == 1
    assert after[0] != masks[0]
    changed = copies[0].mask()
    changed[0] ^= 1  # its memory is its own
    assert bytes(copies[1].mask()) == after[0]


def test_a_token_that_was_not_allowed_is_found_while_the_next_mask_is_computed():
    speaker = speaker_of("small")
    constraint = speaker.constraints.compile(AnswerSpec(response_format=FORMAT))
    mask = bytes(constraint.mask())
    forbidden = next(id for id in range(8 * len(mask)) if not mask[id // 8] >> id % 8 & 1)
    with pytest.raises(GrammarFailed):
        constraint.accept(forbidden)


def test_a_grammar_that_is_known_begins_anew_for_each_answer(speaker):
    """Compiled grammars are cached, but not the state of an answer."""
    spec = AnswerSpec(response_format=FORMAT, prefilled=True)
    begun = replace(spec, begun=tuple(speaker.tokenizer.encode('{"')))
    first = speaker.constraints.compile(spec)
    beginning = set(speaker.allowed(first))
    for token in begun.begun:
        first.accept(token)
    continued = set(speaker.allowed(first))
    assert continued != beginning
    for _ in range(2):
        assert set(speaker.allowed(speaker.constraints.compile(begun))) == continued
        assert set(speaker.allowed(speaker.constraints.compile(spec))) == beginning


def test_kept_grammars_are_bounded(speaker):
    for i in range(2 * KEPT_GRAMMARS):
        speaker.constraints.compile(
            AnswerSpec(response_format=Grammar("regex", f"a{{{i + 1}}}"), prefilled=True)
        )
    assert len(speaker.constraints._compiler._compiled) == KEPT_GRAMMARS


def test_a_grammar_that_was_slow_once_has_threads_of_its_own():
    """Other grammars do not wait for it."""
    go_on, where = threading.Event(), []

    class Slow:
        def compute_bitmask(self):
            where.append(threading.current_thread().name)
            end = time.thread_time() + 2 * SLOW_SECONDS
            while time.thread_time() < end:
                pass
            assert len(where) < 2 or go_on.wait(30)
            return bytes(16)

        is_error = is_stopped = staticmethod(lambda: False)
        consume_token = staticmethod(lambda token: True)

    first = GrammarConstraint(Slow(), 16)
    first.mask()
    slow = [first, *(GrammarConstraint(Slow(), 16, first._shared) for _ in range(8))]
    for each in slow:
        each.accept(1)
        assert not each.ready()
    quick = speaker_of("small").constraints.compile(AnswerSpec(response_format=FORMAT))
    assert quick.ready(None)
    assert not any(each.ready(0.01) for each in slow)
    go_on.set()
    assert all(each.ready(None) for each in slow)
    assert where[0].startswith("gptoss-masks")
    assert all(name.startswith("gptoss-slow-masks") for name in where[1:])
