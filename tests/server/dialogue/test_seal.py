"""A seal can be opened only for its owner, and nothing that a client sends as a seal is an error."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialogue.seal import MAX_CHARACTERS, Seal, process_secret, secret_of

TOKENS = [0, 1, 127, 128, 200_002, 2**31 - 1]


@given(tokens=st.lists(st.integers(0, 2**31 - 1)), owner=st.binary(max_size=40))
def test_what_was_sealed_opens_verbatim(tokens, owner):
    secret = process_secret()
    assert Seal(secret).open(Seal(secret).close(tokens, owner), owner) == tokens


def test_no_two_seals_are_alike_and_none_shows_what_is_in_it():
    seal = Seal(b"secret")
    texts = {seal.close([7] * 100) for _ in range(50)}
    assert len(texts) == 50
    assert all(text.isascii() and text.startswith("gs1.") for text in texts)


@pytest.mark.parametrize(
    "other",
    [Seal(b"other"), Seal(b"secret", "another vocabulary")],
    ids=["another key", "another vocabulary"],
)
def test_a_foreign_seal_is_ignored_and_counted(other):
    seal = Seal(b"secret", "ours")
    assert seal.open(other.close(TOKENS)) == []
    assert seal.open(seal.close(TOKENS, b"alice"), b"bob") == []
    assert (seal.opened, seal.refused) == (0, 2)


@given(change=st.integers(0, 200), to=st.sampled_from("Ab0-_=+/ é\0"))
def test_a_damaged_seal_is_ignored(change, to):
    seal = Seal(b"secret")
    text = seal.close(TOKENS)
    at = change % len(text)
    opened = seal.open(text[:at] + to + text[at + 1 :])
    assert opened == ([] if text[at] != to else TOKENS)
    assert seal.open(text[:at]) == []


@given(text=st.text() | st.text().map("gs1.".__add__) | st.binary().map(lambda b: "gs1." + b.hex()))
def test_any_text_at_all_is_no_error(text):
    assert Seal(b"secret").open(text) == []


def test_a_seal_too_long_to_be_ours_is_not_even_decoded():
    assert Seal(b"secret").open("gs1." + "A" * MAX_CHARACTERS) == []


def test_the_key_file_is_made_once_and_read_afterwards(tmp_path):
    file = tmp_path / "key"
    first = secret_of(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret_of(file) == first
    text = Seal(first).close(TOKENS)
    assert Seal(secret_of(file)).open(text) == TOKENS
    file.write_text("short\n")
    with pytest.raises(ValueError, match="fewer than 16 bytes"):
        secret_of(file)
