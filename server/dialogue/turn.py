"""What any API asks of the model: what it is told, what its answer must be, and how tokens are chosen.

server/api/X       a body → Turn
dialogue/begin.py  Turn → tokens of a prompt and requests to the engine
dialogue/answer.py tokens → deltas
server/api/X       deltas → JSON
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from engine.request import Request, SamplingParams
from language.constraints import AnswerConstraint, AnswerSpec
from language.harmony.messages import Conversation, ResponseFormat
from language.harmony.render import Renderer
from language.names import FunctionNames

INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Demands:
    """What the answer must be.  Names of functions are those that the prompt uses.

    tool_choice      none: no call; auto: a call or an answer; required: a call
    allowed_tools    functions that may be called; None: all
    strict_tools     functions whose arguments must follow every word of their schema
    response_format  what the visible answer holds
    strict_response  whether every word of the response format's schema must be followed
    thinking_tokens  at most so many tokens of chain of thought; None for no limit
    """

    tool_choice: Literal["none", "auto", "required"] = "auto"
    allowed_tools: frozenset[str] | None = None
    strict_tools: frozenset[str] = frozenset()
    response_format: Literal["text", "json_object"] | ResponseFormat = "text"
    strict_response: bool = False
    thinking_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt, and what is wanted of the answers to it.

    prompt           a conversation; raw text, in which special tokens are live; or token ids
    max_tokens       of an answer; None: as many as the context leaves
    n                answers
    sampling         of the first answer; with a seed, each further one has a seed of its own, made from it
    stop             strings that end the visible answer
    stop_tokens      that end an answer, beside those that the model ends with
    ignore_eos       the tokens that the model ends with do not end the answer
    prompt_logprobs  alternatives to report for each token of the prompt; None for no report
    names            of functions, as the client knows them
    param            the field of the request that the prompt comes from, for errors
    """

    prompt: Conversation | str | Sequence[int]
    max_tokens: int | None = None
    n: int = 1
    demands: Demands = field(default_factory=Demands)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    min_tokens: int = 0
    ignore_eos: bool = False
    prompt_logprobs: int | None = None
    names: FunctionNames = field(default_factory=lambda: FunctionNames(()))
    param: str = "messages"

    @property
    def prefilled_channel(self) -> str | None:
        """The channel that the prompt has already opened."""
        return "final" if isinstance(self.prompt, Conversation) and self.prompt.prefilled else None

    @property
    def spec(self) -> AnswerSpec | None:
        """What the answer's grammar is made of; None for raw text, whose answer is free."""
        if not isinstance(self.prompt, Conversation):
            return None
        demands = self.demands
        return AnswerSpec(
            tools=tuple(self.prompt.tools),
            strict_tools=demands.strict_tools,
            tool_choice=demands.tool_choice,
            allowed_tools=demands.allowed_tools,
            response_format=demands.response_format,
            strict_response=demands.strict_response,
            prefilled=self.prompt.prefilled,
            reasoning=self.prompt.effort != "none",
            thinking_tokens=demands.thinking_tokens,
        )

    def max_answer(self, prompt_tokens: int, max_context: int) -> int:
        """Tokens that an answer may have: at least one, so that a prompt that is too long is told as such."""
        room = max(max_context - prompt_tokens, 1)
        return min(self.max_tokens or room, room)

    def requests(
        self,
        id: str,
        prompt: list[int],
        constraint: AnswerConstraint | None,
        renderer: Renderer,
        max_context: int,
        timeout_seconds: float | None = None,
        caller: str = "",
    ) -> list[Request]:
        """One request to the engine for each answer.

        prompt      tokens
        constraint  of each answer, which gets a copy of its own
        """
        raw = not isinstance(self.prompt, Conversation)
        extremes = (min(prompt), max(prompt)) if prompt else None  # once for all answers
        ends = renderer.stop_tokens | ({renderer.end_of_text} if raw else frozenset())
        return [
            Request(
                id=f"{id}-{i}",
                prompt=prompt,
                max_tokens=self.max_answer(len(prompt), max_context),
                stop_tokens=self.stop_tokens if self.ignore_eos else ends | self.stop_tokens,
                sampling=self._sampling(i),
                constraint=constraint and constraint.copy(),
                min_tokens=self.min_tokens,
                prompt_logprobs=self.prompt_logprobs,
                timeout_seconds=timeout_seconds,
                extremes=extremes,
                caller=caller,
            )
            for i in range(self.n)
        ]

    def _sampling(self, i: int) -> SamplingParams:
        seed = self.sampling.seed
        if seed is None or i == 0:
            return self.sampling
        return replace(self.sampling, seed=(seed + i + INT64) % (2 * INT64) - INT64)
