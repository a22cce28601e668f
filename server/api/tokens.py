"""POST /tokenize and /detokenize: text → token ids, and back, with vLLM's fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from server.api.conversation import ConversationFields
from server.api.logprobs import token_text
from server.api.shared_fields import Body, Many, TokenId
from server.dialogue.begin import first_unknown, preprocess, raw_tokens, render
from server.errors import bad_request
from server.front.bodies import JsonRoute
from server.service import Service, TheService
from server.sse import dumps, quote

router = APIRouter(route_class=JsonRoute)


class TokenizeBody(Body):
    """A raw prompt, tokenised as by /v1/completions: names of special tokens become special tokens."""

    model: str | None = None
    prompt: str | None = None
    return_token_strs: bool | None = None


class TokenizeChatBody(ConversationFields):
    model: str | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    model: str | None = None
    tokens: Many[TokenId]


@router.post("/tokenize")
async def tokenize(body: TokenizeChatBody | TokenizeBody, request: Request, service: TheService) -> Response:
    service.check_model(body.model)
    if isinstance(body, TokenizeChatBody):
        conversation = await preprocess(0, body.conversation, service, service.date)
        ids = await render(conversation, service, request.state.caller)
    elif body.prompt is None:
        raise bad_request("prompt: it is missing, and so is messages", "prompt")
    elif body.prompt:
        ids = await raw_tokens(body.prompt, service)
    else:
        ids = []
    written = await preprocess(len(ids), _written, service, ids, bool(body.return_token_strs), service)
    return Response(written, media_type="application/json")


def _written(ids: list[int], names: bool, service: Service) -> str:
    """The response as JSON, written in pieces, because json.dumps of the whole would block other threads."""
    head = {"count": len(ids), "max_model_len": service.max_context}
    fields = [dumps(head)[:-1], f'"tokens":{_joined(ids, str)}']
    if names:
        fields.append(f'"token_strs":{_joined(ids, lambda id: quote(token_text(service.tokenizer, id)))}')
    return ",".join(fields) + "}"


def _joined(ids: list[int], write: Callable[[int], str]) -> str:
    pieces = (",".join(map(write, ids[start : start + 1000])) for start in range(0, len(ids), 1000))
    return f"[{','.join(pieces)}]"


@router.post("/detokenize")
async def detokenize(body: DetokenizeBody, service: TheService) -> dict[str, Any]:
    service.check_model(body.model)
    if len(body.tokens) > service.max_context:
        limit = service.max_context
        raise bad_request(f"tokens: {len(body.tokens)} of them; at most {limit} are allowed", "tokens")
    unknown = await preprocess(len(body.tokens), first_unknown, service, body.tokens, service.tokenizer)
    if unknown is not None:
        i = body.tokens.index(unknown)
        raise bad_request(f"tokens[{i}]: {unknown} is not the id of a token", f"tokens[{i}]")
    return {"prompt": await preprocess(len(body.tokens), service.tokenizer.decode, service, body.tokens)}
