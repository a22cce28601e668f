"""Errors in Anthropic's format.

    {"type": "error", "error": {"type": …, "message": …}, "request_id": …}

There is no field for the parameter: the message begins with its path.  `details` in `error` has a word for
programs where Anthropic's SDKs look for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastapi import Response
from starlette.types import Scope

from engine.errors import PromptTooLong
from server.errors import RETRY_AFTER_SECONDS, ApiError
from server.sse import dumps

OVERLOADED = 529
"""Anthropic's status for a server that cannot answer now."""

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}

FIELDS = {
    ".function.parameters": ".input_schema",
    "response_format.json_schema.schema": "output_config.format.schema",
    "response_format": "output_config.format",
}
"""Another API's name of a field → the name in this API.  Schemas are checked by code that all APIs share."""


class ThreadRefused(ApiError):
    """Anthropic can keep a conversation, so that a request has only what is new.  This server does not.

    The SDKs' tool runners ask for it first; after this error they send the whole conversation each time.
    """

    details: ClassVar[Mapping[str, Any]] = {
        "error_code": "thread_unsupported_request",
        "unsupported": ["thread"],
    }

    def __init__(self) -> None:
        message = "thread: this server keeps no conversation of this API; send all of it in messages"
        super().__init__(400, message, param="thread", code="unsupported_value")


def asked_by(scope: Scope) -> bool:
    """Whether a request is for Anthropic's API.  For /v1/models, in both APIs, the version header decides."""
    path = scope["path"]
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return True
    of_models = path == "/v1/models" or path.startswith("/v1/models/")
    return of_models and any(name == b"anthropic-version" for name, _ in scope["headers"])


def body(error: ApiError, request_id: str) -> Mapping[str, Any]:
    status = _status(error)
    kind = TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    fields: dict[str, Any] = {"type": kind, "message": _message(error)}
    if isinstance(error, ThreadRefused):
        fields["details"] = error.details
    return {"type": "error", "error": fields, "request_id": request_id}


def response(error: ApiError, request_id: str) -> Response:
    headers = dict(error.headers)
    if _status(error) in (429, OVERLOADED):
        headers.setdefault("retry-after", str(RETRY_AFTER_SECONDS))
    return Response(
        dumps(body(error, request_id)), _status(error), headers=headers, media_type="application/json"
    )


def _status(error: ApiError) -> int:
    return OVERLOADED if error.status == 503 else error.status


def _message(error: ApiError) -> str:
    cause = error.__cause__
    if isinstance(cause, PromptTooLong):  # Claude Code shortens the conversation only after exactly this text
        return f"prompt is too long: {cause.tokens} tokens > {cause.limit} maximum"
    param, message = error.param or "", error.message
    if param not in message:
        message = f"{param}: {message}"
    for field, here in FIELDS.items():
        message = message.replace(field, here)
    return message
