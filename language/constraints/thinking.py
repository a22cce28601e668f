"""Limits the chain of thought: at the limit, the analysis message is closed and the answer begins.

    … analysis text │ <|end|><|start|>assistant │ <|channel|>final<|message|> the answer …
      counted       │ forced                    │ forced, or decided by the grammar of the answer

The text is closed at a character boundary: if the limit falls inside a character, only bytes that complete it
are allowed first, at most three tokens more.
"""

from __future__ import annotations

import codecs
from collections import deque

from engine.request import Constraint
from language.constraints.grammar import GrammarConstraint, GrammarFailed
from language.harmony.header_tokens import HeaderTokens
from language.tokenizer import Tokenizer


class ThinkingTables:
    """Tables of the vocabulary that every budget needs; made once per process.

    words  number of 32-bit words of a mask
    """

    def __init__(self, tokenizer: Tokenizer, headers: HeaderTokens, vocab_size: int) -> None:
        self.headers = headers
        self.words = -(-vocab_size // 32)
        self.bytes_of = tokenizer.token_bytes
        single = ((id, tokenizer.token_bytes(id)) for id in range(tokenizer.size))
        self._continuations = {id: byte for id, byte in single if len(byte) == 1 and 0x80 <= byte[0] < 0xC0}

    def mask(self, ids: list[int]) -> memoryview:
        """A mask that allows only `ids`."""
        bits = bytearray(4 * self.words)
        for id in ids:
            bits[id // 8] |= 1 << id % 8
        return memoryview(bits).cast("i")

    def completions(self, pending: bytes) -> list[int]:
        """The one-byte tokens that may come next in an unfinished character."""
        return [id for id, byte in self._continuations.items() if _may_follow(pending, byte)]


class ThinkingBudget:
    """Implements `engine.request.Constraint`, with or without a grammar.

    limit    tokens allowed in the bodies of `analysis` messages
    grammar  of the whole answer; None: unconstrained
    answer   the grammar of an answer without reasoning, used after the limit; None: the header of `final` is
             forced, and the rest is unconstrained
    thinking whether the answer begins inside the body of an `analysis` message
    """

    def __init__(
        self,
        tables: ThinkingTables,
        limit: int,
        grammar: GrammarConstraint | None = None,
        answer: GrammarConstraint | None = None,
        *,
        thinking: bool = False,
    ) -> None:
        self._tables = tables
        self._left = limit
        self._current: Constraint | None = grammar
        self._answer = answer
        self._header: list[int] | None = None  # tokens since <|channel|>, until <|message|>
        self._begins_thinking = self._thinking = thinking
        self._unfinished = b""  # the first bytes of an incomplete character
        self._forced: deque[int] = deque()
        self._closed = False

    def mask(self) -> memoryview | None:
        """None if every token is allowed.  Raises GrammarFailed."""
        if self._thinking and self._left <= 0 and not self._forced:
            completions = self._tables.completions(self._unfinished) if self._unfinished else []
            if completions:
                return self._tables.mask(completions)
            self._close()
        if self._forced:
            return self._tables.mask([self._forced[0]])
        return self._current.mask() if self._current else None

    def ready(self, seconds: float | None = 0) -> bool:
        """Whether `mask` would return at once.  Waits for this at most `seconds`; None: without limit."""
        if self._forced or self._current is None or (self._thinking and self._left <= 0):
            return True
        return self._current.ready(seconds)

    def accept(self, token: int) -> None:
        """Raises GrammarFailed."""
        if self._forced:
            if token != self._forced.popleft():
                raise GrammarFailed("the chain of thought had to be closed here")
            return
        if self._current:
            self._current.accept(token)
        if not self._closed:
            self._track_channel(token)

    def copy(self) -> ThinkingBudget:
        """A budget in its initial state, for another answer."""
        grammar = self._current.copy() if isinstance(self._current, GrammarConstraint) else None
        answer = self._answer and self._answer.copy()
        return ThinkingBudget(self._tables, self._left, grammar, answer, thinking=self._begins_thinking)

    def _track_channel(self, token: int) -> None:
        """Keep track of the current channel, and count its tokens if it is analysis."""
        headers = self._tables.headers
        if token == headers.channel:
            self._header, self._thinking = [], False
        elif self._header is not None:
            if token == headers.message:
                name = b"".join(map(self._tables.bytes_of, self._header))
                self._header, self._thinking, self._unfinished = None, name.startswith(b"analysis"), b""
            else:
                self._header.append(token)
        elif token in (headers.start, headers.end, headers.return_, headers.call_):
            self._thinking = False
        elif self._thinking:
            self._left -= 1
            self._unfinished = _unfinished(self._unfinished + self._tables.bytes_of(token))

    def _close(self) -> None:
        headers = self._tables.headers
        self._forced.extend(headers.next_message)
        if self._answer is None:
            self._forced.extend(headers.final)
        self._current, self._thinking, self._closed = self._answer, False, True


def _unfinished(text: bytes) -> bytes:
    """The last bytes, if they are an incomplete UTF-8 character; otherwise nothing."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(text[-4:])
    return decoder.getstate()[0]


def _may_follow(pending: bytes, byte: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(pending + byte)
    except UnicodeDecodeError:
        return False
    return True
