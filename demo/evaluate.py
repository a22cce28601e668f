"""Measures the demo model on held-out prompts, with the engine, grammars and reader that serve it.

    python -m demo.evaluate --cases 200

For each family and temperature, it prints the share of answers that are exactly right.  A case is right if
what the client would see, content or call, is exactly the corpus's answer.  The wording of the analysis does
not matter, but there must be one unless the effort is "none".  JSON is compared as values: the order of an
object's keys does not matter (RFC 8259).

It ends with an error if a family is worse than in the committed table (measured.json): such weights must not
be committed.  `--write` puts the new figures into the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from demo.corpus.mixture import FAMILIES, WITH_TOOLS, a_sample, a_setting
from demo.corpus.sample import Sample
from engine.request import SamplingParams
from gptoss.llm import LLM
from gptoss.results import Answer
from language.harmony.messages import Conversation
from server.dialogue.turn import Demands, Turn

MEASURED = Path(__file__).parent / "measured.json"
ROOM = {"greedy": 0.01, "sampled": 0.02}
"""Shares by which a family may be worse than in the table: two cases of 200, or four if sampled."""
LONGEST = 512
"""Maximum tokens of an answer."""


def held_out_samples(family: str, count: int, seed: int) -> list[Sample]:
    """Cases of one family that are kept from training, with all efforts and dates."""
    rng = Random(f"{family} {seed}")
    return [
        a_sample(rng, a_setting(rng, tools=family in WITH_TOOLS), family, held=True) for _ in range(count)
    ]


def answers(llm: LLM, conversations: list[Conversation], temperature: float, seed: int) -> list[Answer]:
    """The answers to the conversations, in their order, as a client would see them: one who asks for JSON by
    a schema gets JSON that follows it.
    """
    return llm.answers(
        [
            Turn(
                conversation,
                max_tokens=LONGEST,
                demands=Demands(response_format=conversation.response_format or "text"),
                sampling=SamplingParams(temperature=temperature, seed=seed + place),
            )
            for place, conversation in enumerate(conversations)
        ]
    )


def right(sample: Sample, said: Answer) -> bool:
    """Whether the client sees exactly the answer of the corpus."""
    expected = sample.answer
    if (expected.analysis is None) != (not said.reasoning) or said.recoveries:
        return False
    if expected.call is None:
        return not said.calls and _same(expected.final or "", said.content or "")
    if len(said.calls) != 1 or said.calls[0].name != expected.call.name:
        return False
    return _same(expected.call.arguments, said.calls[0].arguments)


def _same(expected: str, said: str) -> bool:
    """Whether both texts are equal, or the same JSON object."""
    if not expected.startswith("{"):
        return expected == said
    try:
        return _canonical(expected) == _canonical(said)
    except ValueError:
        return False


def _canonical(text: str) -> str:
    """JSON with sorted keys, and 7 as 7.0; `true` and `1` remain different."""
    return json.dumps(json.loads(text, parse_int=float), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Row:
    family: str
    cases: int
    greedy: float
    sampled: float
    by_effort: dict[str, float]


def rows(llm: LLM, families: list[str], cases: int, seed: int, wrong_shown: int) -> Iterator[Row]:
    for family in families:
        samples = held_out_samples(family, cases, seed)
        marks: dict[float, list[bool]] = {}
        for temperature in (0.0, 1.0):
            conversations = [sample.conversation for sample in samples]
            said = answers(llm, conversations, temperature, seed)
            marks[temperature] = [right(sample, one) for sample, one in zip(samples, said, strict=True)]
            shown = 0
            for sample, one, mark in zip(samples, said, marks[temperature], strict=True):
                if not mark and temperature == 0 and shown < wrong_shown:
                    shown += 1
                    print(
                        f"  {family}, effort {sample.conversation.effort}: "
                        f"{sample.conversation.messages[-1].content!r}\n"
                        f"    wanted {sample.answer.call or sample.answer.final!r}\n    said   {one}"
                    )
        efforts = sorted({sample.conversation.effort for sample in samples})
        by_effort: dict[str, float] = {
            effort: _share(
                [
                    mark
                    for sample, mark in zip(samples, marks[0.0], strict=True)
                    if sample.conversation.effort == effort
                ]
            )
            for effort in efforts
        }
        yield Row(family, cases, _share(marks[0.0]), _share(marks[1.0]), by_effort)


def _share(marks: list[bool]) -> float:
    return sum(marks) / len(marks)


def fallen(measured: dict[str, dict[str, float]], found: list[Row]) -> list[str]:
    """The families that are worse than measured before by more than `ROOM`, and those that are not in the
    table.
    """
    worse = []
    for row in found:
        before = measured.get(row.family)
        if before is None:
            worse.append(f"{row.family} is not in the table")
            continue
        for name, now in (("greedy", row.greedy), ("sampled", row.sampled)):
            if now < before[name] - ROOM[name]:
                worse.append(f"{row.family}, {name}: {now:.1%}, was {before[name]:.1%}")
    return worse


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=None, help="a checkpoint; the bundled one by default")
    parser.add_argument("--backend", default=None)
    parser.add_argument("--cases", type=int, default=200, help="per family")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--family", action="append", choices=list(FAMILIES))
    parser.add_argument("--wrong", type=int, default=0, help="wrong answers to show per family")
    parser.add_argument("--measured", type=Path, default=MEASURED, help="the table to compare with")
    parser.add_argument("--write", action="store_true", help="put the new figures into the table")
    options = parser.parse_args()
    llm = LLM(options.model, backend=options.backend)
    print(llm.assembled.summary)
    began = time.monotonic()
    print("| family | cases | greedy | temperature 1 | greedy by effort |\n|---|---|---|---|---|")
    found = []
    for row in rows(
        llm,
        options.family or list(FAMILIES),
        options.cases,
        options.seed,
        options.wrong,
    ):
        found.append(row)
        efforts = ", ".join(f"{effort} {share:.0%}" for effort, share in row.by_effort.items())
        print(
            f"| {row.family} | {row.cases} | {row.greedy:.1%} | {row.sampled:.1%} | {efforts} |", flush=True
        )
    print(f"{time.monotonic() - began:.0f} s")
    measured = json.loads(options.measured.read_text()) if options.measured.exists() else {}
    if options.write:
        measured |= {row.family: {"greedy": row.greedy, "sampled": row.sampled} for row in found}
        options.measured.write_text(json.dumps(measured, indent=2) + "\n")
        return
    worse = fallen(measured, found)
    for line in worse:
        print(f"fell: {line}")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
