"""POST /v1/completions: continues raw text or token ids.

This is the only endpoint in whose prompts names of special tokens become special tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import Field, PlainValidator

from server.api.completion_answer import CompletionAnswer, Wanted
from server.api.shared_fields import SamplingFields
from server.dialogue.begin import begin_all, check_number
from server.dialogue.turn import Turn
from server.errors import bad_request, unsupported
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


class CompletionBody(SamplingFields):
    prompt: Prompts
    max_tokens: int | None = Field(None, ge=0, lt=2**31)
    best_of: int | None = Field(None, ge=1, le=128)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=5)
    suffix: str | None = None

    def check(self) -> None:
        """Raises ApiError for fields that contradict each other or are not supported."""
        if self.suffix:
            raise unsupported("suffix: this model does not fill in the middle", "suffix")
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise bad_request("best_of: must be at least n", "best_of")
        if self.stream and self.candidates > (self.n or 1):
            raise bad_request("best_of: the best is known only at the end, so not with stream", "best_of")

    @property
    def candidates(self) -> int:
        """Number of answers that are computed for each prompt; the best n are returned."""
        return max(self.best_of or 1, self.n or 1)

    def turns(self, known: Callable[[int], bool]) -> list[Turn]:
        """A turn for each prompt.

        known  whether a number is the id of a token

        Raises ApiError.
        """
        # The best answer is the one with the most likely tokens, so their log-probabilities are needed.
        logprobs = self.logprobs if self.candidates == (self.n or 1) else self.logprobs or 0
        whole = Turn(
            prompt="",
            # For max_tokens=0 the prompt must still be computed: one token is sampled, and not shown.
            max_tokens=16 if self.max_tokens is None else max(self.max_tokens, 1),
            n=self.candidates,
            sampling=self.sampling(logprobs, known),
            prompt_logprobs=self.logprobs if self.echo else None,
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
    begun = await begin_all(body.turns(service.tokenizer.known), id, service, request.state.caller)
    figures = request.state.figures = Figures(prompt_tokens=sum(len(each.prompt) for each in begun))
    wanted = Wanted(body.n or 1, body.candidates, bool(body.echo), body.max_tokens != 0)
    return respond(
        CompletionAnswer(id, begun, body.view(body.logprobs is not None), wanted, service, figures),
        body.stream,
    )
