"""POST /v1/responses."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from language.constraints import SchemaError
from language.harmony.messages import ConversationError
from server.api.responses.answer import ResponseAnswer
from server.api.responses.background import Jobs, is_interrupted
from server.api.responses.body import InputFields, ResponseBody, as_request_error
from server.api.responses.history import Item, type_of
from server.api.responses.tools import Tools
from server.api.responses.writer import PREFIXES, UNFINISHED, new_id
from server.dialogue.begin import begin, preprocess, slot_if_large
from server.dialogue.records import MAX_CHAIN, ChainTooLong, StoredItem
from server.dialogue.turn import Turn
from server.errors import ApiError, bad_request
from server.front.bodies import JsonRoute
from server.logs import Figures
from server.service import Service, TheService
from server.sse import json_response, size_of
from server.streaming import AnswerStream, respond

log = logging.getLogger("gptoss.server")

router = APIRouter(route_class=JsonRoute)


@dataclass(slots=True)
class KnownItems:
    """The stored items of one owner, for one request (implements history.Known).

    bytes  size of the items that were looked up so far.  It is limited to the size of a body, because a short
           body can refer to a long item many times
    """

    service: Service
    owner: bytes
    bytes: int = 0

    def item(self, id: str) -> tuple[Item, Sequence[int]] | None:
        """Raises ApiError."""
        kept = self.service.store.item(self.owner, id)
        if kept is None:
            return None
        self.bytes += kept.bytes
        if self.bytes > (limit := self.service.settings.max_body_bytes):
            raise bad_request(f"input: the items that it refers to have more than {limit} bytes", "input")
        return kept.body, kept.tokens

    def unsealed(self, text: str) -> list[int]:
        return self.service.seal.open(text, self.owner)


RETURNS: dict[int | str, dict[str, Any]] = {
    200: {
        "links": {
            name: {"operationId": f"response_{name}", "parameters": {"id": "$response.body#/id"}}
            for name in ("retrieve", "delete", "cancel", "input_items")
        }
    }
}
"""OpenAPI links: what can be done with the id of a response."""


@router.post("/v1/responses", responses=RETURNS)
async def create(body: ResponseBody, request: Request, service: TheService) -> Response:
    jobs: Jobs = request.app.state.jobs
    if body.background:
        jobs.check_room()
    answer, headers = await start_answer(body, request, service, jobs)
    if not body.background:
        return respond(answer, body.stream, headers)
    job = jobs.begin(answer, bool(body.stream))
    await job.saved
    if body.stream:
        return AnswerStream(job.watch(-1), headers)
    return await json_response(job.response, headers)


async def start_answer(
    body: ResponseBody, request: Request, service: Service, jobs: Jobs
) -> tuple[ResponseAnswer, dict[str, str]]:
    """Begins an answer, and returns it with headers for its response.  Raises ApiError; then nothing runs."""
    service.check_model(body.model)
    body.check()
    owner = owner_of(request)
    id = new_id("resp")
    size = await history_bytes(body, owner, service)
    async with slot_if_large(size, service, request.state.caller):
        head = await preprocess(0, new_response, service, body, id, service)
        (turn, tools, paths), items = await service.store.run(turn_and_items, body, owner, service, jobs)
        try:
            begun = await begin(turn, id, service, request.state.caller)
        except (ConversationError, SchemaError) as error:
            raise as_request_error(error, paths, tools) from error
    figures = request.state.figures = Figures(prompt_tokens=len(begun.prompt))
    answer = ResponseAnswer(
        head,
        begun,
        tools,
        owner,
        service,
        figures,
        items=items,
        running=jobs.foreground if body.keeps and not body.background else None,
        summary=body.summary is not None,
        seals=body.wants_seal,
        view=body.view(body.wants_logprobs),
    )
    return answer, warnings(tools.ignored)


def turn_and_items(
    body: ResponseBody, owner: bytes, service: Service, jobs: Jobs
) -> tuple[tuple[Turn, Tools, list[str]], list[StoredItem] | None]:
    """The turn, its tools and paths; and the input's items as they are stored, None if they are not.

    Raises ApiError.
    """
    turn = body.turn(history_items(body, owner, service, jobs), KnownItems(service, owner), service)
    if not body.keeps:
        return turn, None
    known = KnownItems(service, owner)
    return turn, [StoredItem.as_text(stored_form(item, known)) for item in body.items()]


MAX_REPEATED = 20_000
"""Maximum values (64 characters of text count as one) in the tools, and in the instructions, of a request.
The response repeats both, so they stay in memory while it is running, which may take minutes.
"""


def new_response(body: ResponseBody, id: str, service: Service) -> dict[str, Any]:
    """The response before its first item.  Raises ApiError."""
    head = body.head(id, time.time(), service)
    for name in ("tools", "instructions"):
        if size_of(head[name], MAX_REPEATED) > MAX_REPEATED:
            raise bad_request(f"{name}: more than {MAX_REPEATED} values and texts of 64 characters", name)
    return head


async def history_bytes(body: InputFields, owner: bytes, service: Service) -> int:
    """Size of the stored history that this request continues.  Raises ApiError if it is larger than a body
    may be.
    """
    id, param = body.conversation_id, "conversation"
    if id is None:
        id, param = body.previous_response_id, "previous_response_id"
    if id is None:
        return 0
    limit = service.settings.max_body_bytes
    size = await service.store.run(service.store.history_bytes, owner, id)
    if size > limit:
        message = f"{param}: the conversation so far has {size} bytes; at most {limit} can be continued"
        raise ApiError(400, message, param=param, code="context_length_exceeded")
    return size


def owner_of(request: Request) -> bytes:
    """The owner of a request: its API key, or a common owner if no key is needed."""
    caller: str = request.state.caller
    return caller.encode()


MAX_NAMED = 8
"""Maximum names in one warning."""


def warnings(ignored: Sequence[str]) -> dict[str, str]:
    """A header, and a log line, about tools that the prompt does not contain."""
    if not ignored:
        return {}
    more = f" and {len(ignored) - MAX_NAMED} more" if len(ignored) > MAX_NAMED else ""
    names = ", ".join(ignored[:MAX_NAMED]) + more
    log.warning("a client declared %s, which this server does not have", names)
    return {"warning": f'299 gptoss "{names}: not available here, so the model was not told of it"'}


def history_items(body: InputFields, owner: bytes, service: Service, jobs: Jobs) -> list[Item]:
    """The items of the conversation, or of the previous responses, that this request continues.  Raises
    ApiError.
    """
    if (id := body.conversation_id) is not None:
        conversation = service.store.get(owner, id)
        if conversation is None or conversation.kind != "conversation":
            raise missing("conversation", id, "conversation")
        return [kept.body for kept in service.store.items(owner, id)]
    if (id := body.previous_response_id) is None:
        return []
    try:
        chain = service.store.chain(owner, id)
    except ChainTooLong:
        message = f"previous_response_id: more than {MAX_CHAIN} responses come before this one"
        raise bad_request(message, "previous_response_id") from None
    runs = jobs.in_foreground(owner, id) is not None
    if not isinstance(chain, str) and chain[-1].status in UNFINISHED:
        last = service.store.get(owner, id)
        runs = last is not None and not is_interrupted(last, service)
    if runs:
        message = f"the response {id[:100]!r} is still running"
        raise ApiError(409, message, param="previous_response_id", code="response_in_progress")
    if isinstance(chain, str):
        raise missing("response", chain, "previous_response_id")
    return [kept.body for group in chain for kept in service.store.items(owner, group.id)]


def missing(kind: Literal["response", "conversation"], id: str, param: str | None) -> ApiError:
    message = f"there is no {kind} {id[:100]!r} here"
    if kind == "response":
        return ApiError(404, message, param=param, code="response_not_found")
    return ApiError(404, message, param=param, code="conversation_not_found")


MAX_ID = 200
"""Characters of an item's id.  A longer one would be too long for a path, and for a database's index."""


def stored_form(item: Item, known: KnownItems) -> dict[str, Any]:
    """An item of the input as it is stored: with an id; a reference is replaced by the item itself."""
    id = item.get("id")
    kind = type_of(item)
    if kind == "item_reference" and isinstance(id, str) and (found := known.item(id)):
        return dict(found[0])
    prefix = PREFIXES.get(kind) or "".join(word[0] for word in kind.split("_"))
    fits = isinstance(id, str) and 0 < len(id) <= MAX_ID
    return {"type": kind, **item, "id": id if fits else new_id(prefix)}
