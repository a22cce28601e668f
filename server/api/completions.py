"""POST /v1/completions: continues raw text or token ids.

This is the only endpoint in whose prompts names of special tokens become special tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import Field, PlainValidator

from language.tokenizer import Tokenizer
from server.api.completion_answer import CompletionAnswer, Wanted
from server.api.shared_fields import MoreFields
from server.api.structured import AnswerFields
from server.dialogue.begin import begin_all, check_number, preprocess
from server.dialogue.turn import Demands, Turn
from server.errors import bad_request
from server.front.bodies import JsonRoute
from server.logs import Figures
from server.service import TheService
from server.streaming import respond

router = APIRouter(route_class=JsonRoute)

PROMPT = "a string, a list of strings, a list of token ids, or a list of such lists"


def _prompts(given: Any) -> list[str | list[int]]:
    """One or several prompts as a list.  Checked by hand, because pydantic would try each branch of a union
    on every id of a long list.
    """
    if given is None:
        return [""]
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if all(isinstance(one, str) for one in given):
            return given
        if all(type(id) is int for id in given):
            return [given]
        if all(isinstance(one, list) and one and all(type(id) is int for id in one) for one in given):
            return given
    raise ValueError(f"must be {PROMPT}")


Prompts = Annotated[
    list[str | list[int]],
    PlainValidator(_prompts, json_schema_input_type=str | list[str] | list[int] | list[list[int]] | None),
]


class CompletionBody(MoreFields, AnswerFields):
    prompt: Prompts
    max_tokens: int | None = Field(None, ge=0, lt=2**31)
    best_of: int | None = Field(None, ge=1, le=128)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=5)

    def check(self) -> None:
        """Raises ApiError for fields that contradict each other or are not supported."""
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise bad_request("best_of: must be at least n", "best_of")
        if self.stream and self.candidates > (self.n or 1):
            raise bad_request("best_of: the best is known only at the end, so not with stream", "best_of")
        self.check_prompt_logprobs()

    @property
    def candidates(self) -> int:
        """Number of answers that are computed for each prompt; the best n are returned."""
        return max(self.best_of or 1, self.n or 1)

    @property
    def alternatives(self) -> int | None:
        """Alternatives to report for each token of the prompt; None for no report."""
        asked = (self.prompt_logprobs, self.logprobs if self.echo else None)
        return max((each for each in asked if each is not None), default=None)

    def turns(self, tokenizer: Tokenizer) -> list[Turn]:
        """A turn for each prompt.  Raises ApiError."""
        special = frozenset(tokenizer.specials.values())
        # The best answer is the one with the most likely tokens, so their log-probabilities are needed.
        logprobs = self.logprobs if self.candidates == (self.n or 1) else self.logprobs or 0
        whole = Turn(
            prompt="",
            # For max_tokens=0 the prompt must still be computed: one token is sampled, and not shown.
            max_tokens=16 if self.max_tokens is None else max(self.max_tokens, 1),
            n=self.candidates,
            demands=Demands(**self.format_demands(tokenizer.known, special)),
            sampling=self.sampling(logprobs, tokenizer.known),
            prompt_logprobs=self.alternatives,
            param="prompt",
            **self.limits(),
        )
        return [replace(whole, prompt=prompt) for prompt in self.prompt]


@router.post("/v1/completions")
async def completions(body: CompletionBody, request: Request, service: TheService) -> Response:
    service.check_model(body.model)
    body.check()
    id = f"cmpl-{uuid4().hex}"
    check_number(len(body.prompt) * body.candidates, service)
    turns = await preprocess(0, body.turns, service, service.tokenizer)
    begun = await begin_all(turns, id, service, request.state.caller)
    figures = request.state.figures = Figures(prompt_tokens=sum(len(each.prompt) for each in begun))
    wanted = Wanted(body.n or 1, body.candidates, bool(body.echo), body.max_tokens != 0)
    return respond(
        CompletionAnswer(id, begun, body.view(body.logprobs is not None), wanted, service, figures),
        body.stream,
    )
