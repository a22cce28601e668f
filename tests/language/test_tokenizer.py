"""Text to ids and back: special tokens only by name, and only complete characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from language.tokenizer import Detokenizer, Tokenizer, TokenizerError
from tests.vocabularies import SPECIALS, real_tokenizer_file, small_tokenizer_file


@pytest.fixture(scope="module", params=["small", "real"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param == "real":
        return Tokenizer(real_tokenizer_file())
    return Tokenizer(small_tokenizer_file(tmp_path_factory.mktemp("small")))


texts = st.text() | st.lists(st.sampled_from([*SPECIALS, "a", " ", "é", "😀", "\n"])).map("".join)
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@shared
@given(text=texts)
@example(text="<|start|>assistant<|channel|>final<|message|>")
def test_text_survives_and_never_becomes_a_special_token(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.specials.values())


@shared
@given(pieces=st.lists(st.sampled_from(SPECIALS) | st.text()))
def test_names_of_special_tokens_are_live_where_asked_for(tokenizer: Tokenizer, pieces: list[str]) -> None:
    text = "".join(pieces)
    ids = tokenizer.encode_with_specials(text)
    assert tokenizer.decode(ids) == text
    found = [id for id in ids if id in tokenizer.specials.values()]
    assert len(found) == sum(text.count(name) for name in SPECIALS)


def test_live_special_tokens_split_text_as_the_tokenizers_package_does(tokenizer: Tokenizer) -> None:
    text = "Hi  <|start|> there<|end|><|return|>\n\n x"
    bpe = tokenizer._bpe
    bpe.encode_special_tokens = False
    try:
        theirs = bpe.encode(text, add_special_tokens=False).ids
    finally:
        bpe.encode_special_tokens = True
    assert tokenizer.encode_with_specials(text) == theirs


def test_the_longest_name_of_a_special_token_wins(tmp_path: Path) -> None:
    tokenizer = Tokenizer(small_tokenizer_file(tmp_path, ["<|a|>", "<|a|><|b|>"]))
    assert tokenizer.encode_with_specials("<|a|><|b|><|a|>") == [1, 0]


def test_half_a_surrogate_pair_is_a_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud83d\ude00b\ud800c")) == "a😀b�c"


@shared
@given(data=st.data())
def test_pieces_of_the_detokenizer_join_to_the_whole_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.size + 50)))
    detokenizer = Detokenizer(tokenizer)
    assert "".join(map(detokenizer.feed, ids)) + detokenizer.flush() == tokenizer.decode(ids)
    assert detokenizer.flush() == ""


@shared
@given(text=st.text(alphabet="aé€😀"))
def test_no_piece_ends_inside_a_character(tokenizer: Tokenizer, text: str) -> None:
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.feed(id) for id in tokenizer.encode(text)]
    assert "\ufffd" not in "".join(pieces)
    assert detokenizer.flush() == ""


def test_an_unfinished_character_is_held_back_until_the_flush(tokenizer: Tokenizer) -> None:
    first_byte = next(id for id in range(tokenizer.size) if tokenizer.token_bytes(id) == b"\xf0")
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.feed(first_byte) == ""
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.feed(tokenizer.encode("a")[0]) == "a"


def test_ids_past_the_vocabulary_are_unknown_and_mean_nothing(tokenizer: Tokenizer) -> None:
    for id in (-1, tokenizer.size, 10**9):
        assert not tokenizer.known(id)
        assert tokenizer.token_bytes(id) == b""
    assert all(map(tokenizer.known, range(tokenizer.size)))


def test_all_256_bytes_are_tokens(tokenizer: Tokenizer) -> None:
    pieces = {tokenizer.token_bytes(id) for id in range(tokenizer.size)}
    assert pieces >= {bytes([byte]) for byte in range(256)}


def test_the_real_tokenizer_has_the_ids_of_the_specification() -> None:
    tokenizer = Tokenizer(real_tokenizer_file())
    assert tokenizer.special("<|start|>") == 200006
    assert tokenizer.special("<|call|>") == 200012
    assert tokenizer.size == 200019
    assert not tokenizer.known(200019)
    assert tokenizer.checksum == "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3"


def test_a_missing_special_token_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    tokenizer = Tokenizer(small_tokenizer_file(tmp_path, ["<|start|>", "<|end|>"]))
    with pytest.raises(TokenizerError, match=r"no special token <\|call\|>; it has <\|end\|>, <\|start\|>"):
        tokenizer.special("<|call|>")


def test_files_that_are_no_tokenizer_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"cannot read .*nowhere\.json: No such file"):
        Tokenizer(tmp_path / "nowhere.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(TokenizerError, match=r"broken\.json is not a tokenizer\.json"):
        Tokenizer(broken)


def test_a_vocabulary_that_is_not_byte_level_is_refused(tmp_path: Path) -> None:
    path = small_tokenizer_file(tmp_path)
    content = json.loads(path.read_text())
    content["model"]["vocab"]["▁word"] = len(content["model"]["vocab"])
    path.write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match="not a byte-level vocabulary: it contains '▁word'"):
        Tokenizer(path)
