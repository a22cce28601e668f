"""Log-probabilities as JSON: OpenAI's list for a chat, OpenAI's four parallel lists for a completion, and
vLLM's objects for a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.request import Logprob
from language.tokenizer import Tokenizer

LOWEST = -9999.0
"""Stands for minus infinity, which JSON does not have.  OpenAI uses the same number."""


def token_text(tokenizer: Tokenizer, id: int) -> str:
    """The text of a token; its bytes if they are not complete characters."""
    raw = tokenizer.token_bytes(id)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def token_label(tokenizer: Tokenizer, id: int, as_id: bool) -> str:
    """How a token is named in a response: by its text or, in vLLM's format, by its id."""
    return f"token_id:{id}" if as_id else token_text(tokenizer, id)


def chat_entry(tokenizer: Tokenizer, id: int, logprob: Logprob, as_ids: bool = False) -> dict[str, Any]:
    """The entry of a token in the list for a chat."""

    def fields(id: int, value: float) -> dict[str, Any]:
        raw = list(tokenizer.token_bytes(id))
        return {"token": token_label(tokenizer, id, as_ids), "logprob": max(value, LOWEST), "bytes": raw}

    top = [fields(other, value) for other, value in logprob.top]
    return {**fields(id, logprob.logprob), "top_logprobs": top}


def prompt_entries(
    tokenizer: Tokenizer, prompt: Sequence[int], logprobs: Sequence[Logprob | None] | None
) -> list[dict[str, Any] | None]:
    """For each token of the prompt, an object with that token and the most likely ones in its place, by id.

    The rank of a token that is not among the most likely is unknown.
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
                    "decoded_token": token_text(tokenizer, other),
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
        best = {token_label(tokenizer, other, as_ids): max(value, LOWEST) for other, value in logprob.top}
        top.append({**best, token_label(tokenizer, id, as_ids): max(logprob.logprob, LOWEST)})
    return {
        "tokens": [token_label(tokenizer, id, as_ids) for _, id, _ in tokens],
        "token_logprobs": [max(logprob.logprob, LOWEST) if logprob else None for _, _, logprob in tokens],
        "top_logprobs": top,
        "text_offset": [offset for offset, _, _ in tokens],
    }
