"""Tokenizers, and openai-harmony as an oracle."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import pytest

from language.tokenizer import Tokenizer
from tests.vocabularies import real_tokenizer_file, small_tokenizer_file


@pytest.fixture(scope="session")
def real() -> Tokenizer:
    return Tokenizer(real_tokenizer_file())


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(small_tokenizer_file(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="session")
def oracle(real: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """openai-harmony's encoding, offline: its vocabulary is made from tokenizer.json."""
    harmony = pytest.importorskip("openai_harmony")
    folder = tmp_path_factory.mktemp("tiktoken")
    ranks = (base64.b64encode(real.token_bytes(id)) + b" %d\n" % id for id in range(199998))
    data = b"".join(ranks)
    digest = hashlib.sha256(data).hexdigest()
    assert digest == "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
    (folder / "o200k_base.tiktoken").write_bytes(data)
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(folder)
    try:
        return harmony.load_harmony_encoding(harmony.HarmonyEncodingName.HARMONY_GPT_OSS)
    finally:
        del os.environ["TIKTOKEN_ENCODINGS_BASE"]
