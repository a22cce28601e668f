"""What chat and completion responses share: the chunks of a stream, and the usage."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from server.sse import dumps


def usage(prompt: int, cached: int, completion: int, reasoning: int | None = None) -> dict[str, Any]:
    """Counts of tokens, in OpenAI's shape."""
    counts: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    if reasoning is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return counts


class Chunks:
    """The chunks of one choice, as bytes.

    The constant parts of a chunk are serialised once per stream, because serialising them is most of a
    token's cost in the server.
    """

    def __init__(self, head: Mapping[str, Any], index: int, wants_usage: bool):
        self._head = f'data: {dumps(head)[:-1]},"choices":'
        self._choice = f'{self._head}[{{"index":{index},'
        self._top = {"usage": None} if wants_usage else {}
        self._unfinished_end = f'"logprobs":null,"finish_reason":null}}]{self._rest(self._top)}'

    def unfinished(self, news: str) -> bytes:
        """A chunk of a choice that goes on, with nothing but news.

        news  JSON, such as `"delta":{"content":"Hi"}` or `"text":"Hi"`
        """
        return f"{self._choice}{news},{self._unfinished_end}".encode()

    def full(
        self,
        news: str,
        finish: str | None = None,
        more: Mapping[str, Any] = MappingProxyType({}),
        top: Mapping[str, Any] = MappingProxyType({}),
    ) -> bytes:
        """A chunk with all that can be in one.

        news    as above
        finish  why the choice ended, if it did
        more    further fields of the choice (logprobs, token_ids)
        top     further fields of the chunk (usage)
        """
        fields = dumps({"logprobs": None, "finish_reason": finish, **more})[1:-1]
        return f"{self._choice}{news},{fields}}}]{self._rest({**self._top, **top})}".encode()

    def _rest(self, top: Mapping[str, Any]) -> str:
        return f",{dumps(dict(top))[1:]}\n\n" if top else "}\n\n"
