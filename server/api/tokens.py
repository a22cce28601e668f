"""POST /tokenize and /detokenize: what a text is in tokens, and back, as vLLM offers it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from server.api.conversation import ConversationFields
from server.dialogue import logprobs
from server.dialogue.begin import LONG_TEXT, render
from server.errors import bad_request
from server.service import TheService
from server.wire import Body, JsonRoute

router = APIRouter(route_class=JsonRoute)


class TokenizeBody(Body):
    """Either a prompt, as /v1/completions reads it (special tokens are live), or the messages and tools of
    a chat.
    """

    model: str | None = None
    prompt: str | None = None
    return_token_strs: bool | None = None


class TokenizeChatBody(ConversationFields):
    model: str | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0, lt=2**31)]]


@router.post("/tokenize")
async def tokenize(body: TokenizeChatBody | TokenizeBody, service: TheService) -> dict[str, Any]:
    service.check_model(body.model)
    if isinstance(body, TokenizeChatBody):
        ids = await render(body.conversation(service.date, body.names()), service)
    elif body.prompt is None:
        raise bad_request("prompt: it is missing, and so are messages", "prompt")
    elif len(body.prompt) > LONG_TEXT:
        ids = await asyncio.to_thread(service.tokenizer.encode_with_specials, body.prompt)
    else:
        ids = service.tokenizer.encode_with_specials(body.prompt)
    answer: dict[str, Any] = {"count": len(ids), "max_model_len": service.max_context, "tokens": ids}
    if body.return_token_strs:
        answer["token_strs"] = [logprobs.name(service.tokenizer, id) for id in ids]
    return answer


@router.post("/detokenize")
async def detokenize(body: DetokenizeBody, service: TheService) -> dict[str, Any]:
    service.check_model(body.model)
    for i, id in enumerate(body.tokens):
        if not service.tokenizer.known(id):
            raise bad_request(f"tokens[{i}]: {id} is not the id of a token", f"tokens[{i}]")
    return {"prompt": service.tokenizer.decode(body.tokens)}
