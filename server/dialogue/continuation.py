"""Turns the tokens of a completion of raw text into text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from engine.request import Finish, Logprob, Prefill, Token
from language.stops import StopStrings
from language.tokenizer import Detokenizer, Tokenizer
from server.dialogue.logprobs import HeldUntilShown
from server.dialogue.turn import Turn

ECHOED_TOKENS = 500
"""Tokens of an echoed prompt that are decoded at once; other requests are served in between."""


class TextReader:
    """One completion: tokens → text, up to a stop string.

    prompt         token ids
    echo           whether the text of the prompt comes first
    answers        False: only the prompt is wanted, and the token that is sampled after it is not shown
    token_ids      all sampled tokens
    cached_tokens  prompt tokens that were in the prefix cache
    prompt_logprobs  log-probabilities of the prompt's tokens, if they were requested
    finish         OpenAI's finish reason; None until the completion has ended
    """

    recoveries = 0  # raw text has no format

    def __init__(
        self, turn: Turn, prompt: list[int], tokenizer: Tokenizer, *, echo: bool = False, answers: bool = True
    ):
        self.prompt = prompt
        self._echoes, self._answers = echo, answers
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopStrings(turn.stop, keep=turn.keep_stop)
        self._length = self._shown_length = 0
        self._logprobs: HeldUntilShown[tuple[int, int, Logprob | None]] = HeldUntilShown()
        self._sum_of_logprobs = 0.0
        self.token_ids: list[int] = []
        self.cached_tokens = 0
        self.prompt_logprobs: Sequence[Logprob | None] | None = None
        self._alternatives = turn.sampling.logprobs
        self.finish: str | None = None

    def add(self, token: Token, news: list[str]) -> None:
        """Append the text of `token` to `news`.  Sets `finish` if the completion ends."""
        self.token_ids.append(token.id)
        if token.prefill is not None:
            self.cached_tokens = token.prefill.cached_tokens
            self.prompt_logprobs = token.prefill.logprobs
        if self._answers:
            news.append(self._read(token))
        if self._stops.stopped:
            self.finish = "stop"
        elif token.finish is not None:
            self.finish = token.finish.value if self._answers else Finish.LENGTH.value

    def echo(self, first: Token) -> Iterator[str]:
        """The prompt's text, in pieces, if the answer should begin with it; otherwise nothing.

        To be used up before the first token is added.  It also sets the log-probabilities of the prompt, if
        they were requested.
        """
        if not self._echoes or self.token_ids:
            return
        text = Detokenizer(self._tokenizer)
        prefill = first.prefill or Prefill()
        logprobs = prefill.logprobs or [None] * len(self.prompt)
        for start in range(0, len(self.prompt), ECHOED_TOKENS):
            pieces = []
            for place in range(start, min(start + ECHOED_TOKENS, len(self.prompt))):
                logprob = logprobs[place]
                if logprob is not None:
                    logprob = replace(logprob, top=logprob.top[: self._alternatives or 0])
                self._logprobs.add(self._length, (self._length, self.prompt[place], logprob))
                pieces.append(text.feed(self.prompt[place]))
                self._length += len(pieces[-1])
            if start + ECHOED_TOKENS >= len(self.prompt):
                pieces.append(text.flush())
                self._length += len(pieces[-1])
            self._shown_length = self._length
            yield "".join(pieces)

    @property
    def mean_logprob(self) -> float:
        return self._sum_of_logprobs / max(len(self.token_ids), 1)

    def new_logprobs(self) -> Sequence[tuple[int, int, Logprob | None]]:
        """Log-probabilities of the tokens since the last call.

        Each sampled token has an entry, also the one that ended the text, because programs that score prompts
        need it.

        returns  (offset in the text, token id, log-probability) of each; None for the first prompt token
        """
        complete = self.finish is not None and not self._stops.stopped
        return self._logprobs.take(math.inf if complete else self._shown_length)

    def _read(self, token: Token) -> str:
        """The text of one token; a stop token has none."""
        if token.logprob is not None:
            self._sum_of_logprobs += token.logprob.logprob
            self._logprobs.add(self._length, (self._length, token.id, token.logprob))
        text = "" if token.finish is Finish.STOP else self._detokenizer.feed(token.id)
        if token.finish is not None:
            text += self._detokenizer.flush()
        self._length += len(text)
        text = self._stops.feed(text)
        if token.finish is not None and not self._stops.stopped:
            text += self._stops.flush()
        self._shown_length += len(text)
        return text
