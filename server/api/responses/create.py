"""POST /v1/responses."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from language.constraints import SchemaError
from language.harmony.messages import ConversationError
from server.api.responses.answer import ResponseAnswer
from server.api.responses.background import Job, Jobs
from server.api.responses.body import InputFields, ResponseBody, in_our_words
from server.api.responses.history import Item, type_of
from server.api.responses.tools import Tools
from server.api.responses.writer import new_id
from server.dialogue.begin import begin
from server.dialogue.turn import Turn
from server.errors import ApiError
from server.front.bodies import JsonRoute
from server.logs import Figures
from server.service import Service, TheService
from server.streaming import AnswerStream, respond

log = logging.getLogger("gptoss.server")

router = APIRouter(route_class=JsonRoute)


@dataclass(frozen=True, slots=True)
class KnownItems:
    """The stored items of one owner (implements history.Known)."""

    service: Service
    owner: bytes

    def item(self, id: str) -> tuple[Item, Sequence[int]] | None:
        kept = self.service.items.item(self.owner, id)
        return None if kept is None else (kept.body, kept.tokens)

    def unsealed(self, text: str) -> list[int]:
        return self.service.seal.open(text, self.owner)


@router.post("/v1/responses")
async def create(body: ResponseBody, request: Request, service: TheService) -> Response:
    jobs: Jobs = request.app.state.jobs
    if body.background:
        jobs.check_room()
    answer, headers = await begun(body, request, service)
    if not body.background:
        return respond(answer, body.stream, headers)
    job = Job(answer, owner_of(request), bool(body.stream))
    jobs.add(job)
    await job.kept
    if body.stream:
        return AnswerStream(job.watch(-1), headers)
    return JSONResponse(job.response, headers=headers)


async def begun(
    body: ResponseBody, request: Request, service: Service
) -> tuple[ResponseAnswer, dict[str, str]]:
    """An answer under way, and the headers of its response.  Raises ApiError; then nothing runs."""
    service.check_model(body.model)
    body.check()
    owner = owner_of(request)
    (turn, tools, paths), items = await service.items.run(told, body, owner, service)
    id = new_id("resp")
    try:
        begun = await begin(turn, id, service, request.state.caller)
    except (ConversationError, SchemaError) as error:
        raise in_our_words(error, paths, tools) from error
    figures = request.state.figures = Figures(prompt_tokens=len(begun.prompt))
    answer = ResponseAnswer(
        body.head(id, time.time(), service),
        begun,
        tools,
        owner,
        service,
        figures,
        items=items if body.keeps else None,
        summary=body.summary is not None,
        seals=body.wants_seal,
        logprobs=body.wants_logprobs,
    )
    return answer, warnings(tools.ignored)


def told(
    body: ResponseBody, owner: bytes, service: Service
) -> tuple[tuple[Turn, Tools, list[str]], list[dict[str, Any]]]:
    """What the model is told, and the input's items as they are kept.  Raises ApiError."""
    known = KnownItems(service, owner)
    turn = body.turn(earlier(body, owner, service), known, service)
    return turn, [named(item, known) for item in body.items()]


def owner_of(request: Request) -> bytes:
    """The owner of a request: its API key, or a common owner if no key is needed."""
    caller: str = request.state.caller
    return caller.encode()


def warnings(ignored: Sequence[str]) -> dict[str, str]:
    """A header, and a log line, about tools that the prompt does not contain."""
    if not ignored:
        return {}
    names = ", ".join(name for name in ignored if name.replace("_", "").isalnum() and name.isascii())
    log.warning("a client declared %s, which this server does not have", names)
    return {"warning": f'299 gptoss "{names}: not available here, so the model was not told of it"'}


def earlier(body: InputFields, owner: bytes, service: Service) -> list[Item]:
    """The items of the responses, or of the conversation, that this one goes on from.  Raises ApiError."""
    if (id := body.conversation_id) is not None:
        conversation = service.items.get(owner, id)
        if conversation is None or conversation.kind != "conversation":
            raise missing("conversation", id, "conversation")
        return [kept.body for kept in service.items.items(owner, id)]
    if (id := body.previous_response_id) is None:
        return []
    chain = service.items.chain(owner, id)
    if isinstance(chain, str):
        raise missing("response", chain, "previous_response_id")
    if chain[-1].status in ("queued", "in_progress"):
        message = f"the response {id[:100]!r} is still running"
        raise ApiError(409, message, param="previous_response_id", code="response_in_progress")
    return [kept.body for group in chain for kept in service.items.items(owner, group.id)]


def missing(kind: str, id: str, param: str | None) -> ApiError:
    return ApiError(404, f"there is no {kind} {id[:100]!r} here", param=param, code=f"{kind}_not_found")


def named(item: Item, known: KnownItems) -> dict[str, Any]:
    """An item of the input as it is kept: with an id, and itself in the place of a reference."""
    id = item.get("id")
    kind = type_of(item)
    if kind == "item_reference" and isinstance(id, str) and (found := known.item(id)):
        return dict(found[0])
    prefix = "msg" if kind == "message" else "".join(word[0] for word in kind.split("_"))
    return {"type": kind, **item, "id": id if isinstance(id, str) and id else new_id(prefix)}
