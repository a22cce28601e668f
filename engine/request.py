"""The engine's data types.

input      Request, with SamplingParams and Constraint
state      Sequence
one step   Chunk, Plan, Sampled
output     Token, Logprob, Prefill, Finish, Failure
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from engine.disk.cache import Fetch
from engine.edit_records import EditRecords
from engine.errors import EngineError
from engine.pages import PageTable


class Finish(Enum):
    """OpenAI's finish reasons."""

    STOP = "stop"
    LENGTH = "length"


class Constraint(Protocol):
    """Which tokens may be sampled next.  Implemented in language/constraints."""

    def mask(self) -> memoryview | None:
        """Bit t: whether token t is allowed next, in little-endian 32-bit words.  None: every token is.

        Tokens past the last word are not allowed.
        """

    def ready(self, seconds: float | None = 0) -> bool:
        """Whether `mask` would return at once.  Waits at most `seconds` for that; None: without limit."""

    def accept(self, token: int) -> None:
        """`token` was sampled.  Called for stop tokens too."""


GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy: dividing by them would overflow and change nothing else."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen: penalties and biases come first, then temperature, then the filters.

    temperature         0 is greedy; 1 leaves the model's distribution as it is
    top_p               nucleus: the smallest set of tokens whose probabilities reach top_p, of those that
                        top_k keeps (Holtzman et al. 2020)
    top_k               keep the k most likely; 0 keeps all
    min_p               keep tokens at least min_p times as likely as the most likely one
    repetition_penalty  divides positive, multiplies negative logits of tokens in prompt or answer
                        (Keskar et al. 2019)
    presence_penalty    subtracted once from the logit of each token already in the answer
    frequency_penalty   subtracted once for each time the token is in the answer
    logit_bias          token id → added to its logit
    seed                same seed, same prompt: same answer, whatever else is running; None draws one
    logprobs            None: report none; k: the chosen token's log-probability and the k most likely, of the
                        model's own distribution (temperature 1, before penalties and filters)
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def filters(self) -> bool:
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    @property
    def penalises(self) -> bool:
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the engine; it never changes."""

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
    extremes: tuple[int, int] | None = None
    """The smallest and the largest id of the prompt, if known: several answers may have one prompt."""
    caller: str = ""
    """Id of the caller: places in the queue are shared fairly between callers."""
    group: str = ""
    """Identifies the client's request, whose answers may take only a share of the places; "" for none."""
    cache_salt: bytes = b""
    """The prefix cache is shared only by requests with the same one."""

    @property
    def edits_logits(self) -> bool:
        """Whether anything changes the logits before a token is chosen."""
        params = self.sampling
        return bool(self.constraint is not None or self.min_tokens or params.logit_bias or params.penalises)


@dataclass(frozen=True, slots=True)
class Logprob:
    """At one position: the log-probability of the token, and the most likely alternatives, best first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False, slots=True)
class Sequence:
    """The progress of one request: tokens[:computed] have keys and values in pages.

    tokens           the prompt, and the answer so far
    limit            maximum length of `tokens`
    seed             the request's own, or a random one
    deadline         time by which it must finish, by the engine's clock
    round            of fair queueing in which it is served
    ended            whether it has finished, failed or been cancelled
    held             its constraint was not ready in time for the last step, so it got no token
    pages            the pages it holds; none while it waits
    hashes           hashes of its complete pages, for the prefix cache
    cached_tokens    prompt tokens that were in the prefix cache; None before it first ran
    fetch            pages that are read from disk before it can run; it holds them while it waits
    used_ns          when it first ran, Unix time in nanoseconds: the time of last use of its pages
    began            when it first ran, by the engine's clock
    records          the tokens whose logits it changes; None if there are none, and before the first token
    prompt_logprobs  of the prompt tokens so far, including None for the first; empty if not requested
    edits_logits     whether anything changes its logits before a token is chosen
    wants_logprobs   whether log-probabilities of its tokens are requested
    tokens_only      whether the host needs only its token ids: no constraint, no log-probabilities
    """

    request: Request
    tokens: list[int]
    limit: int
    seed: int
    deadline: float = float("inf")
    round: int = 0
    computed: int = 0
    ended: bool = False
    held: bool = False
    pages: PageTable = field(default_factory=PageTable)
    hashes: list[bytes] = field(default_factory=list)
    cached_tokens: int | None = None
    fetch: Fetch | None = None
    used_ns: int = 0
    began: float = 0.0
    records: EditRecords | None = None
    prompt_logprobs: list[Logprob | None] = field(default_factory=list)
    edits_logits: bool = field(init=False)
    wants_logprobs: bool = field(init=False)
    tokens_only: bool = field(init=False)

    def __post_init__(self) -> None:
        self.edits_logits = self.request.edits_logits
        self.wants_logprobs = self.request.sampling.logprobs is not None
        self.tokens_only = self.request.constraint is None and not self.wants_logprobs

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
        """Whether the step computes the last known token, so that a new one can be sampled."""
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
        """Whether each chunk samples a token, and no log-probabilities are wanted."""
        return all(
            chunk.samples and not chunk.sequence.wants_logprobs and not chunk.sequence.wants_prompt_logprobs
            for chunk in self.chunks
        )


@dataclass(slots=True)
class Sampled:
    """What one step sampled.

    tokens    one for each chunk that samples, in the plan's order; undefined if there is an error, or the
              sequence is held
    logprobs  request id → the log-probability of that token, if it was requested
    prompt    request id → the log-probabilities of the tokens after the chunk's scored positions
    errors    request id → why the sequence cannot continue
    """

    tokens: list[int]
    logprobs: dict[str, Logprob] = field(default_factory=dict)
    prompt: dict[str, list[Logprob]] = field(default_factory=dict)
    errors: dict[str, EngineError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prefill:
    """What is known once the prompt is computed; comes with the first token of an answer.

    cached_tokens    prompt tokens that were in the prefix cache
    logprobs         one for each prompt token, if requested; None for the first, which has nothing before it
    computed_tokens  the other prompt tokens, computed in `seconds`, without the wait in the queue
    """

    cached_tokens: int = 0
    logprobs: tuple[Logprob | None, ...] | None = None
    computed_tokens: int = 0
    seconds: float = 0.0


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
    """The request ended with an error, before or during its answer."""

    request_id: str
    error: EngineError
