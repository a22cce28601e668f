"""What the routes work with: made once, when the program is put together, and found by each request on the
app.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from engine.errors import DeadlineExceeded, PromptTooLong
from engine.request import Request as EngineRequest
from language.constraints import AnswerConstraint, AnswerSpec, Constraints
from language.constraints.threads import CompilerThreads
from language.harmony.messages import Conversation
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer
from server.dialogue.recall import Recall
from server.errors import ApiError, as_api_error, bad_request
from server.metrics import Metrics
from server.settings import Settings

if TYPE_CHECKING:
    from engine.worker import TokenStream, Worker


LONG_TEXT = 32_768
"""Characters from which on a text is tokenised beside the event loop, so that other streams go on
meanwhile.
"""


@dataclass(frozen=True, slots=True)
class Service:
    """
    model_id     the model's name in requests and answers
    max_context  longest prompt and answer together, tokens
    fingerprint  identifies weights and version
    date         YYYY-MM-DD that the model is told
    created      when the server started, Unix seconds
    """

    worker: Worker
    tokenizer: Tokenizer
    renderer: Renderer
    metrics: Metrics
    constraints: Constraints
    compilers: CompilerThreads
    recall: Recall
    settings: Settings
    model_id: str
    max_context: int
    fingerprint: str
    date: str
    created: int = field(default_factory=lambda: int(time.time()))

    def check_model(self, asked: str | None) -> None:
        if asked not in (None, self.model_id):
            message = f"there is no model {asked!r} here; there is {self.model_id!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    async def render(self, conversation: Conversation) -> list[int]:
        """The prompt's tokens.  Raises ConversationError."""
        messages = conversation.messages
        replay = self.recall.of(call.id for message in messages for call in message.calls)
        if sum(len(message.content or "") for message in messages) > LONG_TEXT:
            return await asyncio.to_thread(self.renderer.render, conversation, replay)
        return self.renderer.render(conversation, replay)

    async def constrain(self, spec: AnswerSpec) -> AnswerConstraint | None:
        """What holds an answer to `spec`; None, at no cost, if everything is allowed.

        Raises SchemaError, QueueFull, and DeadlineExceeded: a new schema waits for those before it.
        """
        if not spec.constrains and spec.thinking_tokens is None:
            return None
        try:
            async with asyncio.timeout(self.timeout_seconds):
                return await self.compilers.compile(spec)
        except TimeoutError:
            raise DeadlineExceeded(self.settings.request_timeout) from None

    def submit(self, requests: Sequence[EngineRequest], param: str) -> list[TokenStream]:
        """One stream for each, or none at all.  `param` is the field that prompts come from.

        Raises ApiError or EngineError; then none of them runs.
        """
        if len(requests) > self.settings.max_queued:
            limit = self.settings.max_queued
            raise bad_request(f"{len(requests)} answers at once; at most {limit} can wait here", "n")
        streams: list[TokenStream] = []
        try:
            for request in requests:
                streams.append(self.worker.submit(request))
        except BaseException as error:
            for stream in streams:
                stream.close()
            if isinstance(error, PromptTooLong):
                refusal = as_api_error(error)
                refusal.param = param
                raise refusal from error
            raise
        return streams

    @property
    def timeout_seconds(self) -> float | None:
        return self.settings.request_timeout or None


async def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(service_of)]
