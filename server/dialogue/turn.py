"""What any API asks of the model: the prompt, the demands on the answer, and how tokens are sampled.

server/api/X       body of a request → Turn
dialogue/begin.py  Turn → prompt tokens and requests to the engine
dialogue/answer.py tokens → deltas
server/api/X       deltas → JSON
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from engine.request import Request, SamplingParams
from language.constraints import AnswerConstraint, AnswerSpec, Format
from language.harmony.messages import Conversation
from language.harmony.render import Renderer
from language.names import FunctionNames
from language.tokenizer import Tokenizer

INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Demands:
    """Demands on the answer.  Functions have the names that the prompt uses.

    tool_choice      none: no call; auto: a call or an answer; required: a call
    allowed_tools    functions that may be called; None: all
    strict_tools     functions whose arguments must follow their schema exactly
    loose_tools      functions whose arguments need not follow their schema, unless they must be called
    response_format  format of the visible answer
    strict_response  whether the answer must follow the schema of the response format exactly
    format_param     the field of the request that the response format comes from
    allowed_tokens   the tokens that the visible answer may consist of; None: all
    allows_none      whether the visible answer may have none of the allowed tokens
    bad_words        strings that must not occur in the visible answer
    thinking_tokens  maximum tokens of chain of thought; None: no limit
    """

    tool_choice: Literal["none", "auto", "required"] = "auto"
    allowed_tools: frozenset[str] | None = None
    strict_tools: frozenset[str] = frozenset()
    loose_tools: frozenset[str] = frozenset()
    response_format: Format = "text"
    strict_response: bool = False
    format_param: str = "response_format"
    allowed_tokens: tuple[int, ...] | None = None
    allows_none: bool = False
    bad_words: tuple[str, ...] = ()
    thinking_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt, and the answers that are wanted for it.

    prompt           a conversation; raw text, in which names of special tokens are tokens; or token ids
    max_tokens       of an answer; None: as many as the context allows
    n                number of answers
    sampling         for the first answer; with a seed, each further answer has a seed derived from it
    max_prompt       maximum tokens of the prompt; None: the context's
    stop             strings that end the visible answer
    keep_stop        the stop string that ended the answer is a part of it
    stop_tokens      further tokens that end an answer
    ignore_eos       the model's own end tokens do not end the answer, unless a grammar makes it complete
    cache_salt       the prompt shares the prefix cache only with prompts that have the same salt
    prompt_logprobs  alternatives to report for each token of the prompt; None for no report
    names            mapping between the client's names of functions and those in the prompt
    param            the field of the request that contains the prompt, for errors
    """

    prompt: Conversation | str | Sequence[int]
    max_tokens: int | None = None
    max_prompt: int | None = None
    n: int = 1
    demands: Demands = field(default_factory=Demands)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    stop_tokens: frozenset[int] = frozenset()
    min_tokens: int = 0
    ignore_eos: bool = False
    prompt_logprobs: int | None = None
    cache_salt: str = ""
    names: FunctionNames = field(default_factory=lambda: FunctionNames(()))
    param: str = "messages"

    @property
    def prefilled_channel(self) -> str | None:
        """The channel that the prompt has already opened, if it has."""
        return self.prompt.prefilled_channel if isinstance(self.prompt, Conversation) else None

    @property
    def spec(self) -> AnswerSpec | None:
        """What the grammar of the answer is made from; None for raw text whose answer is unconstrained."""
        demands = self.demands
        spec = AnswerSpec(
            strict_tools=demands.strict_tools,
            loose_tools=demands.loose_tools,
            tool_choice=demands.tool_choice,
            allowed_tools=demands.allowed_tools,
            response_format=demands.response_format,
            strict_response=demands.strict_response,
            format_param=demands.format_param,
            allowed_tokens=demands.allowed_tokens,
            allows_none=demands.allows_none,
            bad_words=demands.bad_words,
            thinking_tokens=demands.thinking_tokens,
        )
        if not isinstance(self.prompt, Conversation):
            return replace(spec, raw=True) if spec.constrains else None
        return replace(
            spec,
            tools=tuple(self.prompt.tools),
            prefilled=self.prompt.prefilled,
            in_analysis=self.prompt.prefilled_channel == "analysis",
            reasoning=self.prompt.effort != "none" or self.prompt.prefilled_channel == "analysis",
        )

    def begun(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The tokens of the visible answer that the prompt has."""
        if not isinstance(self.prompt, Conversation):
            return ()
        return tuple(tokenizer.encode(self.prompt.prefill.content))

    def max_answer(self, prompt_tokens: int, max_context: int) -> int:
        """Maximum tokens of an answer; at least one, so that the engine reports a prompt that is too long."""
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
        group: str = "",
    ) -> list[Request]:
        """One request to the engine for each answer.

        prompt      token ids
        constraint  each answer gets a copy of it
        """
        raw = not isinstance(self.prompt, Conversation)
        extremes = (min(prompt), max(prompt)) if prompt else None  # computed once for all answers
        ends = renderer.stop_tokens | ({renderer.end_of_text} if raw else frozenset())
        goes_on = self.ignore_eos and not ((spec := self.spec) and spec.constrains)
        return [
            Request(
                id=f"{id}-{i}",
                prompt=prompt,
                max_tokens=self.max_answer(len(prompt), max_context),
                stop_tokens=self.stop_tokens if goes_on else ends | self.stop_tokens,
                sampling=self._sampling(i),
                constraint=constraint and constraint.copy(),
                min_tokens=self.min_tokens,
                prompt_logprobs=self.prompt_logprobs,
                timeout_seconds=timeout_seconds,
                extremes=extremes,
                caller=caller,
                group=group,
                cache_salt=self.cache_salt.encode(),
            )
            for i in range(self.n)
        ]

    def _sampling(self, i: int) -> SamplingParams:
        seed = self.sampling.seed
        if seed is None or i == 0:
            return self.sampling
        return replace(self.sampling, seed=(seed + i + INT64) % (2 * INT64) - INT64)
