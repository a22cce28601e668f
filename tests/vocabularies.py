"""Tokenizers for tests: the real one, if it is installed, and a small one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

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

REAL = Path(
    os.environ.get("GPTOSS_TOKENIZER")
    or Path(__file__).parents[2] / "shared" / "gpt-oss-tokenizer" / "tokenizer.json"
)


def real_tokenizer_file() -> Path:
    """The tokenizer.json of gpt-oss, 27 MB.  Skips the test if it is not there."""
    if not REAL.is_file():
        pytest.skip(f"needs the tokenizer.json of gpt-oss: none at {REAL}; set GPTOSS_TOKENIZER")
    return REAL


def small_tokenizer_file(folder: Path, specials: list[str] = SPECIALS) -> Path:
    """A byte-level BPE with a few hundred tokens.  Special tokens come first, so all ids differ from the real
    ones.
    """
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = "assistant analysis commentary final to=functions.get_weather json user: Müller said 😀 <| |>"
    bpe.train_from_iterator([words] * 20, trainer)
    path = folder / "tokenizer.json"
    bpe.save(str(path))
    return path
