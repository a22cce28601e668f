"""The nouns of the engine: what was asked (Request), what comes back (Token), and how it ends (Finish)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from engine.sampling import SamplingParams


class Finish(Enum):
    """Why a sequence ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


class Constraint(Protocol):
    """What may be sampled next.  Made in server/, carried out here; a request without one pays nothing."""

    def mask(self) -> memoryview | None:
        """Bit t says whether token t may come next: little-endian 32-bit words, ceil(V / 32) of them.  None: any."""

    def accept(self, token: int) -> None:
        """`token` was sampled."""


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
    """Stop tokens cannot be sampled before this many tokens of answer."""
    prompt_logprobs: int | None = None
    """How many alternatives to report for each token of the prompt; None for no prompt log-probabilities."""
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Logprob:
    """Of one position: the token's own log-probability, and the most likely alternatives, best first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Prefill:
    """What computing the prompt taught: once per request, on its first token.

    logprobs  one per prompt token if asked for; the first is None, since nothing comes before it
    """

    cached_tokens: int = 0
    logprobs: tuple[Logprob | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """One step of the answer; the only thing that comes back.  A stop token is reported too, with `finish` STOP."""

    request_id: str
    id: int
    finish: Finish | None = None
    logprob: Logprob | None = None
    prefill: Prefill | None = None
