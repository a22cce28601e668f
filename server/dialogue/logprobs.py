"""Log-probabilities in OpenAI's formats: one list for the visible text of a chat, four parallel lists for a
completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from engine.request import Logprob
from language.tokenizer import Tokenizer

LOWEST = -9999.0
"""Stands for minus infinity, as with OpenAI: JSON has no infinity."""

T = TypeVar("T")


class UntilShown(Generic[T]):
    """Holds an item for each token until the token's text is shown; items of text that is cut off are lost.

    A token may end in the middle of a character, and a stop string may hold text back or cut it off.  So each
    item is stored with the position in the visible text, in characters, at which its token begins.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, T]] = []

    def add(self, begins_at: int, item: T) -> None:
        self._held.append((begins_at, item))

    def take(self, shown: float) -> list[T]:
        """Remove and return the items of the first `shown` characters."""
        taken = [item for begins_at, item in self._held if begins_at < shown]
        self._held = [(begins_at, item) for begins_at, item in self._held if begins_at >= shown]
        return taken


def name(tokenizer: Tokenizer, id: int) -> str:
    """The text of a token; its bytes if they are not complete characters."""
    raw = tokenizer.token_bytes(id)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def called(tokenizer: Tokenizer, id: int, as_id: bool) -> str:
    """What a token is called: its text, or its number, as vLLM writes it."""
    return f"token_id:{id}" if as_id else name(tokenizer, id)


def chat_entry(tokenizer: Tokenizer, id: int, logprob: Logprob, as_ids: bool = False) -> dict[str, Any]:
    def fields(id: int, value: float) -> dict[str, Any]:
        raw = list(tokenizer.token_bytes(id))
        return {"token": called(tokenizer, id, as_ids), "logprob": max(value, LOWEST), "bytes": raw}

    top = [fields(other, value) for other, value in logprob.top]
    return {**fields(id, logprob.logprob), "top_logprobs": top}


def prompt_entries(
    tokenizer: Tokenizer, prompt: Sequence[int], logprobs: Sequence[Logprob | None] | None
) -> list[dict[str, Any] | None]:
    """For each token of the prompt: itself and the likeliest in its place, by id, as vLLM tells them.

    Of a token behind the likeliest the rank is not known.
    """
    entries: list[dict[str, Any] | None] = []
    for id, logprob in zip(prompt, logprobs or [None] * len(prompt), strict=True):
        if logprob is None:
            entries.append(None)
            continue
        ranks = {other: rank for rank, (other, _) in enumerate(logprob.top, start=1)}
        values = {id: logprob.logprob, **dict(logprob.top)}
        entries.append(
            {
                str(other): {
                    "logprob": max(value, LOWEST),
                    "rank": ranks.get(other),
                    "decoded_token": name(tokenizer, other),
                }
                for other, value in values.items()
            }
        )
    return entries


def completion_lists(
    tokenizer: Tokenizer, tokens: Sequence[tuple[int, int, Logprob | None]], as_ids: bool = False
) -> dict[str, Any]:
    """Four parallel lists.

    tokens  (offset in the text, id, log-probability) of each; None for the first prompt token
    """
    top: list[dict[str, float] | None] = []
    for _, id, logprob in tokens:
        if logprob is None:
            top.append(None)
            continue
        best = {called(tokenizer, other, as_ids): max(value, LOWEST) for other, value in logprob.top}
        top.append({**best, called(tokenizer, id, as_ids): max(logprob.logprob, LOWEST)})
    return {
        "tokens": [called(tokenizer, id, as_ids) for _, id, _ in tokens],
        "token_logprobs": [max(logprob.logprob, LOWEST) if logprob else None for _, _, logprob in tokens],
        "top_logprobs": top,
        "text_offset": [offset for offset, _, _ in tokens],
    }
