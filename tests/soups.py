"""Random token sequences, mostly invalid harmony, in random pieces: what a model might sample."""

from hypothesis import strategies as st

from tests.vocabularies import SPECIALS

PIECES = [
    *SPECIALS,
    "<|channel|>analysis<|message|>",
    "<|channel|>final<|message|>",
    "<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
    "<|end|><|start|>assistant",
    " to=functions.g",
    '{"a": "b"}',
    "assistant",
    "final",
    "a",
    "b",
    "ab",
    "é",
    "🦜",
    "\n",
]
"""Pieces of answers: headers and their parts, misplaced special tokens, characters of several bytes."""

soups = st.lists(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=2), max_size=20)
"""A random answer: texts, and bytes that may be invalid UTF-8."""

sizes = st.lists(st.integers(1, 6), min_size=1)
"""Numbers of tokens that arrive together, used in turn."""


def tokens_of(tokenizer, soup):
    """The tokens of an answer; at least one, as from the engine."""
    ids = []
    for piece in soup:
        if isinstance(piece, bytes):
            ids += [(7 * byte + 11) % 256 for byte in piece]  # the ids in tests/server/fakes.py
        else:
            ids += tokenizer.encode_with_specials(piece)
    return ids or [tokenizer.special("<|return|>")]


def arriving(ids, sizes):
    """The tokens in groups of these sizes, which are repeated."""
    groups = []
    while ids:
        size = sizes[len(groups) % len(sizes)]
        groups.append(ids[:size])
        ids = ids[size:]
    return groups
