"""The cost of making the arguments of calls follow their schema, compared with allowing any JSON object.

There are twelve functions, such as a coding agent declares.  Measured are the time to compile the grammar,
with new and with known schemas, and for each token of a call the time of its mask and of the grammar's step.
Both variants are measured alternately, so that other programs disturb both equally.  The engine computes
masks during the model's step, so a step takes longer only if its mask takes longer than the model.

    python -m bench.arguments TOKENIZER.json | tail -1 | jq .schema.mask_us
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from language.constraints import AnswerSpec, Constraints
from language.harmony.header_tokens import HeaderTokens
from language.harmony.messages import Tool
from language.tokenizer import Tokenizer

ROUNDS = 15

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}


def function(name: str, required: str, **properties: Any) -> Tool:
    return Tool(name, "Does it.", {"type": "object", "properties": properties, "required": required.split()})


def tools(round: int) -> tuple[Tool, ...]:
    """The functions, with other schemas in each round."""
    new = {"type": "string", "description": f"round {round}"}
    todo = {
        "type": "object",
        "properties": {"text": TEXT, "state": {"enum": ["pending", "active", "done"]}},
        "required": ["text", "state"],
    }
    return (
        function("run", "command", command=TEXT, timeout=COUNT, about=TEXT, background={"type": "boolean"}),
        function("read", "path", path=TEXT, offset=COUNT, limit=COUNT),
        function("write", "path content", path=TEXT, content=TEXT),
        function("edit", "path old new", path=TEXT, old=TEXT, new=TEXT, all={"type": "boolean"}),
        function("find", "pattern", pattern=TEXT, path=TEXT),
        function("search", "pattern", pattern=TEXT, path=TEXT, before=COUNT, after=COUNT,
                 mode={"enum": ["content", "files", "count"]}),
        function("fetch", "url prompt", url={"type": "string", "format": "uri"}, prompt=TEXT),
        function("plan", "todos", todos={"type": "array", "items": todo}),
        function("ask", "question", question=TEXT, options={"type": "array", "items": TEXT, "maxItems": 4}),
        function("task", "prompt kind", prompt=TEXT, kind={"enum": ["explore", "review", "write"]}),
        function("kill", "id", id=TEXT),
        function("note", "text", text=new),
    )  # fmt: skip


ARGUMENTS = {
    "edit": {
        "path": "src/app/main.py",
        "old": "def main():\n    run(1, 2)\n" * 8,
        "new": "pass\n" * 8,
        "all": False,
    },
    "search": {"pattern": "class .*Error", "path": "src", "before": 2, "after": 10, "mode": "content"},
    "plan": {"todos": [{"text": f"step {i} of the work", "state": "pending"} for i in range(8)]},
}


def milliseconds(since: float) -> float:
    return (time.perf_counter() - since) * 1e3


def masks(constraints: Constraints, spec: AnswerSpec, answers: dict[str, list[int]]) -> list[float]:
    """For each token of all answers: microseconds of the grammar's step and of the next mask."""
    whole = constraints.compile(spec)
    assert whole is not None
    taken = []
    for tokens in answers.values():
        constraint = whole.copy()
        for token in tokens:
            start = time.perf_counter()
            words = constraint.mask()
            assert words is not None
            taken.append(milliseconds(start) * 1e3)
            assert words[token // 32] >> token % 32 & 1, "a call of the schema is allowed on both sides"
            start = time.perf_counter()
            constraint.accept(token)
            taken[-1] += milliseconds(start) * 1e3
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tokenizer", type=Path, help="a tokenizer.json")
    tokenizer = Tokenizer(parser.parse_args().tokenizer)
    constraints, headers = Constraints(tokenizer, tokenizer.end), HeaderTokens(tokenizer)
    constraints.compile(AnswerSpec(response_format="json_object"))  # starts the sandbox
    found: dict[str, dict[str, list[float]]] = {
        kind: {"new_ms": [], "known_ms": [], "mask_us": []} for kind in ("any_object", "schema")
    }
    for round in range(ROUNDS):
        declared = tools(round)
        loose = frozenset(tool.name for tool in declared)
        answers = {
            tool.name: [*headers.call(tool), *tokenizer.encode(json.dumps(ARGUMENTS[tool.name]))]
            for tool in declared
            if tool.name in ARGUMENTS
        }
        sides = [("any_object", AnswerSpec(declared, loose_tools=loose)), ("schema", AnswerSpec(declared))]
        for kind, spec in sides if round % 2 else sides[::-1]:
            for when in ("new_ms", "known_ms"):
                start = time.perf_counter()
                constraints.compile(spec)
                found[kind][when].append(milliseconds(start))
            found[kind]["mask_us"] += masks(constraints, spec, answers)
    told = {}
    for kind, measured in found.items():
        told[kind] = {name: round_to(values) for name, values in measured.items()}
        told[kind]["mask_us_p99"] = round_to([statistics.quantiles(measured["mask_us"], n=100)[98]])
        print(kind, told[kind])
    print(
        json.dumps({"processor": platform.processor(), "vocabulary": tokenizer.end, "rounds": ROUNDS, **told})
    )


def round_to(values: list[float]) -> float:
    return round(statistics.median(values), 2)


if __name__ == "__main__":
    main()
