"""/v1/conversations: items that several responses share, and that clients may change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from server.api.responses.body import Metadata
from server.api.responses.create import MAX_ID, KnownItems, missing, owner_of, stored_form
from server.api.responses.history import History
from server.api.responses.stored import Limit, Order, json_of, listed, page
from server.api.responses.tools import tools_of
from server.api.responses.writer import new_id
from server.api.shared_fields import Body, ManyObjects
from server.dialogue.records import Group, StoredItem
from server.errors import ApiError
from server.front.bodies import JsonRoute
from server.service import Service, TheService

router = APIRouter(route_class=JsonRoute)

MAX_ITEMS = 20
"""Maximum items that one request may add, as with OpenAI."""

NewItems = Annotated[ManyObjects[dict[str, Any]], Field(max_length=MAX_ITEMS)]


class NewConversation(Body):
    items: NewItems | None = None
    metadata: Metadata | None = None


class ChangedConversation(Body):
    metadata: Metadata | None = None


class AddedItems(Body):
    items: NewItems


RETURNS: dict[int | str, dict[str, Any]] = {
    200: {
        "links": {
            name: {"operationId": f"conversation_{name}", "parameters": {"id": "$response.body#/id"}}
            for name in ("retrieve", "update", "delete", "add", "items")
        }
    }
}


@router.post("/v1/conversations", responses=RETURNS)
async def create(
    request: Request, service: TheService, body: NewConversation | None = None
) -> dict[str, Any]:
    owner = owner_of(request)
    asked = body or NewConversation()
    conversation: dict[str, Any] = {
        "id": new_id("conv"),
        "object": "conversation",
        "created_at": int(time.time()),
        "metadata": asked.metadata or {},
    }
    group = Group(conversation["id"], "conversation", "", None, conversation)

    def keep() -> None:
        if not service.store.put(owner, group, _checked(asked.items or (), owner, service)):
            raise _too_large(service)

    await service.store.run(keep)
    return conversation


@router.get("/v1/conversations/{id}", operation_id="conversation_retrieve")
async def retrieve(id: str, request: Request, service: TheService) -> dict[str, Any]:
    return await service.store.run(find, owner_of(request), id, service)


@router.post("/v1/conversations/{id}", operation_id="conversation_update")
async def update(id: str, body: ChangedConversation, request: Request, service: TheService) -> dict[str, Any]:
    owner = owner_of(request)

    def change() -> dict[str, Any]:
        conversation = {**find(owner, id, service), "metadata": body.metadata or {}}
        service.store.change(owner, id, conversation)
        return conversation

    return await service.store.run(change)


@router.delete("/v1/conversations/{id}", operation_id="conversation_delete")
async def delete(id: str, request: Request, service: TheService) -> dict[str, Any]:
    owner = owner_of(request)

    def forget() -> None:
        find(owner, id, service)
        service.store.delete(owner, id)

    await service.store.run(forget)
    return {"id": id, "object": "conversation.deleted", "deleted": True}


@router.post("/v1/conversations/{id}/items", operation_id="conversation_add")
async def add(id: str, body: AddedItems, request: Request, service: TheService) -> Response:
    owner = owner_of(request)

    def keep() -> list[StoredItem]:
        find(owner, id, service)
        items = _checked(body.items, owner, service)
        if not service.store.add(owner, id, items):
            raise _too_large(service)
        return items

    return await json_of(lambda: listed(keep()), service)


@router.get("/v1/conversations/{id}/items", operation_id="conversation_items")
async def items(
    id: str,
    request: Request,
    service: TheService,
    limit: Limit = 20,
    order: Order = "desc",
    after: Annotated[str | None, Query(max_length=MAX_ID)] = None,
) -> Response:
    owner = owner_of(request)

    def found() -> dict[str, Any]:
        find(owner, id, service)
        return page(owner, id, service, limit, order, after)

    return await json_of(found, service)


@router.get("/v1/conversations/{id}/items/{item_id}")
async def item(id: str, item_id: str, request: Request, service: TheService) -> Response:
    owner = owner_of(request)

    def found() -> dict[str, Any]:
        find(owner, id, service)
        if (kept := service.store.find(owner, id, item_id)) is None:
            raise _no_item(item_id)
        item: dict[str, Any] = listed([kept])["data"][0]
        return item

    return await json_of(found, service)


@router.delete("/v1/conversations/{id}/items/{item_id}")
async def remove(id: str, item_id: str, request: Request, service: TheService) -> dict[str, Any]:
    owner = owner_of(request)

    def take_out() -> dict[str, Any]:
        conversation = find(owner, id, service)
        if not service.store.remove(owner, id, item_id):
            raise _no_item(item_id)
        return conversation

    return await service.store.run(take_out)


def find(owner: bytes, id: str, service: Service) -> dict[str, Any]:
    """Raises ApiError."""
    group = service.store.get(owner, id)
    if group is None or group.kind != "conversation":
        raise missing("conversation", id, None)
    return group.body


def _checked(items: Sequence[dict[str, Any]], owner: bytes, service: Service) -> list[StoredItem]:
    """Items as they are stored.  Raises ApiError if one of them could not be part of a prompt."""
    History(tools_of(()), KnownItems(service, owner), service.renderer).add_all(items, "items")
    known = KnownItems(service, owner)
    return [StoredItem(stored_form(item, known)) for item in items]


def _too_large(service: Service) -> ApiError:
    limit = service.settings.store_size
    message = f"this conversation would be larger than --store-size, {limit} bytes"
    return ApiError(413, message, param="items", code="conversation_too_large")


def _no_item(id: str) -> ApiError:
    return ApiError(404, f"there is no item {id[:100]!r} in this conversation", code="item_not_found")
