"""POST /v1/chat/completions: the fields of a request, as a Turn.

The response is written in chat_answer.py.
"""

from __future__ import annotations

from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import Field

from engine.errors import PromptTooLong
from language.tokenizer import Tokenizer
from server.api.chat_answer import ChatAnswer
from server.api.conversation import ConversationFields, text_of
from server.api.demands import demands
from server.api.shared_fields import Many, MoreFields
from server.dialogue.begin import begin, preprocess, render
from server.dialogue.turn import Turn
from server.errors import bad_request, unsupported
from server.front.bodies import JsonRoute
from server.logs import Figures
from server.service import TheService
from server.sse import dumps
from server.streaming import respond

router = APIRouter(route_class=JsonRoute)


class ChatBody(MoreFields, ConversationFields):
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include_reasoning: bool | None = None
    modalities: Many[str] | None = None
    thinking_token_budget: int | None = Field(None, ge=-1, lt=2**31)
    echo: bool | None = None

    def check(self) -> None:
        """Raises ApiError for fields that are not supported."""
        if set(self.modalities or ()) - {"text"}:
            raise unsupported("modalities: this model writes text only", "modalities")
        if self.top_logprobs is not None and not self.logprobs:
            raise bad_request("top_logprobs: needs logprobs to be true", "top_logprobs")
        self.check_prompt_logprobs()

    @property
    def echoed(self) -> str:
        """The text of the last message, if it is the assistant's, with which the visible answer begins."""
        last = self.messages[-1]
        if not (self.echo and last.role == "assistant"):
            return ""
        return text_of(last.content, f"messages[{len(self.messages) - 1}].content") or ""

    def turn(self, date: str, tokenizer: Tokenizer) -> Turn:
        """
        date  the current date in the prompt, YYYY-MM-DD

        Raises ApiError.
        """
        self.check()
        known, special = tokenizer.known, frozenset(tokenizer.specials.values())
        names = self.names()
        conversation = self.conversation(date, names)
        budget = None if self.thinking_token_budget == -1 else self.thinking_token_budget
        return Turn(
            prompt=conversation,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            n=self.n or 1,
            demands=demands(self, names, budget, self.format_demands(known, special)),
            sampling=self.sampling((self.top_logprobs or 0) if self.logprobs else None, known),
            prompt_logprobs=self.prompt_logprobs,
            names=names,
            **self.limits(),
        )


@router.post("/v1/chat/completions")
async def chat_completions(body: ChatBody, request: Request, service: TheService) -> Response:
    service.check_model(body.model)
    id = f"chatcmpl-{uuid4().hex}"
    turn = await preprocess(0, body.turn, service, service.date, service.tokenizer)
    begun = await begin(turn, id, service, request.state.caller)
    figures = request.state.figures = Figures(prompt_tokens=len(begun.prompt))
    shows_reasoning = body.include_reasoning is not False
    view = body.view(bool(body.logprobs))
    return respond(ChatAnswer(id, begun, view, shows_reasoning, service, figures, body.echoed), body.stream)


@router.post("/v1/chat/completions/render")
async def rendered(body: ChatBody, request: Request, service: TheService) -> Response:
    """The prompt that the model would get for this body."""
    service.check_model(body.model)
    body.check()
    conversation = await preprocess(0, body.conversation, service, service.date)
    prompt = await render(conversation, service, request.state.caller)
    if len(prompt) >= service.max_context:
        raise PromptTooLong(len(prompt), service.max_context - 1)

    def written() -> str:
        text = service.tokenizer.decode(prompt)
        return dumps({"model": service.model_id, "token_ids": prompt, "text": text})

    return Response(await preprocess(len(prompt), written, service), media_type="application/json")
