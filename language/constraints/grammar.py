"""Compiled grammars: llguidance behind the engine's `Constraint`.

The only file that imports llguidance, which has its own copy of the vocabulary and computes without the GIL.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from language.constraints.sandbox import CompilerSandbox
from language.constraints.schemas import SchemaError
from language.tokenizer import Tokenizer

LIMITS: dict[str, Any] = {
    "max_items_in_row": 2_500,  # 500 optional properties need 2,007
    "initial_lexer_fuel": 1_000_000,  # about 20 ms
    "step_lexer_fuel": 100_000,  # of one mask: about 10 ms
    "step_max_items": 200_000,  # of one mask: about 10 ms
    "max_lexer_states": 50_000,  # 1-2 kB each
    "max_grammar_size": 500_000,
    "verbose_errors": False,  # they quote the grammar, and with it the request
}


KEPT_GRAMMARS = 16
"""Compiled grammars that are cached, because an agent sends the same tools in every turn: for 12 tools,
compiling takes 24 ms of processor time, and a copy 0.3 ms (bench/LOG.md).
"""

KEPT_VERDICTS = 4096
"""Maximum schemas and grammars that are remembered as compilable."""

MASK_THREADS = min(4, os.cpu_count() or 1)

SLOW_SECONDS = 0.005
"""CPU time of the thread.  If one mask of a grammar took longer, separate threads compute this grammar's
masks, so that quick ones do not wait behind them.
"""

SHARED_TOKENS, SHARED_MASKS = 32, 64
"""Masks after at most this many tokens are cached, and at most this many masks (25 kB each), because several
answers to one prompt often begin with the same tokens.
"""

_threads = ThreadPoolExecutor(MASK_THREADS, "gptoss-masks")
_slow_threads = ThreadPoolExecutor(max(1, MASK_THREADS // 2), "gptoss-slow-masks")


class GrammarFailed(Exception):
    """The grammar exceeded a limit, or was given a token that it does not allow."""


class NotCheckedYet(Exception):
    """A schema is new, so it must be checked in the sandbox first, which may take a second or more."""


class _Vocabulary:
    """Our tokenizer with the interface that llguidance expects."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.eos_token_id = tokenizer.special("<|return|>")
        self.bos_token_id = None
        self.tokens = [tokenizer.token_bytes(id) for id in range(vocab_size)]
        self.special_token_ids = list(tokenizer.specials.values())
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


