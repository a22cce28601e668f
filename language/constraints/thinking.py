"""A limit on the chain of thought: when it is reached, the analysis is closed and the answer begins.

    … analysis text │ <|end|><|start|>assistant │ <|channel|>final<|message|> the answer …
      spent here    │ forced                    │ forced, or left to a grammar without reasoning

The text is closed between characters.  In the middle of one, only bytes that lead to its end may come first:
at most three tokens more than the limit.
"""

from __future__ import annotations

import codecs
from collections import deque

from engine.request import Constraint
from language.constraints.grammar import GrammarConstraint, GrammarFailed
from language.harmony.header_tokens import HeaderTokens
from language.tokenizer import Tokenizer


class Closing:
    """What closing a chain of thought needs to know, once per process.

    words  32-bit words of a mask
    """

    def __init__(self, tokenizer: Tokenizer, headers: HeaderTokens, vocab_size: int) -> None:
        self.headers = headers
        self.words = -(-vocab_size // 32)
        self.bytes_of = tokenizer.token_bytes
        single = ((id, tokenizer.token_bytes(id)) for id in range(tokenizer.size))
        self._continuations = {id: byte for id, byte in single if len(byte) == 1 and 0x80 <= byte[0] < 0xC0}

    def mask(self, ids: list[int]) -> memoryview:
        """That allows `ids` and nothing else."""
        bits = bytearray(4 * self.words)
        for id in ids:
            bits[id // 8] |= 1 << id % 8
        return memoryview(bits).cast("i")

    def completions(self, pending: bytes) -> list[int]:
        """The tokens of one byte that bring an unfinished character nearer to its end."""
        return [id for id, byte in self._continuations.items() if _may_follow(pending, byte)]


class ThinkingBudget:
    """Implements `engine.request.Constraint`, over a grammar or alone.

    limit    tokens of chain of thought, counted in the bodies of `analysis`
    grammar  of the whole answer, or None for a free one
    action   the grammar of an answer without reasoning, at its start; None: the header of `final`, then free
    """

    def __init__(
        self,
        closing: Closing,
        limit: int,
        grammar: GrammarConstraint | None = None,
        action: GrammarConstraint | None = None,
    ) -> None:
        self._closing = closing
        self._left = limit
        self._current: Constraint | None = grammar
        self._action = action
        self._header: list[int] | None = (
            None  # the channel's name so far, between <|channel|> and <|message|>
        )
        self._thinking = False
        self._unfinished = b""  # the bytes of a character that has only begun
        self._forced: deque[int] = deque()
        self._acting = False

    def mask(self) -> memoryview | None:
        """None where anything may come.  Raises GrammarFailed."""
        if self._thinking and self._left <= 0 and not self._forced:
            completions = self._closing.completions(self._unfinished) if self._unfinished else []
            if completions:
                return self._closing.mask(completions)
            self._close()
        if self._forced:
            return self._closing.mask([self._forced[0]])
        return self._current.mask() if self._current else None

    def accept(self, token: int) -> None:
        """Raises GrammarFailed."""
        if self._forced:
            if token != self._forced.popleft():
                raise GrammarFailed("the chain of thought had to be closed here")
            return
        if self._current:
            self._current.accept(token)
        if not self._acting:
            self._follow(token)

    def copy(self) -> ThinkingBudget:
        """The same at the beginning of another answer."""
        grammar = self._current.copy() if isinstance(self._current, GrammarConstraint) else None
        return ThinkingBudget(self._closing, self._left, grammar, self._action and self._action.copy())

    def _follow(self, token: int) -> None:
        """Which channel are we in, and what has it cost?"""
        headers = self._closing.headers
        if token == headers.channel:
            self._header, self._thinking = [], False
        elif self._header is not None:
            if token == headers.message:
                name = b"".join(map(self._closing.bytes_of, self._header))
                self._header, self._thinking, self._unfinished = None, name.startswith(b"analysis"), b""
            else:
                self._header.append(token)
        elif token in (headers.start, headers.end, headers.return_, headers.call_):
            self._thinking = False
        elif self._thinking:
            self._left -= 1
            self._unfinished = _unfinished(self._unfinished + self._closing.bytes_of(token))

    def _close(self) -> None:
        headers = self._closing.headers
        self._forced.extend(headers.next_message)
        if self._action is None:
            self._forced.extend(headers.final)
        self._current, self._thinking, self._acting = self._action, False, True


def _unfinished(text: bytes) -> bytes:
    """The last bytes, if they begin a character of UTF-8 without ending it; else nothing."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(text[-4:])
    return decoder.getstate()[0]


def _may_follow(pending: bytes, byte: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(pending + byte)
    except UnicodeDecodeError:
        return False
    return True
