"""Reads the lines of a batch, in OpenAI's batch format.

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": […]}}

The body is not checked here: the API does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json, to_json

from gptoss.start import StartError

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")

MAX_LINE_BYTES = 64 * 2**20
MAX_ID = 512
"""Maximum characters of a custom_id."""

ONLY_LIVE = {
    "stream": "a batch has no streams; leave it out",
    "background": "a batch waits for its answers; leave it out",
}
"""Fields of a body that are not possible in a batch."""


@dataclass(frozen=True, slots=True)
class Task:
    """A request.  number: its line, from 1"""

    number: int
    custom_id: str
    url: str
    body: bytes


@dataclass(frozen=True, slots=True)
class BadLine:
    """An invalid line.  custom_id: None if it has no valid one"""

    number: int
    custom_id: str | None
    message: str
    param: str | None = None


class LineError(Exception):
    def __init__(self, message: str, param: str | None = None):
        super().__init__(message)
        self.message, self.param = message, param


def read(path: Path) -> Iterator[Task | BadLine]:
    """Each line that is not blank, in order.  Raises StartError if the file cannot be read."""
    seen: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            for number, line in _lines(file):
                yield _task(number, line, seen)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line.  A too long line is truncated to MAX_LINE_BYTES + 1 bytes."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(MAX_LINE_BYTES)):
            pass
        if line.strip():
            yield number, line


def _task(number: int, line: bytes, seen: dict[str, int]) -> Task | BadLine:
    """seen: custom_id → its first line; this line is added"""
    custom_id: str | None = None
    try:
        entry = _entry(line)
        custom_id = _id(entry)
        if (first := seen.setdefault(custom_id, number)) != number:
            raise LineError(f"line {first} has the same custom_id", "custom_id")
        return Task(number, custom_id, _url(entry), _body(entry))
    except LineError as error:
        return BadLine(number, custom_id, error.message, error.param)


def _entry(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise LineError(f"the line has more than {MAX_LINE_BYTES} bytes")
    try:
        entry = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise LineError(f"the line is not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise LineError("the line must be a JSON object")
    return entry


def _id(entry: dict[str, Any]) -> str:
    id = entry.get("custom_id")
    if not isinstance(id, str) or not 0 < len(id) <= MAX_ID:
        raise LineError(f"custom_id: must be a text of 1 to {MAX_ID} characters", "custom_id")
    return id


def _url(entry: dict[str, Any]) -> str:
    if entry.get("method") != "POST":
        raise LineError("method: must be POST", "method")
    url = entry.get("url")
    if not isinstance(url, str) or url not in ENDPOINTS:
        raise LineError(f"url: must be one of {', '.join(ENDPOINTS)}", "url")
    return url


def _body(entry: dict[str, Any]) -> bytes:
    body = entry.get("body")
    if not isinstance(body, dict):
        raise LineError("body: must be a JSON object", "body")
    for field, why in ONLY_LIVE.items():
        if body.get(field):
            raise LineError(f"body.{field}: {why}", f"body.{field}")
    return to_json(body)
