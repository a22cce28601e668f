"""The request fields that several endpoints share: how tokens are sampled, and when an answer ends.

Every field of the openai SDK's request types is accepted.  The fields here, in chat.py and in completions.py
are honoured or refused by name; the others (user, metadata, store, …) change nothing.  Types are strict:
`true` is not 1, and "1" is not 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from engine.request import SamplingParams
from server.dialogue.turn import INT64
from server.errors import bad_request

MAX_CHOICES = 128
MAX_BIASES = 1024


class Body(BaseModel):
    """The body of a request, or an object in it."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


Item = TypeVar("Item")

Many = Annotated[list[Item], Field(fail_fast=True)]
"""A list whose validation stops at the first wrong element."""


def _unchanged(given: Any) -> Any:
    return given


ManyObjects = Annotated[list[Annotated[Item, BeforeValidator(_unchanged)]], Field(fail_fast=True)]
"""The same, of objects.  Calling the Python function for each element lets other threads run: pydantic alone
would hold the GIL for the whole list, which is 0.3 s for 50,000 parts.
"""


def _one_or_more(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


StopString = Annotated[str, Field(min_length=1, max_length=1024)]
StopStrings = Annotated[
    Many[StopString],
    Field(max_length=4),
    BeforeValidator(_one_or_more, json_schema_input_type=str | list[str]),
]


def _pairs_as_object(given: Any) -> Any:
    """llama.cpp's form, `[[17, -1.5], [18, false]]`, as OpenAI's; false: never."""
    if not isinstance(given, list):
        return given
    biases = {}
    for pair in given[: MAX_BIASES + 1]:
        if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int):
            raise ValueError("must be an object, or a list of pairs of a token id and a number")
        biases[str(pair[0])] = -100.0 if pair[1] is False else pair[1]
    return biases


def _at_most(limit: int) -> Callable[[Any], Any]:
    """Checks the number of entries of an object before any of them is validated."""

    def counted(given: Any) -> Any:
        if isinstance(given, dict) and len(given) > limit:
            raise ValueError(f"at most {limit} entries")
        return given

    return counted


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Bias = Annotated[float, Field(ge=-100, le=100)]


LogitBias = Annotated[
    dict[str, Bias],
    BeforeValidator(_at_most(MAX_BIASES)),
    BeforeValidator(_pairs_as_object, json_schema_input_type=dict[str, float] | list[list[float | bool]]),
]


class StreamOptions(Body):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What the response contains beside the text of the answer.

    running_usage    usage on every chunk, not only at the end
    prompt_logprobs  log-probabilities of the prompt's tokens
    ids_as_tokens    tokens in log-probabilities are named by their ids
    """

    logprobs: bool = False
    token_ids: bool = False
    usage: bool = False
    running_usage: bool = False
    prompt_logprobs: bool = False
    ids_as_tokens: bool = False

    @property
    def text_only(self) -> bool:
        """Whether chunks contain only text: then tokens that arrived together may share one chunk."""
        return not (self.logprobs or self.token_ids or self.running_usage)


class SamplingFields(Body):
    """How the tokens of an answer are sampled, and when it ends.  null is the same as absent."""

    model: str | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=INT64, description="the k most likely; 0 or -1: all")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=10)  # a logit over less may be infinite
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: LogitBias | None = None
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    stop: StopStrings | None = None
    stop_token_ids: Many[TokenId] | None = Field(None, max_length=1024)
    min_tokens: int | None = Field(None, ge=0, lt=2**31)
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None

    def sampling(self, logprobs: int | None, known: Callable[[int], bool]) -> SamplingParams:
        """logprobs  alternatives to report for each token; None for no report"""
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=_biases(self.logit_bias or {}, known),
            seed=None if self.seed == -1 else self.seed,
            logprobs=logprobs,
        )

    def limits(self) -> dict[str, Any]:
        """The fields of a `Turn` that determine when an answer ends."""
        return {
            "stop": tuple(self.stop or ()),
            "stop_tokens": frozenset(self.stop_token_ids or ()),
            "min_tokens": self.min_tokens or 0,
            "ignore_eos": bool(self.ignore_eos),
        }

    def view(self, logprobs: bool) -> View:
        options = self.stream_options
        return View(
            logprobs=logprobs,
            token_ids=bool(self.return_token_ids),
            usage=bool(options and options.include_usage),
            running_usage=bool(options and options.continuous_usage_stats),
        )


class MoreFields(SamplingFields):
    """Further fields of chats, completions and responses, from vLLM."""

    include_stop_str_in_output: bool | None = None
    prompt_logprobs: int | None = Field(None, ge=0, le=20)
    return_tokens_as_token_ids: bool | None = None
    truncate_prompt_tokens: int | None = Field(None, ge=-1, lt=2**31)
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)

    def check_prompt_logprobs(self) -> None:
        """Raises ApiError."""
        if self.prompt_logprobs is not None and self.stream:
            param = "prompt_logprobs"
            raise bad_request(f"{param}: they come with the whole answer, so not with stream", param)

    def limits(self) -> dict[str, Any]:
        cut = self.truncate_prompt_tokens
        return {
            **super().limits(),
            "keep_stop": bool(self.include_stop_str_in_output),
            "max_prompt": None if cut == -1 else cut,
            "cache_salt": self.cache_salt or "",
        }

    def view(self, logprobs: bool) -> View:
        return replace(
            super().view(logprobs),
            prompt_logprobs=self.prompt_logprobs is not None,
            ids_as_tokens=bool(self.return_tokens_as_token_ids),
        )


def _biases(asked: Mapping[str, float], known: Callable[[int], bool]) -> dict[int, float]:
    for key in asked:
        if not (key.isascii() and key.isdigit() and len(key) < 10 and known(int(key))):
            raise bad_request(f"logit_bias: {key[:20]!r} is not the id of a token", "logit_bias")
    return {int(key): bias for key, bias in asked.items()}
