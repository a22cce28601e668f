"""POST /v1/chat/completions: what a client may ask, and how it becomes requests to the engine.

The answer's way back, from tokens to chunks or one object, is in chat_answer.py.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import Field

from engine.request import Constraint
from engine.request import Request as EngineRequest
from language.names import FunctionNames
from server.api.chat_answer import ChatAnswer, ChatShape
from server.api.conversation import ConversationFields
from server.api.demands import answer_spec
from server.errors import bad_request, unsupported
from server.logs import Figures
from server.service import Service, TheService
from server.streaming import respond
from server.wire import JsonRoute, SamplingFields

router = APIRouter(route_class=JsonRoute)


class ChatBody(SamplingFields, ConversationFields):
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include_reasoning: bool | None = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None
    moderation: Any = None
    thinking_token_budget: int | None = Field(None, ge=0, lt=2**31)

    def check(self) -> None:
        """Refuse what is well formed and cannot be done."""
        if set(self.modalities or ()) - {"text"}:
            raise unsupported("modalities: this model writes text only", "modalities")
        for name in ("audio", "web_search_options", "moderation"):
            if getattr(self, name) is not None:
                raise unsupported(f"{name}: this server does not have it", name)
        if self.top_logprobs is not None and not self.logprobs:
            raise bad_request("top_logprobs: needs logprobs to be true", "top_logprobs")

    def max_answer(self, room: int) -> int:
        """Without a limit of its own, the answer may take what the context leaves."""
        room = max(room, 1)
        return min(self.max_completion_tokens or self.max_tokens or room, room)

    def shape(self, prefilled: bool, names: FunctionNames) -> ChatShape:
        return ChatShape(
            stop=tuple(self.stop or ()),
            prefilled_channel="final" if prefilled else None,
            names=names,
            reasoning=self.include_reasoning is not False,
            logprobs=bool(self.logprobs),
            token_ids=bool(self.return_token_ids),
            usage=self.wants_usage,
            running_usage=self.wants_running_usage,
        )


@router.post("/v1/chat/completions")
async def chat_completions(body: ChatBody, request: Request, service: TheService) -> Response:
    service.check_model(body.model)
    body.check()
    names = body.names()
    conversation = body.conversation(service.date, names)
    prompt = await service.render(conversation)
    max_tokens = body.max_answer(service.max_context - len(prompt))
    thinking = body.thinking_token_budget
    if thinking is not None:
        thinking = service.constraints.thinking_tokens(thinking, max_tokens)
    constraint = await service.constrain(answer_spec(body, conversation, names, thinking))
    id = f"chatcmpl-{uuid4().hex}"
    engine_requests = [
        to_request(body, f"{id}-{i}", prompt, max_tokens, i, constraint and constraint.copy(), service)
        for i in range(body.n or 1)
    ]
    figures = request.state.figures = Figures(prompt_tokens=len(prompt))
    streams = service.submit(engine_requests, "messages")
    return await respond(
        request,
        ChatAnswer(id, prompt, streams, body.shape(conversation.prefilled, names), service, figures),
        body.stream,
    )


@router.post("/v1/chat/completions/render")
async def render(body: ChatBody, service: TheService) -> dict[str, Any]:
    """The exact prompt that the same body would be answered from."""
    service.check_model(body.model)
    body.check()
    prompt = await service.render(body.conversation(service.date, body.names()))
    return {"model": service.model_id, "token_ids": prompt, "text": service.tokenizer.decode(prompt)}


def to_request(
    body: ChatBody,
    id: str,
    prompt: list[int],
    max_tokens: int,
    choice: int,
    constraint: Constraint | None,
    service: Service,
) -> EngineRequest:
    extra = frozenset(body.stop_token_ids or ())
    return EngineRequest(
        id=id,
        prompt=prompt,
        max_tokens=max_tokens,
        stop_tokens=extra if body.ignore_eos else service.renderer.stop_tokens | extra,
        sampling=body.sampling(
            choice, (body.top_logprobs or 0) if body.logprobs else None, service.tokenizer.known
        ),
        constraint=constraint,
        min_tokens=body.min_tokens or 0,
        timeout_seconds=service.timeout_seconds,
    )