class Compiler:
    """Compiles grammars over one vocabulary.  Built once per process (1.3 s and 40 MB for 201,088 tokens).

    vocab_size  rows of the model's logits; ids without meaning, and special tokens that the grammar does not
                name, are never allowed
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        if vocab_size < tokenizer.size:
            raise ValueError(f"{tokenizer.size} tokens cannot fit in {vocab_size} rows of logits")
        self._tokens = LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer, vocab_size)), n_vocab=vocab_size)
        self._mask_bytes = -(-vocab_size // 32) * 4
        self._limits = LLParserLimits(**LIMITS)
        self._sandbox = CompilerSandbox(LIMITS)
        self._lock = threading.Lock()  # protects both caches
        self._compiled: OrderedDict[bytes, GrammarConstraint] = OrderedDict()
        self._fine: OrderedDict[bytes, None] = OrderedDict()

    def compile(self, lark: str) -> GrammarConstraint:
        """Raises GrammarFailed if the grammar is too large."""
        digest = _digest(lark)
        with self._lock:
            if (known := self._compiled.get(digest)) is not None:
                self._compiled.move_to_end(digest)
                return known.copy()
        matcher = LLMatcher(self._tokens, lark, limits=self._limits, log_level=0)
        if matcher.is_error():
            raise GrammarFailed(_reason(matcher.get_error()))
        constraint = GrammarConstraint(matcher, self._mask_bytes)
        with self._lock:
            self._compiled[digest] = constraint
            if len(self._compiled) > KEPT_GRAMMARS:
                self._compiled.popitem(last=False)
            return constraint.copy()

    def try_body(self, rule: str, param: str, check_new: bool) -> None:
        """Raises SchemaError, with a reason, if this schema or grammar cannot be compiled.

        rule       the right side of a Lark rule
        check_new  False: raise NotCheckedYet if this has not been checked before
        """
        lark = f"start: {rule}\n"
        if not check_new and not self._sandbox.has_checked(lark):
            raise NotCheckedYet
        digest = _digest(lark)
        with self._lock:
            if digest in self._fine:
                self._fine.move_to_end(digest)
                return
        reason = self._sandbox.why_not(lark)
        if not reason:
            matcher = LLMatcher(self._tokens, lark, limits=self._limits, log_level=0)
            matcher.compute_bitmask()
            reason = matcher.get_error()
        if reason:
            kind = "schema" if rule.startswith("%json") else "grammar"
            raise SchemaError(f"the {kind} cannot be followed: {_reason(reason)}", param)
        with self._lock:
            self._fine[digest] = None
            if len(self._fine) > KEPT_VERDICTS:
                self._fine.popitem(last=False)


def _digest(lark: str) -> bytes:
    return hashlib.sha256(lark.encode()).digest()


@dataclass(slots=True)
class _Shared:
    """State that an answer and its copies share.

    masks  tokens accepted so far → the next mask
    slow   whether one of the masks took longer than SLOW_SECONDS
    """

    masks: dict[tuple[int, ...], bytes] = field(default_factory=dict)
    slow: bool = False


class GrammarConstraint:
    """Implements `engine.request.Constraint`.

    For one answer; for several, `copy` it before the first token.  May be used by one thread at a time, and
    not on the event loop.  `accept` takes 2 to 50 µs, and starts another thread that computes the next mask
    without the GIL: so the masks of a step are computed in parallel, at the same time as the step.  `mask`
    waits for it: 20 to 150 µs for 201,088 tokens, 1 to 3 ms when a grammar first reaches a string; a hostile
    grammar takes about 40 ms until it fails.  `ready` tells whether it would wait.  Copies share the masks of
    common beginnings.
    """

    def __init__(self, matcher: LLMatcher, mask_bytes: int, shared: _Shared | None = None):
        """shared  the state to share with copies; None: new"""
        self._matcher = matcher
        self._mask_bytes = mask_bytes
        self._shared = shared or _Shared()
        self._accepted: tuple[int, ...] | None = ()  # None: too many to look up
        self._coming: Future[bytes] | None = None

    def mask(self) -> memoryview:
        """A new array of int32 words, little-endian.  Raises GrammarFailed."""
        if self._coming is None:
            self._begin()
        assert self._coming is not None
        return memoryview(bytearray(self._coming.result())).cast("i")

    def ready(self, seconds: float | None = 0) -> bool:
        """Whether `mask` would return at once.  Waits for this at most `seconds`; None: without limit."""
        if self._coming is None:
            self._begin()
        assert self._coming is not None
        if not self._coming.done() and seconds != 0:
            wait([self._coming], seconds)
        return self._coming.done()

    def accept(self, token: int) -> None:
        """Raises GrammarFailed, also if `token` was not allowed."""
        self._settle()
        if not self._matcher.consume_token(token):
            raise GrammarFailed(_reason(self._matcher.get_error()))
        if self._accepted is not None:
            self._accepted = (*self._accepted, token) if len(self._accepted) < SHARED_TOKENS else None
        if not self._matcher.is_stopped():
            self._begin()

    def continue_from(self, tokens: Sequence[int]) -> bool:
        """Accept the first tokens of the answer.  False if they are not allowed: then it cannot be used."""
        self._settle()
        self._shared = (
            _Shared()
        )  # masks are cached by the tokens accepted from here on, not from the beginning
        return bool(self._matcher.consume_tokens(list(tokens)))

    def copy(self) -> GrammarConstraint:
        """A copy in the same state, for another answer."""
        self._settle()
        copied = GrammarConstraint(self._matcher.deep_copy(), self._mask_bytes, self._shared)
        copied._accepted = self._accepted
        return copied

    def _begin(self) -> None:
        """Start computing the next mask."""
        known = None if self._accepted is None else self._shared.masks.get(self._accepted)
        if known is not None:
            self._coming = Future()
            self._coming.set_result(known)
        else:
            threads = _slow_threads if self._shared.slow else _threads
            self._coming = threads.submit(self._compute, self._accepted)

    def _settle(self) -> None:
        """Wait until no mask is being computed, because two threads must not use a matcher at once."""
        if self._coming is not None:
            wait([self._coming])
            self._coming = None

    def _compute(self, accepted: tuple[int, ...] | None) -> bytes:
        began = time.thread_time()
        bits = self._matcher.compute_bitmask()[: self._mask_bytes]
        if time.thread_time() - began > SLOW_SECONDS:
            self._shared.slow = True
        if self._matcher.is_error():
            raise GrammarFailed(_reason(self._matcher.get_error()))
        if accepted is not None and len(self._shared.masks) < SHARED_MASKS:
            self._shared.masks[accepted] = bits
        return bits


def _reason(error: str) -> str:
    """llguidance's error on one line, without positions in a grammar that the client does not know."""
    lines = [line.strip() for line in error.replace("<non-verbose/>", "").strip().splitlines()]
    reason = lines[0] if lines else "no reason given"
    details = [
        line.removeprefix("error: ") for line in lines if line.startswith("error: ")
    ]  # about a pattern
    return " ".join([reason.split("failed to compile JSON schema: ", 1)[-1], *details])[:300]
