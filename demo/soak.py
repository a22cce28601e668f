"""Asks the demo model what new users type: hundreds of wordings that are not in the corpus.

    python -m demo.soak --wrong 100
    python -m demo.soak --wordings demo/wordings_third.txt

Prints a table of the share of right answers for each kind of question, and every wrong answer.  An answer is
right if a user would call it right: the fixed answer, the result of the sum, the fact, the call, the object.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from demo.corpus import beyond, memory, talk, words
from demo.corpus.facts import ALIASES, CAPITALS, OPPOSITES
from demo.corpus.words import DAYS, MONTHS
from demo.evaluate import answers
from demo.wordings import WORDINGS, lines
from gptoss.llm import LLM
from gptoss.results import Answer
from language.harmony.messages import Conversation, Message, ResponseFormat, Tool

SETS = {
    "greeting": talk.GREETING,
    "identity": talk.ABOUT,
    "abilities": talk.ABOUT,
    "thanks": "You are welcome!",
    "bye": "Goodbye! It was nice to talk to you.",
    "joke": talk.JOKE,
    "story": talk.STORY,
    "poem": talk.POEM,
    "untold": memory.UNTOLD,
    "decline": beyond.FALLBACK,
}
VALUES = 2
"""Number of values with which a wording that has slots is asked."""
DESCRIPTIONS = {
    "get_weather": "Get the weather in a city.",
    "set_timer": "Start a timer.",
    "add": "Add two numbers.",
}


@dataclass(frozen=True, slots=True)
class Wording:
    """One conversation.  The answers to its earlier turns are not given, but generated.

    wanted  the kind of question, for the table
    right   whether the last answer is right
    """

    wanted: str
    turns: tuple[str, ...]
    right: Callable[[Answer], bool]
    tools: tuple[Tool, ...] = ()
    response_format: ResponseFormat | None = None


def wordings(seed: int, path: Path = WORDINGS) -> list[Wording]:
    rng = Random(seed)
    return [
        _wording(wanted, line, rng)
        for wanted, line in lines(path)
        for _ in range(VALUES if "{" in line else 1)
    ]


def _wording(wanted: str, line: str, rng: Random) -> Wording:
    kind, _, rest = wanted.partition(" ")
    if all(name.strip() in SETS for name in wanted.split("|")):
        texts = [SETS[name.strip()] for name in wanted.split("|")]
        return Wording(kind, (line,), lambda said: said.content in texts and not said.calls)
    return _KINDS[kind](kind, rest, line, rng)


def _said(text: str) -> Callable[[Answer], bool]:
    return lambda said: said.content == text


def _text(kind: str, rest: str, line: str, rng: Random) -> Wording:
    return Wording("fact", (line,), _said(rest))


def _sum(kind: str, rest: str, line: str, rng: Random) -> Wording:
    a, b = sorted((rng.randint(0, 100), rng.randint(0, 100)), reverse=True)
    left, sign, right = rest.replace("{a}", str(a)).replace("{b}", str(b)).split()
    result = int(left) + (1 if sign == "+" else -1) * int(right)

    def ends_so(said: Answer) -> bool:
        found: list[str] = re.findall(r"-?\d+", said.content)
        return bool(found) and found[-1] == str(result)

    return Wording(kind, (line.replace("{a}", left).replace("{b}", right),), ends_so)


def _typed(line: str, name: str, rng: Random) -> str:
    """The wording with this value; in half of the cases in lower case, if all of the wording is."""
    return line.replace("{}", name.lower() if line == line.lower() and rng.random() < 0.5 else name)


def _capital(kind: str, rest: str, line: str, rng: Random) -> Wording:
    country = rng.choice([one for one in CAPITALS if one not in ALIASES])
    return Wording(
        kind, (_typed(line, country, rng),), _said(f"The capital of {country} is {CAPITALS[country]}.")
    )


def _country(kind: str, rest: str, line: str, rng: Random) -> Wording:
    country = rng.choice([one for one in CAPITALS if one not in ALIASES])
    capital = CAPITALS[country]
    return Wording(kind, (_typed(line, capital, rng),), _said(f"{capital} is the capital of {country}."))


def _order(kind: str, rest: str, line: str, rng: Random) -> Wording:
    row, side = (MONTHS, rest) if kind == "month" else (DAYS, kind)
    place = rng.randrange(len(row))
    other = row[(place + (1 if side == "after" else -1)) % len(row)]
    return Wording(
        "day or month", (_typed(line, row[place], rng),), _said(f"{other} comes {side} {row[place]}.")
    )


def _opposite(kind: str, rest: str, line: str, rng: Random) -> Wording:
    word = rng.choice(list(OPPOSITES))
    return Wording(kind, (line.replace("{}", word),), _said(f"The opposite of {word} is {OPPOSITES[word]}."))


def _row(kind: str, rest: str, line: str, rng: Random) -> Wording:
    row, whole = (DAYS, "week") if rest == "days" else (MONTHS, "year")
    text = f"The {rest} of the {whole} are {', '.join(row[:-1])} and {row[-1]}."
    return Wording("day or month", (line,), _said(text))


def _count(kind: str, rest: str, line: str, rng: Random) -> Wording:
    last = rng.randint(3, talk.HIGHEST)
    text = ", ".join(str(number) for number in range(1, last + 1))
    return Wording(kind, (line.replace("{}", str(last)),), _said(text))


def _repeat(kind: str, rest: str, line: str, rng: Random) -> Wording:
    text = rng.choice(
        [words.word(rng), words.sentence(rng), f"{words.word(rng)} {words.word(rng)}", words.code(rng)]
    )
    return Wording(kind, (line.replace("{}", text),), _said(text))


def _name(kind: str, rest: str, line: str, rng: Random) -> Wording:
    name = rng.choice(words.NAMES)
    turns = tuple(turn.strip() for turn in line.replace("{}", name).split("|"))
    # If one message tells the name and asks for it, the answer may be a welcome or the name.
    right = {f"Your name is {name}."} | ({memory.welcome(name)} if len(turns) == 1 else set())
    return Wording(kind, turns, lambda said: said.content in right)


def _call(kind: str, rest: str, line: str, rng: Random) -> Wording:
    function, *keys = rest.split()
    value: Callable[[], str | int]
    if function == "get_weather":
        type_, value = "string", lambda: words.city(rng)
    else:
        type_, value = "integer", lambda: rng.randint(1, 99)
    properties = {key: {"type": type_} for key in keys}
    arguments = {key: value() for key in keys}
    for given in arguments.values():
        line = line.replace("{}", str(given), 1)
    tool = Tool(
        function, DESCRIPTIONS[function], {"type": "object", "properties": properties, "required": list(keys)}
    )

    def called(said: Answer) -> bool:
        return [(call.name, _json(call.arguments)) for call in said.calls] == [(function, arguments)]

    return Wording(kind, (line,), called, tools=(tool,))


def _record(kind: str, rest: str, line: str, rng: Random) -> Wording:
    types = dict(field.split(":") for field in rest.split())
    made: dict[str, Any] = {
        "name": rng.choice(words.NAMES),
        "age": rng.randint(1, 99),
        "city": words.city(rng),
    }
    found = {key: made[key] for key in types}
    schema = {
        "type": "object",
        "properties": {key: {"type": type_} for key, type_ in types.items()},
        "required": list(types),
    }
    return Wording(
        kind,
        (line.format(**found),),
        lambda said: _json(said.content) == found,
        response_format=ResponseFormat("person", schema) if kind == "schema" else None,
    )


_KINDS: dict[str, Callable[[str, str, str, Random], Wording]] = {
    "text": _text,
    "sum": _sum,
    "capital": _capital,
    "country": _country,
    "after": _order,
    "before": _order,
    "month": _order,
    "opposite": _opposite,
    "row": _row,
    "count": _count,
    "repeat": _repeat,
    "name": _name,
    "call": _call,
    "record": _record,
    "schema": _record,
}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def hold(
    ask: Callable[[list[Conversation]], list[Answer]], asked: list[Wording]
) -> list[tuple[Wording, Answer]]:
    """Run all conversations together, turn by turn; each has its own answers in its history."""
    histories: list[list[Message]] = [[] for _ in asked]
    last: list[Answer | None] = [None] * len(asked)
    for turn in range(max(len(one.turns) for one in asked)):
        going = [place for place, one in enumerate(asked) if turn < len(one.turns)]
        for place in going:
            histories[place].append(Message("user", asked[place].turns[turn]))
        said = ask(
            [
                Conversation(
                    list(histories[place]),
                    list(asked[place].tools),
                    response_format=asked[place].response_format,
                )
                for place in going
            ]
        )
        for place, one in zip(going, said, strict=True):
            histories[place].append(Message("assistant", one.content))
            last[place] = one
    return [(one, said) for one, said in zip(asked, last, strict=True) if said is not None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=None, help="a checkpoint; the bundled one by default")
    parser.add_argument("--wordings", type=Path, default=WORDINGS)
    parser.add_argument("--backend", default=None)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--wrong", type=int, default=1000, help="wrong answers to show")
    options = parser.parse_args()
    asked, right = Counter[str](), Counter[str]()
    with LLM(options.model, backend=options.backend) as llm:
        held = hold(
            lambda conversations: answers(llm, conversations, options.temperature, options.seed),
            wordings(options.seed, options.wordings),
        )
    for wording, said in held:
        asked[wording.wanted] += 1
        mark = wording.right(said) and not said.recoveries
        right[wording.wanted] += mark
        if not mark and asked.total() - right.total() <= options.wrong:
            shown = said.calls or said.content
            print(f"  wanted {wording.wanted}: {' | '.join(wording.turns)!r}\n    said {shown!r}")
    print("| wanted | wordings | right |\n|---|---|---|")
    for wanted in sorted(asked):
        print(f"| {wanted} | {asked[wanted]} | {right[wanted] / asked[wanted]:.1%} |")
    total = {"wordings": asked.total(), "right": right.total(), "share": right.total() / asked.total()}
    print(json.dumps(total))


if __name__ == "__main__":
    main()
