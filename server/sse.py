"""JSON and server-sent events as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any

dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""JSON without spaces."""

quote = encode_basestring_ascii
"""Text as a JSON string, in ASCII: some clients split lines at U+2028, as Python does, which would otherwise
cut the string in two.
"""


def event(data: Mapping[str, Any], name: str = "") -> bytes:
    """One server-sent event; with a name if the API's events have names."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {dumps(data)}\n\n".encode()
