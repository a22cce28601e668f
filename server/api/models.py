"""GET /v1/models: the model under each of its names, in OpenAI's format, or Anthropic's for clients that send
`anthropic-version`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request

from server.api.messages.errors import asked_by
from server.service import Service, TheService

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request, service: TheService) -> dict[str, Any]:
    every = [_model(name, request, service) for name in service.model_names]
    if asked_by(request.scope):
        ends = {"first_id": every[0]["id"], "last_id": every[-1]["id"]}
        return {"data": every, "has_more": False, **ends}
    return {"object": "list", "data": every}


@router.get("/v1/models/{id:path}")
async def model(id: str, request: Request, service: TheService) -> dict[str, Any]:
    service.check_model(id)
    return _model(id, request, service)


def _model(name: str, request: Request, service: Service) -> dict[str, Any]:
    if asked_by(request.scope):
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": datetime.fromtimestamp(service.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycle": "active",
            "max_input_tokens": service.max_context - 1,
            "max_tokens": service.max_context,
        }
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "gptoss",
        "max_model_len": service.max_context,
    }
