"""POST /v1/completions: raw text, or raw tokens, and how they go on.  Special tokens in a prompt are live
here, and only here.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import Field, PlainValidator

from engine.request import Request as EngineRequest
from server.api.completion_answer import CompletionAnswer, CompletionShape
from server.errors import bad_request, unsupported
from server.logs import Figures
from server.service import LONG_TEXT, Service, TheService
from server.streaming import respond
from server.wire import JsonRoute, SamplingFields

router = APIRouter(route_class=JsonRoute)

PROMPT = "a string, a list of strings, a list of token ids, or a list of such lists"


def _prompts(given: Any) -> list[str | list[int]]:
    """One prompt or many, as many.  Checked by hand: a union would be tried branch by branch, on every id
    of a long list.
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
        """Refuse what contradicts itself, or cannot be done."""
        if self.suffix:
            raise unsupported("suffix: this model does not fill in the middle", "suffix")
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise bad_request("best_of: must be at least n", "best_of")
        if self.stream and self.candidates > (self.n or 1):
            raise bad_request("best_of: the best is known only at the end, so not with stream", "best_of")

    @property
    def candidates(self) -> int:
        """How many answers to each prompt are made, of which the best n are given."""
        return max(self.best_of or 1, self.n or 1)

    def shape(self) -> CompletionShape:
        return CompletionShape(
            stop=tuple(self.stop or ()),
            choices=self.n or 1,
            candidates=self.candidates,
            echo=bool(self.echo),
            answer=self.max_tokens != 0,
            logprobs=self.logprobs is not None,
            token_ids=bool(self.return_token_ids),
            usage=self.wants_usage,
            running_usage=self.wants_running_usage,
        )


@router.post("/v1/completions")
async def completions(body: CompletionBody, request: Request, service: TheService) -> Response:
    service.check_model(body.model)
    body.check()
    prompts = [await _tokens(prompt, i, service) for i, prompt in enumerate(body.prompt)]
    id = f"cmpl-{uuid4().hex}"
    candidates = range(body.candidates)
    engine_requests = [
        to_request(body, f"{id}-{i}-{j}", prompt, j, service)
        for i, prompt in enumerate(prompts)
        for j in candidates
    ]
    figures = request.state.figures = Figures(prompt_tokens=sum(map(len, prompts)))
    streams = service.submit(engine_requests, "prompt")
    return await respond(
        request, CompletionAnswer(id, prompts, streams, body.shape(), service, figures), body.stream
    )


async def _tokens(prompt: str | list[int], i: int, service: Service) -> list[int]:
    tokenizer = service.tokenizer
    if isinstance(prompt, str):
        if not prompt:
            return [tokenizer.special("<|endoftext|>")]  # as OpenAI: the beginning of a new document
        if len(prompt) > LONG_TEXT:
            return await asyncio.to_thread(tokenizer.encode_with_specials, prompt)
        return tokenizer.encode_with_specials(prompt)
    for id in prompt:
        if not tokenizer.known(id):
            raise bad_request(f"prompt: {id} in list {i} is not the id of a token", "prompt")
    return prompt


def to_request(
    body: CompletionBody, id: str, prompt: list[int], choice: int, service: Service
) -> EngineRequest:
    """An answer of no tokens still has the prompt computed: one token is sampled, and not shown."""
    room = max(service.max_context - len(prompt), 1)
    max_tokens = 16 if body.max_tokens is None else max(body.max_tokens, 1)
    # The best of several is the one whose tokens are the likeliest, so their log-probabilities are needed.
    logprobs = body.logprobs if body.candidates == (body.n or 1) else body.logprobs or 0
    extra = frozenset(body.stop_token_ids or ())
    ends = service.renderer.stop_tokens | {service.tokenizer.special("<|endoftext|>")}
    return EngineRequest(
        id=id,
        prompt=prompt,
        max_tokens=min(max_tokens, room),
        stop_tokens=extra if body.ignore_eos else ends | extra,
        sampling=body.sampling(choice, logprobs, service.tokenizer.known),
        min_tokens=body.min_tokens or 0,
        prompt_logprobs=body.logprobs if body.echo else None,
        timeout_seconds=service.timeout_seconds,
    )
