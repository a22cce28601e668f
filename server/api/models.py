"""GET /v1/models: the model, in OpenAI's format, or Anthropic's for clients that send `anthropic-version`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request

from server.api.messages.errors import asked_by
from server.service import Service, TheService

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request, service: TheService) -> dict[str, Any]:
    only = _model(request, service)
    if asked_by(request.scope):
        return {"data": [only], "has_more": False, "first_id": only["id"], "last_id": only["id"]}
    return {"object": "list", "data": [only]}


@router.get("/v1/models/{id:path}")
async def model(id: str, request: Request, service: TheService) -> dict[str, Any]:
    service.check_model(id)
    return _model(request, service)


def _model(request: Request, service: Service) -> dict[str, Any]:
    if asked_by(request.scope):
        return {
            "type": "model",
            "id": service.model_id,
            "display_name": service.model_id,
            "created_at": datetime.fromtimestamp(service.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycle": "active",
            "max_input_tokens": service.max_context - 1,
            "max_tokens": service.max_context,
        }
    return {
        "id": service.model_id,
        "object": "model",
        "created": service.created,
        "owned_by": "gptoss",
        "max_model_len": service.max_context,
    }
