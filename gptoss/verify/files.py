"""Are the files of the checkpoint the published ones?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from gptoss.verify.published import TOKENIZER, Published
from gptoss.verify.rows import Row, info, judged
from language.tokenizer import Tokenizer

BLOCK = 1 << 24


def check_files(folder: Path, tokenizer: Tokenizer, known: Published | None, quick: bool) -> Iterator[Row]:
    """quick  do not read the weights, which takes a minute"""
    if known is None:
        yield info("sizes", "not those of a published model, so there is little to compare with")
    else:
        yield info("sizes", f"those of {known.name}")
        found = tokenizer.checksum
        yield judged(
            "tokenizer.json", f"sha256 {TOKENIZER[:16]}…", f"sha256 {found[:16]}…", found == TOKENIZER
        )
    weights = sorted(folder.glob("*.safetensors"))
    if quick:
        yield info("checksums of weights", "not computed, because of --quick")
        return
    named = [(path, digest) for path in weights if (digest := _digest_in_name(path))]
    if not named:
        digests = ", ".join(f"{path.name} {sha256(path)[:16]}…" for path in weights)
        yield info("checksums of weights", digests)
        return
    wrong = [path.name for path, digest in named if sha256(path) != digest]
    found = "differ: " + ", ".join(wrong) if wrong else f"agree: {len(named)} files"
    yield judged("checksums of weights", "those of the hub", found, not wrong)


def _digest_in_name(path: Path) -> str | None:
    """The SHA-256 of the content, under which the hub's cache stores a large file; None elsewhere."""
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
