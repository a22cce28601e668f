"""The endpoints: POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from server.api.messages.answer import MessagesAnswer
from server.api.messages.body import MessagesBody, PromptFields
from server.api.messages.history import OpenSignature
from server.dialogue.begin import begin, preprocess, render
from server.front.bodies import JsonRoute
from server.logs import Figures
from server.service import Service, TheService
from server.streaming import respond

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/messages")
async def messages(body: MessagesBody, request: Request, service: TheService) -> Response:
    service.check_model(body.model)
    id = f"msg_{uuid4().hex}"
    owner = _owner(request)
    turn = await preprocess(0, body.turn, service, service.date, _open_signature(service, owner))
    begun = await begin(turn, id, service, request.state.caller)
    figures = request.state.figures = Figures(prompt_tokens=len(begun.prompt))
    answer = MessagesAnswer(
        id,
        begun,
        service,
        figures,
        request_id=request.state.request_id,
        owner=owner,
        declared=frozenset() if turn.demands.tool_choice == "none" else body.declared().keys(),
        shows_thinking=body.shows_thinking,
        prompt_only=body.prompt_only,
    )
    return respond(answer, body.stream)


@router.post("/v1/messages/count_tokens")
async def count_tokens(body: PromptFields, request: Request, service: TheService) -> dict[str, int]:
    """The number of tokens that the prompt of this body would have."""
    service.check_model(body.model)
    open_signature = _open_signature(service, _owner(request))
    conversation = await preprocess(0, body.conversation, service, service.date, open_signature)
    return {"input_tokens": len(await render(conversation, service, request.state.caller))}


def _owner(request: Request) -> bytes:
    caller: str = request.state.caller
    return caller.encode()


def _open_signature(service: Service, owner: bytes) -> OpenSignature:
    def open_signature(signature: str) -> tuple[Sequence[int], str]:
        tokens = service.seal.open(signature, owner) if signature else []
        thoughts = [part for part in service.renderer.sampled_parts(tokens) if part.kind == "analysis"]
        return tokens, "".join(part.text for part in thoughts)

    return open_signature
