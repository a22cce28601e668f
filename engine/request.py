"""The nouns of the engine: what was asked (Request), its progress (Sequence), the work of a step (Chunk,
Plan), what comes back (Token, Failure), and how it ends (Finish).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from engine.edit_records import Records
from engine.errors import EngineError
from engine.pages import PageTable
from engine.sampling import Logprob as Logprob
from engine.sampling import Sampled as Sampled
from engine.sampling import SamplingParams


class Finish(Enum):
    """Why a sequence ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


class Constraint(Protocol):
    """What may be sampled next.  Made in server/, carried out here; a request without one pays nothing."""

    def mask(self) -> memoryview | None:
        """Bit t says whether token t may come next, in little-endian 32-bit words.  None: any may.

        Tokens past the last word may not.
        """

    def accept(self, token: int) -> None:
        """`token` was sampled.  Stop tokens are announced too."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked; never changes."""

    id: str
    prompt: list[int]
    max_tokens: int
    stop_tokens: frozenset[int] = frozenset()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    constraint: Constraint | None = None
    min_tokens: int = 0
    """Stop tokens cannot be sampled before this many tokens of answer; a constraint takes precedence."""
    prompt_logprobs: int | None = None
    """How many alternatives to report for each token of the prompt; None for no prompt log-probabilities."""
    timeout_seconds: float | None = None

    @property
    def edits(self) -> bool:
        """Whether anything changes the logits before a token is chosen."""
        params = self.sampling
        return bool(self.constraint is not None or self.min_tokens or params.logit_bias or params.penalises)


@dataclass(eq=False, slots=True)
class Sequence:
    """The progress of one request: tokens[:computed] have keys and values in pages.

    tokens           the prompt, and the answer so far
    limit            how long `tokens` may become
    seed             the request's own, or one drawn for it
    deadline         when it must be done, by the engine's clock
    ended            whether it has finished, failed or been cancelled
    pages            what it holds; nothing while it waits
    hashes           of its complete pages, for the prefix cache
    cached_tokens    of the prompt, that the prefix cache had; None before it first ran
    records          of the tokens whose logits it changes; None if there are none, or before the first token
    prompt_logprobs  of the prompt tokens known so far, the first one's None included; empty if nobody asked
    edits            whether anything changes its logits before a token is chosen
    reports          whether log-probabilities of its tokens are wanted
    plain            whether its tokens are all that the host is asked and told: no constraint, no reports
    """

    request: Request
    tokens: list[int]
    limit: int
    seed: int
    deadline: float = float("inf")
    computed: int = 0
    ended: bool = False
    pages: PageTable = field(default_factory=PageTable)
    hashes: list[bytes] = field(default_factory=list)
    cached_tokens: int | None = None
    records: Records | None = None
    prompt_logprobs: list[Logprob | None] = field(default_factory=list)
    edits: bool = field(init=False)
    reports: bool = field(init=False)
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        self.edits = self.request.edits
        self.reports = self.request.sampling.logprobs is not None
        self.plain = self.request.constraint is None and not self.reports

    @property
    def pending(self) -> int:
        """Tokens not yet computed."""
        return len(self.tokens) - self.computed

    @property
    def answered(self) -> int:
        """Tokens of answer so far."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether log-probabilities of the prompt are still to be computed."""
        return bool(self.prompt_logprobs) and len(self.prompt_logprobs) < len(self.request.prompt)


@dataclass(frozen=True, slots=True)
class Chunk:
    """`length` tokens of one sequence, to be computed in the next step.

    A decode is a chunk of length one.
    """

    sequence: Sequence
    length: int

    @property
    def samples(self) -> bool:
        """Whether the step reaches the end of what is known, so that a new token can be sampled."""
        sequence = self.sequence
        return sequence.computed + self.length == len(sequence.tokens)

    @property
    def scored(self) -> range:
        """The positions that predict a token of the prompt whose log-probability is still wanted."""
        sequence = self.sequence
        if not sequence.wants_prompt_logprobs:
            return range(0)
        first = len(sequence.prompt_logprobs) - 1  # the row before the first token still wanted
        last = min(sequence.computed + self.length, len(sequence.request.prompt) - 1)
        return range(max(first, sequence.computed), last)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: which tokens of which sequences to compute, decodes first."""

    chunks: list[Chunk]

    @property
    def num_tokens(self) -> int:
        return sum(chunk.length for chunk in self.chunks)

    @property
    def launchable(self) -> bool:
        """Whether each chunk ends with choosing a token, and nothing is reported of it but the token."""
        return all(
            chunk.samples and not chunk.sequence.reports and not chunk.sequence.wants_prompt_logprobs
            for chunk in self.chunks
        )


@dataclass(frozen=True, slots=True)
class Prefill:
    """What computing the prompt taught: once per request, on its first token.

    logprobs  one per prompt token if asked for; the first is None, since nothing comes before it
    """

    cached_tokens: int = 0
    logprobs: tuple[Logprob | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """One step of the answer.  A stop token is reported too, with `finish` STOP."""

    request_id: str
    id: int
    finish: Finish | None = None
    logprob: Logprob | None = None
    prefill: Prefill | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The request ended without an answer, or in the middle of it."""

    request_id: str
    error: EngineError
