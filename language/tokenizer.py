"""Text ↔ token ids: byte-level BPE from `tokenizer.json`.

Special tokens are looked up by name only, because the real checkpoint and the demo model have different ids.
`encode` never produces a special token, whatever the text contains; they enter a prompt through `special`
(language/harmony) or `encode_with_specials` (raw completions).

A token is a sequence of bytes, not of characters: a character may span several tokens.  `Detokenizer` returns
only complete characters.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import tokenizers

WITHOUT_GIL = 1000
"""Characters; a longer text is encoded as a batch of one, which releases the GIL for other threads."""


class TokenizerError(Exception):
    """The file is not a usable tokenizer, or lacks a special token."""


class Tokenizer:
    """Byte-level BPE.  Safe to share between threads: nothing changes after it is built.

    size      number of known ids
    end       one more than the largest known id; some ids below it may be unknown
    specials  ids of all special tokens by name
    checksum  SHA-256 of the file, hexadecimal
    """

    def __init__(self, path: Path | str) -> None:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise TokenizerError(f"cannot read {path}: {error.strerror}") from error
        try:
            self._bpe = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:  # the package raises no more specific exception
            raise TokenizerError(f"{path} is not a tokenizer.json: {error}") from error
        self._bpe.encode_special_tokens = True  # names of special tokens are encoded as ordinary text
        self.checksum = hashlib.sha256(data).hexdigest()

        added = self._bpe.get_added_tokens_decoder()
        self.specials = {token.content: id for id, token in added.items() if token.special}
        self._bytes = _bytes_of_ids(self._bpe.get_vocab(with_added_tokens=False))
        self._bytes |= {id: token.content.encode() for id, token in added.items()}
        self.size = len(self._bytes)
        self.end = max(self._bytes, default=-1) + 1
        self._special_text = re.compile(
            "|".join(re.escape(name) for name in sorted(self.specials, key=len, reverse=True)) or r"(?!)"
        )

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; names of special tokens in it are ordinary text."""
        try:
            return self._encode(text)
        except (TypeError, UnicodeEncodeError):  # the str contains half of a surrogate pair
            return self._encode(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))

    def _encode(self, text: str) -> list[int]:
        if len(text) < WITHOUT_GIL:
            return self._bpe.encode(text, add_special_tokens=False).ids
        return self._bpe.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def encode_with_specials(self, text: str) -> list[int]:
        """The ids of `text`, in which names become special tokens.  Not for text of a conversation."""
        ids: list[int] = []
        end = 0
        for match in self._special_text.finditer(text):
            if match.start() > end:
                ids += self.encode(text[end : match.start()])
            ids.append(self.specials[match.group()])
            end = match.end()
        if end < len(text):
            ids += self.encode(text[end:])
        return ids

    def special(self, name: str) -> int:
        """The id of a special token, by its full name (`"<|start|>"`)."""
        try:
            return self.specials[name]
        except KeyError:
            known = ", ".join(sorted(self.specials)) or "none"
            raise TokenizerError(f"this tokenizer has no special token {name}; it has {known}") from None

    def known(self, id: int) -> bool:
        """Whether `id` is a token; the embedding has more rows than the tokenizer has tokens."""
        return id in self._bytes

    def token_bytes(self, id: int) -> bytes:
        """The bytes of a token; the name of a special token; empty for an unknown id."""
        return self._bytes.get(id, b"")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, with names of special tokens; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")


class Detokenizer:
    """Turns ids into text one at a time, only complete characters.  The joined text is that of `decode`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._bytes_of = tokenizer._bytes.get
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = False

    def feed(self, id: int) -> str:
        """The text that `id` completes; empty inside a character."""
        piece = self._bytes_of(id, b"")
        if not self._pending:
            try:
                return piece.decode()  # almost all tokens are complete characters: 3x faster than the decoder
            except UnicodeDecodeError:
                pass
        text = self._decoder.decode(piece)
        self._pending = bool(self._decoder.getstate()[0])
        return text

    def flush(self) -> str:
        """U+FFFD for an incomplete character at the end, or nothing."""
        if not self._pending:
            return ""
        self._pending = False
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


def _bytes_of_ids(vocabulary: dict[str, int]) -> dict[int, bytes]:
    """Undo GPT-2's byte-level alphabet, in which each byte is written as one printable character.

    Printable Latin-1 stands for itself; the other 68 bytes, in order, are U+0100 and up.
    """
    itself = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in itself]
    alphabet = {0x100 + i: byte for i, byte in enumerate(others)}
    try:
        return {id: token.translate(alphabet).encode("latin-1") for token, id in vocabulary.items()}
    except UnicodeEncodeError as error:
        raise TokenizerError(f"not a byte-level vocabulary: it contains {error.object!r}") from None
