"""The expected answers of the corpus are correct, and new users' wordings are not in it."""

import re
from random import Random

import pytest

from demo.corpus import beyond, copying, facts, functions, memory, records, sums, talk
from demo.corpus.mixture import FAMILIES, a_sample, a_setting
from demo.soak import wordings
from demo.wordings import kept_from_training, lines, normal


@pytest.mark.parametrize("sign", "+-")
def test_every_written_step_of_a_sum_is_true(sign):
    for a in range(101):
        for b in range(101):
            steps, total = sums.worked(a, sign, b)
            assert total == (a + b if sign == "+" else a - b)
            assert steps.endswith(f"so {total}")
            for left, operation, right, result in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", steps):
                assert int(result) == (int(left) + int(right) if operation == "+" else int(left) - int(right))


def test_numbers_in_words():
    said = {sums.in_words(number, Random(0)).replace("-", " ") for number in range(101)}
    assert len(said) == 101
    assert sums.in_words(85, Random(0)).replace("-", " ") == "eighty five"


def test_there_are_five_hundred_wordings():
    assert len(list(lines())) >= 500
    assert len(wordings(seed=1)) >= 500


def templates():
    """All wordings of the corpus, with empty slots."""
    for module in (beyond, copying, facts, memory, records, sums, talk):
        for name, value in vars(module).items():
            if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
                yield from ((f"{module.__name__}.{name}", normal(_emptied(each))) for each in value)
    for function in functions.FUNCTIONS:
        yield from (("functions", normal(_emptied(phrase))) for phrase in function.phrases)


def _emptied(template):
    return re.sub(r"\{\w*\}", "{}", template)


def test_no_wording_is_in_the_corpus():
    ours = {text: place for place, text in templates()}
    same = [
        (turn, ours[normal(_emptied(turn))])
        for wanted, line in lines()
        for turn in line.split("|")[-1:]
        if normal(_emptied(turn)) in ours
    ]
    assert same == []


def test_training_leaves_out_what_happens_to_be_a_wording():
    rng = Random(8)
    for family in FAMILIES:
        for _ in range(150):
            sample = a_sample(rng, a_setting(rng), family)
            assert normal(str(sample.conversation.messages[-1].content)) not in kept_from_training()
