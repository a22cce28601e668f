"""The commands of `make`."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
MAKEFILE = (TESTS.parent / "Makefile").read_text().replace("\\\n", " ")


def test_every_word_is_phony():
    """`make image` said "up to date" and did nothing, because there is a folder of that name."""
    commands = set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split())
    assert "image" in commands
    assert commands <= phony
    assert all(re.search(rf"^{word}:", MAKEFILE, re.MULTILINE) for word in phony)


def test_what_the_quick_tests_leave_out_is_there():
    """If a test were moved, `make quick` would run it again, and take longer."""
    left_out = re.search(r"^LONG = (.+)$", MAKEFILE, re.MULTILINE)[1].split()
    assert all((TESTS / each).exists() for each in left_out)


def test_every_test_is_one_of_ci():
    """`make test` and `make test-exhaustive` divide all tests that need no GPU, and CI runs both."""
    marks = dict(re.findall(r'^(test|test-exhaustive):.*\n\t\$\(TEST\) -m "([^"]+)"', MAKEFILE, re.MULTILINE))
    assert marks == {"test": "not exhaustive and not gpu", "test-exhaustive": "exhaustive and not gpu"}
    scripts = "".join(path.read_text() for path in (TESTS.parent / ".ci").iterdir())
    assert all(re.search(rf"make {word}[ \n]", scripts) for word in marks)
