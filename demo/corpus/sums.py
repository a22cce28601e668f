"""Adding and subtracting two whole numbers up to 100: ones, then tens, each step written out.

No step needs more than a table of one-digit sums and the digits before it:

    47 + 38: ones 7 + 8 = 15, tens 4 + 3 = 7, 7 + 1 = 8, so 85.
    43 - 18: 4 > 1, ones 13 - 8 = 5, tens 4 - 1 = 3, 3 - 1 = 2, so 25.
    43 - 48: 4 = 4, 3 < 8, below 0, 48 - 43: ones 8 - 3 = 5, tens 4 - 4 = 0, so -5.

Before a difference, the tens are compared, and the ones if the tens are equal.
"""

from __future__ import annotations

from random import Random

from demo.corpus.askings.arithmetic import a_difference, a_sum
from demo.corpus.sample import Answer, Dialogue, Setting, ask, listed, thought, varied
from demo.wordings import unforeseen

LIMIT = 100

COMMON = frozenset(
    f"{before}{{}}{sign}{{}}{after}"
    for before in ("", "what is ", "what's ", "whats ", "how much is ")
    for sign in (" + ", " - ", "+", "-", " plus ", " minus ")
    for after in ("", " =", "=")
)
"""Askings that everybody uses, as `normal` gives them: these are in the corpus, whoever used them too."""
_SMALL = listed("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
""")
_TENS = listed("twenty thirty forty fifty sixty seventy eighty ninety")


def sums(rng: Random, setting: Setting) -> Dialogue:
    sign = rng.choice("+-")
    top = rng.choice([10, 20, 99, 99, 99, LIMIT])
    a, b = rng.randint(0, top), rng.randint(0, rng.choice([9, top, top, top]))
    if rng.random() < 0.03:
        a = LIMIT
    if rng.random() < 0.03:
        b = a
    if sign == "-" and rng.random() < 0.15:  # both close together, which are the hardest to compare
        b = min(LIMIT, max(0, a + rng.randint(-9, 9)))
    if sign == "-" and a < b and rng.random() < 0.6:
        a, b = b, a
    template = asking(rng, sign)
    if rng.random() < 0.1 and " " in template:
        shown = (in_words(a, rng), in_words(b, rng))
    else:
        shown = (str(a), str(b))
    work, total = worked(a, sign, b)
    asked = f"{a} {sign} {b}"
    analysis = thought(
        setting.effort,
        f"{asked}: {work}.",
        f"The user wants {asked}: {work}.",
        f"The user wants {asked}. I go by ones, then by tens. {asked}: {work}.",
    )
    # Without an analysis, the work is part of the answer.
    final = f"{asked} = {total}." if analysis else f"{asked}: {work}."
    return Dialogue(
        ask(template.format(*shown)), Answer(analysis, final), key=f"{min(a, b)} {sign} {max(a, b)}"
    )


def asking(rng: Random, sign: str) -> str:
    """A template that asks for the sum or the difference of its two slots."""
    return unforeseen(lambda: varied(rng, (a_sum if sign == "+" else a_difference)(rng)), COMMON)


def worked(a: int, sign: str, b: int) -> tuple[str, int]:
    """The steps of a ± b, and the result."""
    if sign == "+":
        return _by_digits(a, sign, b)
    if a < b:
        steps, total = _by_digits(b, sign, a)
        return f"{_compared(a, b)}below 0, {b} - {a}: {steps.rpartition(' ')[0]} {-total}", -total
    steps, total = _by_digits(a, sign, b)
    return f"{_compared(a, b)}{steps}", total


def _compared(a: int, b: int) -> str:
    """The digits that show which number is larger: tens, and ones if the tens are equal."""
    pairs = [(a // 10, b // 10), (a % 10, b % 10)] if a >= 10 or b >= 10 else [(a, b)]
    if pairs[0][0] != pairs[0][1]:
        pairs = pairs[:1]
    return "".join(f"{x} {'<' if x < y else '>' if x > y else '='} {y}, " for x, y in pairs)


def _by_digits(a: int, sign: str, b: int) -> tuple[str, int]:
    """The steps of a + b, or of a - b if a is not the smaller one, and the result."""
    direction = 1 if sign == "+" else -1
    total, ones, carried = a + direction * b, a % 10 + direction * (b % 10), 0
    if sign == "-" and ones < 0:
        ones, carried = ones + 10, 1
        steps = f"ones {10 + a % 10} - {b % 10} = {ones}"
    else:
        steps = f"ones {a % 10} {sign} {b % 10} = {ones}"
        carried = ones // 10
    if a >= 10 or b >= 10:
        tens = a // 10 + direction * (b // 10)
        steps += f", tens {a // 10} {sign} {b // 10} = {tens}"
        if carried:
            steps += f", {tens} {sign} 1 = {tens + direction}"
    return f"{steps}, so {total}", total


def in_words(number: int, rng: Random) -> str:
    """The number in words, with or without a hyphen: twenty-five, or twenty five."""
    if number < 20:
        return _SMALL[number]
    if number == LIMIT:
        return rng.choice(["a hundred", "one hundred", "hundred"])
    tens, ones = _TENS[number // 10 - 2], number % 10
    return f"{tens}{rng.choice('- ')}{_SMALL[ones]}" if ones else tens
