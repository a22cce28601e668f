"""`gptoss verify`: does this server compute the published weights correctly?

    published.py  what others have published about the weights
    files.py      are these the published files?
    text.py       raw text: greedy continuations, batching, perplexity
    turns.py      conversations: harmony's format, endings, calls
    rows.py       the report: expected, found, verdict

Prints a table for users, and on the last line one object of JSON for programs.  The exit code is 0 only if
nothing is wrong.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

from gptoss.assembly import folder_of
from gptoss.llm import LLM
from gptoss.start import StartError
from gptoss.verify.files import check_files
from gptoss.verify.published import Published, published
from gptoss.verify.rows import Row, info, table
from gptoss.verify.text import TOGETHER, check_batching, check_continuations, check_perplexity
from gptoss.verify.turns import check_turns
from server.settings import Settings

FAITHFUL, UNFAITHFUL = 0, 1

TURNS, QUICK_TURNS = 100, 10
"""Number of sampled turns with tools, and the same number without."""

BATCHED_TOKENS, QUICK_BATCHED_TOKENS = 64, 16
CHUNKS, QUICK_CHUNKS = 128, 8


def verify(settings: Settings, asked: argparse.Namespace) -> int:
    """Print the report, and return the exit code.  Raises StartError."""
    text = _text(asked.text)
    with LLM.of(settings) as llm:
        print(llm.assembled.summary)
        known = published(llm.config)
        rows = []
        for row in check(llm, folder_of(settings), known, text, quick=asked.quick):
            print(f"{row.verdict:>6}  {row.about}: {row.found}", flush=True)
            rows.append(row)
    wrong = [row.about for row in rows if row.verdict == "wrong"]
    print(f"\n{table(rows)}\n")
    if wrong:
        print(f"The results, or the weights, differ from the published ones: {'; '.join(wrong)}.")
    elif known is None:
        print("Nothing is wrong; there are no published results for a model of these sizes.")
    else:
        print(f"The results agree with those published for {known.name}.")
    print(json.dumps({"faithful": not wrong, "rows": [row.as_dict() for row in rows]}))
    return UNFAITHFUL if wrong else FAITHFUL


def check(llm: LLM, folder: Path, known: Published | None, text: str | None, *, quick: bool) -> Iterator[Row]:
    """All rows of the report, as they are computed."""
    yield from check_files(folder, llm.tokenizer, known, quick)
    yield from check_continuations(llm, known)
    yield from check_batching(llm, QUICK_BATCHED_TOKENS if quick else BATCHED_TOKENS)
    if text is None:
        yield info(
            "perplexity", "not computed: give a text with --text FILE, such as wikitext-2's raw test split"
        )
    else:
        yield from check_perplexity(llm, text, known, QUICK_CHUNKS if quick else CHUNKS)
    yield from check_turns(llm, known, QUICK_TURNS if quick else TURNS)
    yield info("speed", _speed(llm))


def _text(path: str | None) -> str | None:
    """Raises StartError."""
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"--text {path!r}: {error}") from error


def _speed(llm: LLM) -> str:
    """The speed of one stream, including its prompt; `gptoss bench` is more exact."""
    began = time.perf_counter()
    (answer,) = llm.generate(TOGETHER[0], max_tokens=64, temperature=0, ignore_eos=True)
    return f"{len(answer.token_ids) / (time.perf_counter() - began):.1f} tokens/s for one stream"
