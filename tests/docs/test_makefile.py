"""The words of `make`."""

import re
from pathlib import Path

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text().replace("\\\n", " ")


def test_every_word_is_phony():
    """`make image` said "up to date" and did nothing: there is a folder of that name."""
    words = set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split())
    assert "image" in words
    assert words <= phony
    assert all(re.search(rf"^{word}:", MAKEFILE, re.MULTILINE) for word in phony)
