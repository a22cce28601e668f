"""The expected answers of the corpus are correct, and new users' wordings are not in it."""

import re
from random import Random

import pytest

from demo.corpus import (
    beyond,
    copying,
    days,
    facts,
    functions,
    memory,
    records,
    sums,
    talk,
    tools,
)
from demo.corpus.askings import greetings, identity, oddities, unlearned
from demo.corpus.askings.grammar import Grammar
from demo.corpus.mixture import FAMILIES, a_sample, a_setting
from demo.corpus.sample import held_out, mistyped
from demo.soak import wordings
from demo.wordings import FILES, emptied, kept_from_training, lines, normal


@pytest.mark.parametrize("sign", "+-")
def test_every_written_step_of_a_sum_is_true(sign):
    for a in range(101):
        for b in range(101):
            steps, total = sums.worked(a, sign, b)
            assert total == (a + b if sign == "+" else a - b)
            assert steps.endswith(f"so {total}")
            for left, operation, right, result in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", steps):
                assert int(result) == (int(left) + int(right) if operation == "+" else int(left) - int(right))
            compared = re.findall(r"(?<![+-] )\b(\d+) ([<>=]) (\d+), ", steps)
            assert bool(compared) == (sign == "-")
            for left, relation, right in compared:
                assert relation == "=<>"[(int(left) < int(right)) + 2 * (int(left) > int(right))]
            if compared:
                assert compared[-1][1] == "=<>"[(a < b) + 2 * (a > b)], "the last one decides"
                assert ("below 0" in steps) == (a < b)


def test_numbers_in_words():
    said = {sums.in_words(number, Random(0)).replace("-", " ") for number in range(101)}
    assert len(said) == 101
    assert sums.in_words(85, Random(0)).replace("-", " ") == "eighty five"


def test_there_are_five_hundred_wordings():
    assert len(list(lines())) >= 500
    assert len(wordings(seed=1)) >= 500


def templates():
    """All wordings of the corpus, with empty slots."""
    for module in (
        beyond,
        copying,
        days,
        facts,
        greetings,
        identity,
        memory,
        oddities,
        records,
        talk,
        unlearned,
    ):
        for name, value in vars(module).items():
            if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
                yield from ((f"{module.__name__}.{name}", normal(emptied(each))) for each in value)
    rng = Random(4)
    for _ in range(20_000):
        yield "wishes", normal(emptied(tools.asked(rng, rng.choice(functions.FUNCTIONS))))
        yield "capitals", normal(emptied(facts.capital_question(rng, "{}")))
        yield "countries", normal(emptied(facts.country_question(rng, "{}")))
        yield "opposites", normal(emptied(facts.opposite_question(rng, "{}")))
        yield "sums", normal(emptied(sums.asking(rng, rng.choice("+-"))))


def test_no_wording_is_in_the_corpus():
    ours = {text: place for place, text in templates()}
    same = [
        (turn, ours[normal(emptied(turn))])
        for path in FILES
        for wanted, line in lines(path)
        for turn in line.split("|")[-1:]
        if normal(emptied(turn)) in ours
    ]
    assert same == []


def test_no_wording_about_a_sum_is_composed_with_other_numbers():
    rng = Random(9)
    composed = {normal(emptied(sums.asking(rng, rng.choice("+-")))) for _ in range(40_000)}
    asked = {
        normal(re.sub(r"\d+", "{}", emptied(line)))
        for path in FILES
        for wanted, line in lines(path)
        if wanted.startswith("sum")
    }
    assert len(asked) > 50
    assert asked & composed <= sums.COMMON


def test_training_leaves_out_what_happens_to_be_a_wording():
    rng = Random(8)
    for family in FAMILIES:
        for _ in range(150):
            sample = a_sample(rng, a_setting(rng), family)
            assert normal(str(sample.conversation.messages[-1].content)) not in kept_from_training()


def test_a_function_whose_name_says_nothing_is_wanted_only_alone():
    rng = Random(12)
    found = 0
    for family in ("calling", "using"):
        for _ in range(1500):
            sample = a_sample(rng, a_setting(rng, tools=True), family)
            talk = sample.conversation
            wanted = sample.answer.call or talk.messages[-2].calls[0]
            if wanted.name == "final_result":
                found += 1
                assert [tool.name for tool in talk.tools] == ["final_result"]
                assert sum(message.role == "user" for message in talk.messages) == 1
    assert found > 10


COMPOSED = (
    "talk",
    "talk",
    "facts",
    "facts",
    "beyond",
    "beyond",
    "beyond",
    "pieces",
    "sums",
    "records",
    "memory",
)


