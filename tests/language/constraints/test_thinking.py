"""At the end of a thinking budget the chain of thought is closed, and a valid answer begins."""

import numpy as np
import pytest

from language.constraints import AnswerSpec, GrammarFailed
from language.harmony.messages import Tool
from tests.language.constraints.drawn_answers import Speaker, speaker_of

TOOLS = (Tool("get"), Tool("now"))
CALLS = {f"commentary to=functions.{tool.name} <|constrain|>json" for tool in TOOLS}
OPENING = "<|channel|>analysis<|message|>"
NEXT = "<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"


@pytest.fixture(params=["small", "real"])
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return speaker_of(request.param)


def say(speaker: Speaker, constraint, text: str) -> list[int]:
    """Sample `text`, with special tokens; every token must be allowed."""
    tokens = speaker.tokenizer.encode_with_specials(text)
    for token in tokens:
        assert token in speaker.allowed(constraint)
        constraint.accept(token)
    return tokens


def ponder(speaker: Speaker, constraint, seed: int = 0) -> list[int]:
    """Sample random characters of reasoning as long as they are allowed."""
    rng = np.random.default_rng(seed)
    specials = set(speaker.tokenizer.specials.values())
    thought: list[int] = []
    while len(thought) < 300:
        ids = speaker.allowed(constraint)
        if specials.issuperset(ids[:20].tolist()):
            return thought
        token = int(rng.choice(ids))
        if token not in specials and _is_text(speaker.tokenizer.token_bytes(token)):
            constraint.accept(token)
            thought.append(token)
    return thought


def _is_text(piece: bytes) -> bool:
    try:
        return bool(piece.decode())
    except UnicodeDecodeError:
        return False


def forced(speaker: Speaker, constraint) -> str:
    """The tokens that must come next, while only one is allowed."""
    tokens: list[int] = []
    while len(ids := speaker.allowed(constraint)) == 1:
        tokens.append(int(ids[0]))
        constraint.accept(tokens[-1])
    return speaker.tokenizer.decode(tokens)


@pytest.mark.parametrize("limit", [1, 7])
@pytest.mark.parametrize(
    ("spec", "actions"),
    [
        ({"tools": TOOLS}, {"final"} | CALLS),
        ({"tools": TOOLS, "tool_choice": "required"}, CALLS),
        ({"response_format": "json_object"}, {"final"}),
    ],
)
def test_at_the_limit_a_legal_action_follows(speaker, spec, actions, limit):
    constraint = speaker.constraints.compile(AnswerSpec(**spec, thinking_tokens=limit))
    seen = set()
    for seed in speaker.seeds:
        one = constraint.copy()
        opening, thought = say(speaker, one, OPENING), ponder(speaker, one, seed)
        assert len(thought) == limit
        analysis, action = speaker.read([*opening, *thought, *speaker.draw(one, seed)])
        assert analysis.header == "analysis"
        seen.add(action.header)
    assert seen <= actions
    if len(speaker.seeds) > 30:
        assert seen == actions


def test_without_a_grammar_the_final_answer_is_opened_and_then_free(speaker):
    constraint = speaker.constraints.compile(AnswerSpec(thinking_tokens=5))
    assert constraint.mask() is None
    say(speaker, constraint, OPENING)
    assert len(ponder(speaker, constraint)) == 5
    assert forced(speaker, constraint) == NEXT + FINAL
    assert constraint.mask() is None
    say(speaker, constraint, "<|channel|>analysis<|message|>it is free now, and may even think again")
    assert constraint.mask() is None


@pytest.mark.parametrize("tools", [(), TOOLS])
@pytest.mark.parametrize("begun", [b"\xc3", b"\xe0", b"\xed\x9f", b"\xf0\x9f", b"\xf0", b"\xf4"])
def test_a_character_that_has_begun_is_finished_first(speaker, tools, begun):
    constraint = speaker.constraints.compile(AnswerSpec(tools, thinking_tokens=2 + len(begun)))
    tokenizer = speaker.tokenizer
    byte = {tokenizer.token_bytes(id): id for id in range(tokenizer.size)}
    for seed in speaker.seeds[:8]:
        one, rng = constraint.copy(), np.random.default_rng(seed)
        say(speaker, one, OPENING)
        thought = [byte[b"a"], byte[b"b"], *(byte[begun[i : i + 1]] for i in range(len(begun)))]
        for token in thought:
            one.accept(token)
        while speaker.special("end") not in (ids := speaker.allowed(one)):
            thought.append(int(rng.choice(ids)))
            one.accept(thought[-1])
        assert len(ids) == 1
        assert len(thought) <= 2 + len(begun) + 3
        assert len(b"".join(map(tokenizer.token_bytes, thought)).decode()) == 3


@pytest.mark.parametrize("tools", [(), TOOLS])
def test_all_analyses_count_together(speaker, tools):
    constraint = speaker.constraints.compile(AnswerSpec(tools, thinking_tokens=6))
    say(speaker, constraint, OPENING)
    for letter in "abcd":
        say(speaker, constraint, letter)
    say(speaker, constraint, NEXT + OPENING)
    assert len(ponder(speaker, constraint)) == 2
    assert forced(speaker, constraint).startswith(NEXT)


def test_visible_text_costs_nothing(speaker):
    constraint = speaker.constraints.compile(AnswerSpec(thinking_tokens=3))
    say(speaker, constraint, OPENING + "a" + NEXT + FINAL + "an answer that is longer than any thought")
    assert constraint.mask() is None


def test_a_budget_that_is_never_reached_changes_nothing(speaker):
    free = speaker.constraints.compile(AnswerSpec(TOOLS))
    bound = speaker.constraints.compile(AnswerSpec(TOOLS, thinking_tokens=100_000))
    for seed in speaker.seeds[:8]:
        assert speaker.draw(free.copy(), seed) == speaker.draw(bound.copy(), seed)


def test_another_token_than_the_forced_one_is_an_error(speaker):
    constraint = speaker.constraints.compile(AnswerSpec(thinking_tokens=1))
    say(speaker, constraint, OPENING + "a")
    constraint.mask()
    with pytest.raises(GrammarFailed):
        constraint.accept(speaker.special("return"))


def test_asking_twice_for_a_mask_changes_nothing(speaker):
    """The engine asks twice if a sequence is preempted between the mask and the token."""
    constraint = speaker.constraints.compile(AnswerSpec(thinking_tokens=1))
    say(speaker, constraint, OPENING + "a")
    assert bytes(constraint.mask()) == bytes(constraint.mask())
    assert forced(speaker, constraint) == NEXT + FINAL


@pytest.mark.parametrize("max_tokens", [1, 20, 60, 500])
def test_a_budget_leaves_room_for_the_answer(speaker, max_tokens):
    budget = speaker.constraints.thinking_tokens(100, max_tokens)
    assert 0 <= budget <= 100
    constraint = speaker.constraints.compile(AnswerSpec(thinking_tokens=budget))
    written = 0
    if budget:
        written += len(say(speaker, constraint, OPENING)) + len(ponder(speaker, constraint))
    written += len(speaker.tokenizer.encode_with_specials(forced(speaker, constraint)))
    assert written + 16 <= max_tokens or not budget
