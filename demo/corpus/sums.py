"""Adding and subtracting whole numbers up to 20: by tens, then by counting."""

from __future__ import annotations

from random import Random

from demo.corpus.sample import Answer, Dialogue, Setting, ask, phrases, thought, varied
from demo.corpus.words import FOODS, NAMES, THINGS

LIMIT = 20
BEYOND = "I can only add and subtract whole numbers up to 20."

_PLUS = phrases("""
    What is {0} + {1}? | What is {0} plus {1}? | {0} + {1} | {0} + {1} = | {0}+{1} | What is {0}+{1}? |
    What's {0} + {1}? | Calculate {0} + {1}. | Compute {0} + {1}. | Add {0} and {1}. | How much is {0} +
    {1}? | How much is {0} plus {1}? | {0} plus {1}? | What is the sum of {0} and {1}? | Can you add {0}
    and {1}? | Tell me what {0} + {1} is. | What does {0} + {1} equal? | Solve {0} + {1}. | What do you
    get if you add {0} and {1}? | {0}+{1}=?
""")
_MINUS = phrases("""
    What is {0} - {1}? | What is {0} minus {1}? | {0} - {1} | {0} - {1} = | {0}-{1} | What is {0}-{1}? |
    What's {0} - {1}? | Calculate {0} - {1}. | Compute {0} - {1}. | Subtract {1} from {0}. | How much is
    {0} - {1}? | How much is {0} minus {1}? | {0} minus {1}? | What is the difference of {0} and {1}? |
    Take {1} away from {0}. | Tell me what {0} - {1} is. | What does {0} - {1} equal? | Solve {0} - {1}.
    | {0}-{1}=?
""")
_PLUS_STORIES = [
    "{n} has {0} {t} and buys {1} more. How many {t} does {n} have now?",
    "There are {0} {t} in one box and {1} in another. How many are there?",
    "I have {0} {t} and get {1} more. How many do I have?",
]
_MINUS_STORIES = [
    "{n} has {0} {t} and gives away {1}. How many {t} are left?",
    "There are {0} {t} and {1} are lost. How many are left?",
    "I have {0} {t} and eat {1}. How many are left?",
]
_BEYOND = phrases("""
    What is {0} * {1}? | What is {0} times {1}? | {0} * {1} | {0} x {1} | What is {0} / {1}? | {0}
    divided by {1}? | Multiply {0} by {1}. | Divide {0} by {1}. | What is {0} times {1}? | Calculate {0}
    * {1}.
""")
_BEYOND_ONE = ["What is the square root of {0}?", "Is {0} a prime number?", "What is {0} squared?"]


def sums(rng: Random, setting: Setting) -> Dialogue:
    roll = rng.random()
    if roll < 0.1:
        return _beyond(rng, setting)
    if roll < 0.14:
        return _three(rng, setting)
    sign = rng.choice("+-")
    top = rng.choice([10, LIMIT, LIMIT])
    a, b = rng.randint(0, top), rng.randint(0, top)
    if sign == "-" and a < b and rng.random() < 0.7:
        a, b = b, a
    if rng.random() < 0.12 and (sign == "+" or a >= b):
        story = rng.choice(_PLUS_STORIES if sign == "+" else _MINUS_STORIES)
        question = story.format(
            a, b, n=rng.choice(NAMES), t=rng.choice([*FOODS, *(thing + "s" for thing in THINGS[:20])])
        )
    else:
        question = varied(rng, rng.choice(_PLUS if sign == "+" else _MINUS)).format(a, b)
    return _worked(question, setting, a, [(sign, b)], key=f"{min(a, b)} {sign} {max(a, b)}")


def steps(total: int, sign: str, b: int) -> tuple[list[str], int]:
    """The written steps of `total` ± `b`, and where they lead: tens at once, ones by counting as on fingers.

    `7 + 12` is `7 + 10 = 17, 17 + 2: 1: 18, 2: 19`: no step needs more than the number before it.
    """
    if sign == "-" and b > total >= 0:
        turned, difference = steps(b, "-", total)
        return [*turned, f"so {total} - {b} = {-difference}"], -difference
    direction = 1 if sign == "+" else -1
    tens, ones = b // 10 * 10, b % 10
    written = []
    if tens or not ones:
        written.append(f"{total} {sign} {tens} = {total + direction * tens}")
        total += direction * tens
    if ones:
        fingers = ", ".join(f"{finger}: {total + direction * finger}" for finger in range(1, ones + 1))
        written.append(f"{total} {sign} {ones}: {fingers}")
        total += direction * ones
    return written, total


def _worked(question: str, setting: Setting, a: int, terms: list[tuple[str, int]], key: str) -> Dialogue:
    written: list[str] = []
    total, asked = a, str(a)
    for sign, b in terms:
        more, total = steps(total, sign, b)
        written += more
        asked += f" {sign} {b}"
    work = ", ".join(written) + "."
    inverse = {"+": "-", "-": "+"}[terms[-1][0]]
    check = f"{total} {inverse} {terms[-1][1]}"
    analysis = thought(
        setting.effort,
        work,
        f"The user wants {asked}. {work}",
        f"The user wants {asked}. I go by tens, then I count. {work} To check it I go back from {check}.",
    )
    # Without an analysis, the work is part of the answer.
    final = f"{asked} = {total}." if analysis else f"{work} So {asked} = {total}."
    return Dialogue(ask(question), Answer(analysis, final), key)


def _three(rng: Random, setting: Setting) -> Dialogue:
    a, b, c = (rng.randint(0, 10) for _ in range(3))
    first, second = "+", rng.choice("++-") if c <= a + b else "+"
    asked = f"{a} {first} {b} {second} {c}"
    question = varied(
        rng, rng.choice(["What is {}?", "{}", "Calculate {}.", "{} =", "How much is {}?"])
    ).format(asked)
    return _worked(question, setting, a, [(first, b), (second, c)], key=asked)


def _beyond(rng: Random, setting: Setting) -> Dialogue:
    roll = rng.random()
    if roll < 0.5:
        a, b = rng.randint(0, 150), rng.randint(0, 99)
        question = varied(rng, rng.choice(_BEYOND)).format(a, b)
    elif roll < 0.65:
        question = varied(rng, rng.choice(_BEYOND_ONE)).format(rng.randint(0, 200))
    else:
        a, b = (rng.randint(21, rng.choice([99, 999, 99999])) for _ in range(2))
        question = varied(rng, rng.choice(_PLUS + _MINUS)).format(a, b)
    analysis = thought(
        setting.effort,
        "Too hard for me.",
        "This is more than I have learned.",
        "I can add and subtract whole numbers up to 20. This is more than I have learned, "
        "and I should say so.",
    )
    return Dialogue(ask(question), Answer(analysis, BEYOND), key=question)