def test_no_asking_has_two_answers():
    """Without earlier turns, whatever the family, the setting and what differs in case and punctuation."""
    rng = Random(21)
    said = {}
    for _ in range(40_000):
        family = rng.choice(COMPOSED)
        setting = a_setting(rng, tools=False)
        dialogue = FAMILIES[family](rng, setting)
        if len(dialogue.messages) > 1 or dialogue.instructions:
            continue
        asked = str(dialogue.messages[0].content)
        asked = asked if family in ("records", "memory") else normal(asked)
        answer = dialogue.answer.final.replace(setting.date, "today")
        answer = answer.rpartition(" ")[2] if family == "sums" else answer  # steps are shown at effort none
        before = said.setdefault((asked, repr(dialogue.response_format)), (family, answer))
        assert before[1] == answer, (asked, before, family)


@pytest.mark.parametrize("family", ["talk", "facts", "beyond"])
def test_askings_are_seldom_the_same_twice(family):
    rng = Random(3)
    setting = a_setting(rng, tools=False)
    asked = {normal(str(FAMILIES[family](rng, setting).messages[-1].content)) for _ in range(2000)}
    assert len(asked) >= {"talk": 1100, "facts": 1200, "beyond": 1700}[family]


def test_a_composed_phrase_is_held_out_however_it_is_typed():
    rng = Random(5)
    keys, texts = {True: set(), False: set()}, {True: set(), False: set()}
    for _ in range(6000):
        dialogue = talk.talk(rng, a_setting(rng, tools=False))
        text = normal(str(dialogue.messages[0].content))
        held = held_out(dialogue.key)
        if text == dialogue.key:  # a composed phrase without a slip
            texts[held].add(text)
        keys[held].add(dialogue.key)
    assert len(texts[True]) > 60
    assert not texts[True] & texts[False]
    assert not keys[True] & keys[False]


def test_a_known_name_in_small_letters_is_held_out_by_its_sentence():
    rng = Random(8)
    told, shown = {True: set(), False: set()}, {True: set(), False: set()}
    for _ in range(6000):
        name, text, key = memory.introduction(rng)
        if name == name.lower():
            told[held_out(key)].add(normal(text))
            shown[held_out(key)].add(name)
        else:
            assert key == name
    assert len(told[True]) > 30
    assert not told[True] & told[False]
    assert shown[True] <= shown[False]  # the model can have learned that each of them is a name


def test_common_phrases_are_never_held_out():
    rng = Random(6)
    common = {normal(phrase) for phrase in (*greetings.GREETINGS, *greetings.BYES, *identity.WHO)}
    seen = 0
    for _ in range(3000):
        dialogue = talk.talk(rng, a_setting(rng, tools=False))
        if normal(str(dialogue.messages[0].content)) in common and not dialogue.key:
            seen += 1
    assert seen > 300
    assert not held_out("")


def test_other_letters_than_latin_ones_are_never_copied():
    rng = Random(7)
    for _ in range(3000):
        assert copying.copying(rng, a_setting(rng)).answer.final.isascii()
    asked = [beyond.beyond(rng, a_setting(rng)).messages[0].content for _ in range(6000)]
    assert any(normal(text).startswith(("repeat", "say", "copy")) and not text.isascii() for text in asked)


def test_a_misspelt_order_is_never_taken_for_the_text_to_copy():
    rng, before = Random(8), set()
    for _ in range(6000):
        dialogue = copying.copying(rng, a_setting(rng))
        order = str(dialogue.messages[0].content).lower()
        before.update(re.findall(rf"(\w+) {re.escape(dialogue.answer.final.lower())}(?!\w)", order))
    spelt = "say echo with only just the word words repeat text sentence please"
    assert {"say", "word"} < before <= set(spelt.split())


def test_a_lone_word_keeps_its_letters_when_mistyped():
    for seed in range(200):
        assert set(mistyped(Random(seed), "Aloha")) <= set("Aloha")
    slips = {mistyped(Random(seed), "Who made you?") for seed in range(400)}
    assert slips >= {"Who msde you?", "Who mase you?", "Who mafe you?"}  # the keys beside it
    assert not any("q" in slip for slip in slips)


def test_a_grammar_composes_every_alternative_and_no_other():
    grammar = Grammar({"start": "<open> (there|my (friend|dear)|)! | 3* <open>", "open": "hi | 2* hello"})
    found = [grammar(Random(seed)) for seed in range(2000)]
    ends = ["", " there!", " my friend!", " my dear!", "!"]
    assert set(found) == {opening + end for opening in ("Hi", "Hello") for end in ends}
    assert 2.5 < sum("!" not in text for text in found) / sum("!" in text for text in found) < 3.5
    assert 1.7 < sum("Hello" in text for text in found) / sum("Hi" in text for text in found) < 2.3


@pytest.mark.parametrize("rule", ["(a|b", "a) b"])
def test_a_grammar_with_a_lonely_parenthesis_is_refused(rule):
    with pytest.raises(ValueError, match="choice"):
        Grammar({"start": rule})


def test_a_grammar_that_names_no_rule_is_refused():
    with pytest.raises(KeyError, match="missing"):
        Grammar({"start": "<missing>"})
