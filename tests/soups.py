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
"""What answers are made of: headers and their parts, special tokens astray, letters of several bytes."""

soups = st.lists(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=2), max_size=20)
"""What the model says: text, and bytes that may be no characters at all."""

sizes = st.lists(st.integers(1, 6), min_size=1)
"""How many tokens arrive together, in turns."""


def tokens_of(tokenizer, soup):
    """Of at least one token: the engine never ends an answer without."""
    ids = []
    for piece in soup:
        if isinstance(piece, bytes):
            ids += [(7 * byte + 11) % 256 for byte in piece]  # as tests/server/fakes.py numbers the bytes
        else:
            ids += tokenizer.encode_with_specials(piece)
    return ids or [tokenizer.special("<|return|>")]


def arriving(ids, sizes):
    """The tokens in groups of these sizes, over and over."""
    groups = []
    while ids:
        size = sizes[len(groups) % len(sizes)]
        groups.append(ids[:size])
        ids = ids[size:]
    return groups
