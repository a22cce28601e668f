"""Adding and subtracting two whole numbers up to 100: ones, then tens, each step written out.

No step needs more than a table of one-digit sums and the digits before it:

    47 + 38: ones 7 + 8 = 15, tens 4 + 3 = 7, 7 + 1 = 8, so 85.
    43 - 18: 4 > 1, ones 13 - 8 = 5, tens 4 - 1 = 3, 3 - 1 = 2, so 25.
    43 - 48: 4 = 4, 3 < 8, below 0, 48 - 43: ones 8 - 3 = 5, tens 4 - 4 = 0, so -5.

Before a difference, the tens are compared, and the ones if the tens are equal.
"""

from __future__ import annotations

from random import Random

from demo.corpus.sample import Answer, Dialogue, Setting, ask, listed, phrases, thought, varied

LIMIT = 100

PLUS = phrases("""
    What is {0} + {1}? | What is {0} plus {1}? | {0} + {1} | {0} + {1} = | {0}+{1} | What is {0}+{1}? |
    What's {0} + {1}? | Calculate {0} + {1}. | Compute {0} + {1}. | Add {0} and {1}. | How much is {0} +
    {1}? | How much is {0} plus {1}? | {0} plus {1}? | What is the sum of {0} and {1}? | Can you add {0}
    and {1}? | Tell me what {0} + {1} is. | What does {0} + {1} equal? | Solve {0} + {1}. | What do you
    get if you add {0} and {1}? | {0}+{1}=? | {0} + {1} = ? | {0} and {1} makes? | Add {1} to {0}. | What
    do {0} and {1} make? | What does {0} plus {1} make? | Sum of {0} and {1}? | sum {0} {1} | add {0} {1}
    | Can you calculate {0} + {1}? | I need the sum of {0} and {1}. | How much do {0} and {1} make? | What
    is the result of {0} + {1}? | {0} added to {1} | Could you work out {0} + {1} for me? | Do you know
    what {0} + {1} is? | {0} plus {1} equals? | what's the total of {0} and {1}? | Work out {0} + {1}. |
    Quick: {0} + {1}? | Please add up {0} and {1}. | Math: {0} + {1} | If you add {0} and {1}, what do you
    get? | What is {0} and {1} together? | calc {0}+{1} | whats {0} + {1} | {0} + {1} equals how much? |
    {0} plus {1} is how many? | {0} and {1} is how much? | {0} plus {1} is? | How many is {0} + {1}? | {0}
    + {1} is what?
""")
MINUS = phrases("""
    What is {0} - {1}? | What is {0} minus {1}? | {0} - {1} | {0} - {1} = | {0}-{1} | What is {0}-{1}? |
    What's {0} - {1}? | Calculate {0} - {1}. | Compute {0} - {1}. | Subtract {1} from {0}. | How much is
    {0} - {1}? | How much is {0} minus {1}? | {0} minus {1}? | What is the difference of {0} and {1}? |
    Take {1} away from {0}. | Tell me what {0} - {1} is. | What does {0} - {1} equal? | Solve {0} - {1}. |
    {0}-{1}=? | {0} - {1} = ? | Can you subtract {1} from {0}? | {0} take away {1} | {0} less {1} | What
    is {0} take away {1}? | What do you get if you subtract {1} from {0}? | What is {1} subtracted from
    {0}? | Can you calculate {0} - {1}? | What is the result of {0} - {1}? | Take {1} from {0}. | {0}
    minus {1} equals? | Could you work out {0} - {1} for me? | Do you know what {0} - {1} is? | Work out
    {0} - {1}. | Quick: {0} - {1}? | Math: {0} - {1} | What is left of {0} after taking away {1}? | How
    much is {0} less {1}? | calc {0}-{1} | whats {0} - {1} | {0} - {1} equals how much? | {0} minus {1} is
    how many? | {0} minus {1} is? | How many is {0} - {1}? | {0} - {1} is what? | If you take {1} from
    {0}, what is left?
""")
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
    template = varied(rng, rng.choice(PLUS if sign == "+" else MINUS))
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
