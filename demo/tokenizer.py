"""The demo's tokenizer: byte-level BPE, trained on the corpus.

Copying is what a small model does best, so a text should have the same tokens in every context: in `"Oslo"`,
in ` Oslo.` and in `(Oslo)`.  Therefore digits and spaces are separate tokens, and a space is joined only to
the words in `_LITTLE_WORDS`, which users rarely ask to copy.  Any UTF-8 text can be encoded, because all
bytes are in the vocabulary.

    python -m demo.tokenizer
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from demo.answers import sample_tokens
from demo.corpus.mixture import samples
from demo.corpus.sample import listed
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer

WEIGHTS = Path(__file__).parent / "weights"
SPECIALS = [
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
    "<|endofprompt|>",
]
VOCABULARY = 2038
"""Tokens without the special ones; the embedding has 2048 rows."""

_LITTLE_WORDS = listed("""
    the of is a an and to in for with on at it I you your my me what that this are am do does can not
    has have was were be by from or as so but if there here how who which where when will would about
    only more than its they them we our us his her did must should want wants asks tell give please
""")
_PIECES = "|".join(
    [
        f" (?:{'|'.join(_LITTLE_WORDS)})(?![A-Za-z])",
        r" = \(_: \{|\}\) => any;|#+|//",  # declarations of functions
        "[0-9]",
        "[A-Z]?[a-z]+",
        "[A-Z]+(?![a-z])",
        r"\p{L}+",
        " +",
        r"[\r\n]+",
        r'[{}\[\]":,]+',
        ".",
    ]
)


def untrained() -> tokenizers.Tokenizer:
    """A tokenizer whose vocabulary has only bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = tokenizers.Tokenizer(
        models.BPE(vocab={letter: id for id, letter in enumerate(alphabet)}, merges=[])
    )
    _dress(bpe)
    bpe.add_special_tokens(SPECIALS)
    return bpe


def train(texts: Iterator[str]) -> tokenizers.Tokenizer:
    bpe = tokenizers.Tokenizer(models.BPE())
    _dress(bpe)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_special_tokens(SPECIALS)
    return bpe


def corpus_texts(bytewise: Tokenizer, count: int) -> Iterator[str]:
    """The texts of samples, in the pieces between special tokens."""
    renderer = Renderer(bytewise)
    specials = set(bytewise.specials.values())
    for setting_samples in islice(samples(seed=0), count // 8):
        for sample in islice(setting_samples[1], 8):
            prompt, answer = sample_tokens(bytewise, renderer, sample)
            piece: list[int] = []
            for id in [*prompt, *answer, bytewise.special("<|end|>")]:
                if id in specials:
                    if piece:
                        yield bytewise.decode(piece)
                    piece = []
                else:
                    piece.append(id)


def _dress(bpe: tokenizers.Tokenizer) -> None:
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()


def main() -> None:
    WEIGHTS.mkdir(exist_ok=True)
    path = WEIGHTS / "tokenizer.json"
    untrained().save(str(path))
    texts = corpus_texts(Tokenizer(path), 40_000)
    trained = train(texts)
    trained.save(str(path), pretty=False)
    print(f"{path}: {trained.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
