"""JSON and server-sent events as bytes.

`json` holds the GIL until a whole object is written, also on a thread: seconds, for an answer with
log-probabilities.  So a large value is written piece by piece, on a thread, and other threads run in between
(`json_response`, `written`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any

from fastapi import Response

dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""JSON without spaces."""

quote = encode_basestring_ascii
"""Text as a JSON string, in ASCII: some clients split lines at U+2028, as Python does, which would cut the
string in two.
"""


SMALL = 1000
"""An object of at most this many values (64 characters of text count as one) is written at once, in less than
a millisecond.
"""

TOGETHER = 16
"""Elements of a long list that are written at once."""


def event(data: Mapping[str, Any], name: str = "") -> bytes:
    """One server-sent event; with a name if the API's events have names."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {dumps(data)}\n\n".encode()


async def json_response(value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as the body of a response.  It must not change meanwhile."""
    small = size_of(value, SMALL) <= SMALL
    body = dumps(value) if small else await asyncio.to_thread(written, value)
    return Response(body, headers=headers, media_type="application/json")


def size_of(value: Any, enough: int) -> int:
    """How many values are in `value`; 64 characters of text count as one.  Stops soon after `enough`."""
    size, waiting = 0, [value]
    while waiting and size <= enough:
        each = waiting.pop()
        if isinstance(each, str):
            size += len(each) // 64
        elif isinstance(each, dict):
            size += len(each)
            if size <= enough:
                waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            size += len(each)
            if size <= enough:
                waiting.extend(each)
    return size


def written(value: Any) -> str:
    """The JSON of `value`.  Called on a thread."""
    return "".join(pieces(value))


def pieces(value: Any) -> Iterator[str]:
    """The JSON of `value` in pieces.  Each takes little time, unless it is one very long string."""
    if isinstance(value, dict):
        yield "{"
        for i, (key, each) in enumerate(value.items()):
            yield f"{',' if i else ''}{quote(key)}:"
            yield from pieces(each)
        yield "}"
    elif isinstance(value, list | tuple) and len(value) > 2 * TOGETHER:
        for start in range(0, len(value), TOGETHER):
            yield ("," if start else "[") + dumps(value[start : start + TOGETHER])[1:-1]
        yield "]"
    elif isinstance(value, list | tuple):
        for i, each in enumerate(value):
            yield "," if i else "["
            yield from pieces(each)
        yield "]" if value else "[]"
    else:
        yield dumps(value)
