"""Answers drawn at random under a constraint, and a strict parser for them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from language.constraints import AnswerConstraint, Constraints
from language.tokenizer import Tokenizer
from tests.vocabularies import real_tokenizer_file, small_tokenizer_file


@dataclass(frozen=True)
class Said:
    """One message.

    header  text between <|channel|> and <|message|>, with special tokens by name
    end     name of the token that ends it
    """

    header: str
    body: str
    end: str


@dataclass(frozen=True)
class Speaker:
    """Samples random tokens among those that the mask allows.

    seeds  of the random answers
    """

    tokenizer: Tokenizer
    constraints: Constraints
    vocab_size: int
    seeds: range

    def special(self, name: str) -> int:
        return self.tokenizer.special(f"<|{name}|>")

    def allowed(self, constraint: AnswerConstraint) -> np.ndarray:
        """The ids that may come next, ascending."""
        mask = constraint.mask()
        if mask is None:
            return np.arange(self.tokenizer.size)
        words = -(-self.vocab_size // 32)
        assert (len(mask), mask.itemsize) == (words, 4)
        return np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little"))

    def draw(
        self, constraint: AnswerConstraint, seed: int, *, patience: int = 60, limit: int = 4000
    ) -> list[int]:
        """An answer with its stop token: uniform for odd seeds, otherwise from random logits at temperature
        1.5.

        patience  number of tokens after which tokens that lead to the end are preferred
        """
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 4, self.vocab_size)
        weights = np.ones(self.vocab_size) if seed % 2 else np.exp(logits / 1.5)
        stops = {self.special("return"), self.special("call")}
        answer: list[int] = []
        while len(answer) < limit:
            ids = self.allowed(constraint)
            assert len(ids), f"nothing may follow {self.tokenizer.decode(answer)!r}"
            hurried = np.array(self._closers)[np.isin(self._closers, ids)] if len(answer) > patience else ()
            if len(hurried):
                token = int(hurried[0])
            else:
                total = weights[ids].cumsum()
                token = int(ids[total.searchsorted(rng.random() * total[-1], side="right")])
            constraint.accept(token)
            answer.append(token)
            if token in stops:
                return answer
        raise AssertionError(f"no end in sight: {self.tokenizer.decode(answer)[-300:]!r}")

    def read(self, answer: list[int]) -> list[Said]:
        """The messages of a whole answer, whose headers must equal the renderer's."""
        tokenizer, start = self.tokenizer, [self.special("start"), *self.tokenizer.encode("assistant")]
        messages: list[Said] = []
        at = 0
        while at < len(answer):
            if messages:
                assert answer[at : at + len(start)] == start
                at += len(start)
            assert answer[at] == self.special("channel")
            body = answer.index(self.special("message"), at) + 1
            header = tokenizer.decode(answer[at + 1 : body - 1])
            assert answer[at + 1 : body - 1] == tokenizer.encode_with_specials(header)
            said, at = self.read_body(answer, body, header)
            messages.append(said)
        return messages

    def read_body(self, answer: list[int], body: int, header: str) -> tuple[Said, int]:
        """The message whose body begins at `body`, and where it ends."""
        end = next(i for i in range(body, len(answer)) if answer[i] in self.tokenizer.specials.values())
        text = b"".join(map(self.tokenizer.token_bytes, answer[body:end])).decode()
        return Said(header, text, self.tokenizer.decode([answer[end]])), end + 1

    @cached_property
    def _closers(self) -> list[int]:
        letters = {self.tokenizer.token_bytes(id): id for id in range(self.tokenizer.size)}
        ends = [self.special("return"), self.special("call"), self.special("end")]
        return [*ends, letters[b'"'], letters[b"}"], letters[b"]"], letters[b":"]]


@cache
def speaker_of(kind: str) -> Speaker:
    """`small` or `real`: with rows beyond the tokenizer's ids, as the real embedding has them."""
    if kind == "real":
        tokenizer, vocab_size, seeds = Tokenizer(real_tokenizer_file()), 201_088, range(4)
    else:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = Tokenizer(small_tokenizer_file(Path(folder)))
        vocab_size, seeds = tokenizer.size + 45, range(32)
    return Speaker(tokenizer, Constraints(tokenizer, vocab_size), vocab_size, seeds)
