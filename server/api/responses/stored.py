"""The endpoints for stored responses, and the endpoint that counts the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from language.harmony.messages import ConversationError
from server.api.responses.background import INTERRUPTED, Job, Jobs, is_interrupted
from server.api.responses.body import InputFields, as_request_error
from server.api.responses.create import KnownItems, history_bytes, history_items, missing, owner_of
from server.dialogue.begin import render, slot_if_large
from server.dialogue.records import StoredItem
from server.errors import ApiError, bad_request
from server.front.bodies import JsonRoute
from server.service import Service, TheService
from server.sse import json_response, written
from server.streaming import AnswerStream

router = APIRouter(route_class=JsonRoute)

Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]


@router.post("/v1/responses/input_tokens")
async def input_tokens(body: InputFields, request: Request, service: TheService) -> dict[str, Any]:
    """The number of tokens that the prompt of this body would have."""
    service.check_model(body.model)
    owner, jobs = owner_of(request), jobs_of(request)
    size = await history_bytes(body, owner, service)
    async with slot_if_large(size, service, request.state.caller):
        conversation, tools, paths = await service.store.run(
            lambda: body.prompt_parts(
                history_items(body, owner, service, jobs), KnownItems(service, owner), service
            )
        )
        try:
            prompt = await render(conversation, service, request.state.caller)
        except ConversationError as error:
            raise as_request_error(error, paths, tools) from error
    return {"object": "response.input_tokens", "input_tokens": len(prompt)}


@router.get("/v1/responses/{id}", operation_id="response_retrieve")
async def retrieve(
    id: str,
    request: Request,
    service: TheService,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=0)] | None = None,
) -> Response:
    owner = owner_of(request)
    job, answer = jobs_of(request).get(owner, id), jobs_of(request).in_foreground(owner, id)
    if stream:
        if job is None or not job.streams:
            await service.store.run(whole, owner, id, service)
            message = (
                "stream: only a response that was created with background and stream can be streamed again,"
            )
            raise bad_request(f"{message} until some minutes after its end", "stream")
        return AnswerStream(job.watch(-1 if starting_after is None else starting_after))
    if starting_after is not None:
        raise bad_request("starting_after: needs stream to be true", "starting_after")
    if (found := job or answer) is not None:
        return await json_response(found.response)
    return await json_of(lambda: whole(owner, id, service), service)


@router.delete("/v1/responses/{id}", operation_id="response_delete")
async def delete(id: str, request: Request, service: TheService) -> dict[str, Any]:
    owner = owner_of(request)
    jobs = jobs_of(request)
    if (job := jobs.get(owner, id)) is not None:
        await job.cancel()
        jobs.forget(job)
    if (answer := jobs.in_foreground(owner, id)) is not None:
        await answer.forget()

    def deleted() -> bool:
        group = service.store.get(owner, id)
        return group is not None and group.kind == "response" and service.store.delete(owner, id)

    if not await service.store.run(deleted) and answer is None:
        raise missing("response", id, None)
    return {"id": id, "object": "response", "deleted": True}


@router.post("/v1/responses/{id}/cancel", operation_id="response_cancel")
async def cancel(id: str, request: Request, service: TheService) -> Response:
    owner = owner_of(request)
    job: Job | None = jobs_of(request).get(owner, id)
    if job is not None:
        await job.cancel()
        return await json_response(job.response)
    if (answer := jobs_of(request).in_foreground(owner, id)) is not None:
        response = answer.response
    else:
        response = await service.store.run(whole, owner, id, service)
    if not response["background"]:
        raise bad_request("only a response that was created with background can be cancelled", None)
    return await json_response(response)


@router.get("/v1/responses/{id}/input_items", operation_id="response_input_items")
async def input_items(
    id: str,
    request: Request,
    service: TheService,
    limit: Limit = 20,
    order: Order = "desc",
    after: str | None = None,
) -> Response:
    owner = owner_of(request)

    def found() -> dict[str, Any]:
        if (group := service.store.get(owner, id)) is None or group.kind != "response":
            raise missing("response", id, None)
        return page(owner, id, service, limit, order, after, "input")

    return await json_of(found, service)


async def json_of(function: Callable[[], Any], service: Service) -> Response:
    """The result of a function that reads the store, as the body of a response.

    The same thread reads the store and writes the JSON.  So if many requests ask for large pages, only a few
    pages are in memory.
    """
    body = await service.store.run(lambda: written(function()).encode())
    return Response(body, media_type="application/json")


def whole(owner: bytes, id: str, service: Service) -> dict[str, Any]:
    """A stored response.  Raises ApiError."""
    group = service.store.get(owner, id)
    if group is None or group.kind != "response":
        raise missing("response", id, None)
    output = [kept.body for kept in service.store.items(owner, id, "output")]
    ended = INTERRUPTED if is_interrupted(group, service) else {}
    return {**group.body, **ended, "output": output}


def page(
    owner: bytes,
    group_id: str,
    service: Service,
    limit: int,
    order: Order,
    after: str | None,
    kind: str | None = None,
) -> dict[str, Any]:
    """One page of a group's items: at most `limit`, and at most as many bytes as a body may have.

    Raises ApiError if `after` is none of them.
    """
    most, ascending, items = service.settings.max_body_bytes, order == "asc", service.store
    shown, more = items.page(owner, group_id, limit, most, kind=kind, after=after, ascending=ascending)
    if after is not None and not shown and items.find(owner, group_id, after) is None:
        message = f"after: there is no item {after[:100]!r} here"
        raise ApiError(404, message, param="after", code="item_not_found")
    return listed(shown, more)


def listed(shown: Sequence[StoredItem], more: bool = False) -> dict[str, Any]:
    """One page of items, as OpenAI lists them."""
    data = [_listed(kept.body) for kept in shown]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    """An item as lists show it: with what the SDKs' types require, also if its client left it out."""
    shown = {**item, "status": item.get("status") or "completed"}
    if item.get("type") == "message":
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        content = item.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        shown["content"] = [_listed_part(part, kind) for part in parts]
    return shown


def _listed_part(part: dict[str, Any], kind: str) -> dict[str, Any]:
    shown = {**part, "type": kind} if part.get("type") == "text" else part
    return {"annotations": [], "logprobs": [], **shown} if shown.get("type") == "output_text" else shown


def jobs_of(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs
