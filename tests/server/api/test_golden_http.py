"""Golden requests and their answers, byte for byte but for what changes by nature.

Each file of tests/golden/http/ has a request, what the model says to it, and the answer: one object, or the
events of a stream.  Ids, times and signatures are masked; ids of items by numbers, so that it shows which are
the same.  After a change of the wire format that is meant, write the answers anew, and read the difference:

    python -m tests.server.api.test_golden_http
"""

import json
import re
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.server.fakes import byte_tokenizer, live

FILES = sorted((Path(__file__).parents[2] / "golden" / "http").glob("*.json"))

VOLATILE = [
    (re.compile(r'"(chatcmpl|cmpl)-[0-9a-f]{32}"'), r'"\1-…"'),
    (re.compile(r'"created": ?\d+'), '"created":0'),
    (re.compile(r'"call_[0-9a-f]{32}"'), '"call_…"'),
    (re.compile(r'"req_[0-9a-f]{32}"'), '"req_…"'),
    (re.compile(r'"(created|completed)_at": ?\d+'), r'"\1_at":0'),
    (re.compile(r'"gs1\.[\w-]+"'), '"gs1.…"'),
]
ITEM_ID = re.compile(r'"(resp|conv|rs|msg|fc|ctc|lsh|sh|apc)_[0-9a-f]{32}"')


def masked(text: str) -> str:
    for pattern, stand_in in VOLATILE:
        text = pattern.sub(stand_in, text)
    seen: dict[str, str] = {}
    kinds: Counter[str] = Counter()

    def numbered(found: re.Match[str]) -> str:
        if found[0] not in seen:
            kinds[found[1]] += 1
            seen[found[0]] = f'"{found[1]}_{kinds[found[1]]}"'
        return seen[found[0]]

    return ITEM_ID.sub(numbered, text)


def answer(tokenizer, case):
    """A real server's answer to the request of a case: status, and an object or the events."""
    together = tokenizer.encode_with_specials(case["model_says"])  # so that time decides nothing about chunks
    with live(tokenizer, [together]) as server:
        response = httpx.post(server.url + case["path"], json=case["request"], timeout=30)
    text = masked(response.text)
    if response.headers["content-type"].startswith("text/event-stream"):
        lines = [line for line in text.split("\n") if line]
        return {"status": response.status_code, "events": [event(line) for line in lines]}
    return {"status": response.status_code, "object": json.loads(text)}


def event(line: str):
    data = line.removeprefix("data: ")
    return json.loads(data) if data.startswith("{") else data


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_the_answer_is_the_golden_one(tiny_tokenizer, file):
    case = json.loads(file.read_text())
    assert answer(tiny_tokenizer, case) == case["answer"]


def test_there_are_golden_answers():
    assert len(FILES) >= 20


def write_anew() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = byte_tokenizer(Path(folder))
        for file in FILES:
            case = json.loads(file.read_text())
            case["answer"] = answer(tokenizer, case)
            file.write_text(json.dumps(case, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write_anew()
