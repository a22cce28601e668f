"""Encrypts sampled tokens for the client, and decrypts them when they come back.

A client that keeps a conversation itself sends our chains of thought back: as `encrypted_content` in one API,
as a `signature` in another.  This text contains the sampled tokens, so that the next prompt has the same
tokens although the server stored nothing.  It is sealed with authenticated encryption (AES-GCM), so that
nobody else can read it, and nobody can forge it: tokens are more powerful than text, since they may be
control tokens.

    gs1.{base64url of nonce, then ciphertext and tag}

The plaintext is the tokens as varints.  The prefix, the vocabulary and the owner are authenticated with it: a
seal can be opened only for the owner (of an API key) and the vocabulary that it was made for.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MARK = "gs1."
NONCE_BYTES = 12
MAX_CHARACTERS = 4 * 2**20
"""Maximum length of a seal; a longer text is not one of ours."""


class Seal:
    """
    secret     of any length; a seal can be opened by every server with the same secret
    tokenizer  identifies the vocabulary, because token ids of another have other meanings
    opened     number of seals that were opened
    refused    number of seals that were forged, damaged, or for another owner
    """

    def __init__(self, secret: bytes, tokenizer: str = "") -> None:
        key = hashlib.sha256(b"gptoss seal\0" + hashlib.sha256(secret).digest()).digest()
        self._cipher = AESGCM(key)
        self._vocabulary = tokenizer.encode()
        self.opened = self.refused = 0

    def close(self, tokens: Sequence[int], owner: bytes = b"") -> str:
        """The sealed text of these tokens, for `owner`."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, _varints(tokens), self._bound_to(owner))
        return MARK + _written(nonce + sealed)

    def open(self, text: str, owner: bytes = b"") -> list[int]:
        """The tokens; none if the seal is forged, damaged, or for another owner or key."""
        tokens = self._opened(text, owner)
        if tokens is None:
            self.refused += 1
            return []
        self.opened += 1
        return tokens

    def _opened(self, text: str, owner: bytes) -> list[int] | None:
        if not text.startswith(MARK) or len(text) > MAX_CHARACTERS or not text.isascii():
            return None
        body = text[len(MARK) :]
        try:
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            if _written(raw) != body:  # another base64 text of the same bytes is not ours
                return None
            plain = self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], self._bound_to(owner))
        except (ValueError, InvalidTag):
            return None
        return _tokens(plain)

    def _bound_to(self, owner: bytes) -> bytes:
        return b"\0".join((MARK.encode(), self._vocabulary, owner))


def _written(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def process_secret() -> bytes:
    """A random secret for this process: its seals cannot be opened after a restart."""
    return os.urandom(32)


def secret_of(file: Path) -> bytes:
    """The secret in `file`.  A missing file is created with a new secret, readable only by its owner.

    Raises OSError, and ValueError if the file is too short for a secret.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        secret = file.read_bytes().strip()
        if len(secret) < 16:
            raise ValueError("it holds fewer than 16 bytes") from None
        return secret
    secret = base64.b64encode(os.urandom(32))
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(secret + b"\n")
    return secret


def _varints(tokens: Sequence[int]) -> bytes:
    """Seven bits in each byte, the lowest first: two or three bytes for most tokens."""
    out = bytearray()
    for token in tokens:
        while token > 0x7F:
            out.append(token & 0x7F | 0x80)
            token >>= 7
        out.append(token)
    return bytes(out)


def _tokens(data: bytes) -> list[int]:
    tokens, token, shift = [], 0, 0
    for byte in data:
        token |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            tokens.append(token)
            token, shift = 0, 0
    return tokens
