"""Errors in HTTP: which status each of the engine's errors has, and OpenAI's format of an error.

    {"error": {"message": …, "type": …, "param": …, "code": …}}

(Anthropic's format is in api/messages/errors.py.)  Before the first byte an error is a status; after it, the
same body is an event of the stream (streaming.py).  A message tells the client what was wrong and what would
be right.  It never contains our paths, addresses or tracebacks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response
from fastapi.exceptions import HTTPException, RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from engine.errors import (
    ConstraintFailed,
    DeadlineExceeded,
    EmptyPrompt,
    EngineDied,
    EngineError,
    NonFinite,
    OutOfMemory,
    PromptTooLong,
    QueueFull,
    ShuttingDown,
    UnknownToken,
)
from language.constraints import SchemaError
from language.harmony.messages import ConversationError

log = logging.getLogger("gptoss.server")

RETRY_AFTER_SECONDS = 5
"""Retry-After of errors that are temporary, or end with a restart of the server."""


class ApiError(Exception):
    """An error response.

    param  the field of the request to change, such as `messages[0].content`
    code   identifies the error for programs
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        message = _shortened(message, MAX_MESSAGE)
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.param = None if param is None else _shortened(param, MAX_PARAM)
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        return Response(json.dumps(self.body), self.status, self.headers, media_type="application/json")


MAX_MESSAGE, MAX_PARAM = 1000, 200
"""Characters; both may quote the request, which may have megabytes."""


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


TYPES = {401: "authentication_error", 429: "rate_limit_error"}

STATUSES: dict[type[EngineError], tuple[int, str]] = {
    PromptTooLong: (400, "context_length_exceeded"),
    EmptyPrompt: (400, "empty_prompt"),
    UnknownToken: (400, "unknown_token"),
    QueueFull: (429, "rate_limit_exceeded"),
    ShuttingDown: (503, "shutting_down"),
    EngineDied: (503, "engine_died"),
    OutOfMemory: (503, "out_of_memory"),
    DeadlineExceeded: (504, "deadline_exceeded"),
    NonFinite: (500, "non_finite_logits"),
    ConstraintFailed: (400, "constraint_failed"),  # the schema of the request
}


def bad_request(message: str, param: str | None) -> ApiError:
    return ApiError(400, message, param=param, code="invalid_value")


def unsupported(message: str, param: str) -> ApiError:
    """The request is valid, but asks for something that this server does not have."""
    return ApiError(400, message, param=param, code="unsupported_value")


def as_api_error(error: Exception) -> ApiError:
    """The response for `error`.  An unexpected exception gets a general message without details."""
    match error:
        case ApiError():
            return error
        case ConversationError() | SchemaError():
            return bad_request(str(error), error.param)
        case EngineError():
            status, code = STATUSES.get(type(error), (500, "engine_error"))
            wait = error.retry_after_seconds if isinstance(error, QueueFull) else RETRY_AFTER_SECONDS
            headers = {"retry-after": str(wait)} if status in (429, 503) else {}
            return ApiError(status, str(error), code=code, headers=headers)
        case RequestValidationError():
            return _from_validation(error.errors(), error.body)
        case BodyUnfit():
            return error.error
        case StarletteHTTPException():
            return _from_http(error)
    return ApiError(500, "the server failed on this request; its log has the reason", code="internal_error")


def _from_http(error: StarletteHTTPException) -> ApiError:
    """Errors of the framework: no such path, no such method, a body that cannot be read."""
    codes = {
        404: "unknown_url",
        405: "method_not_allowed",
        408: "body_too_slow",
        413: "body_too_large",
    }
    messages = {404: "there is no such endpoint", 405: "this endpoint has no such method"}
    message = messages.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, code=codes.get(error.status_code), headers=error.headers)


def _from_validation(errors: Sequence[Mapping[str, Any]], body: Any) -> ApiError:
    """The first wrong field, with all its validation messages.

    Of a field that may have several types, what is wrong inside of it says more than that it is no text.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {first['ctx']['error']}", code="invalid_json")
    if first["loc"][0] in ("query", "path", "header"):
        name = str(first["loc"][-1])
        return bad_request(f"{name}: {_validation_message(first)}", name)
    if not isinstance(body, dict):
        hint = "; is its content-type application/json?" if isinstance(body, bytes) else ""
        return ApiError(400, f"the body must be a JSON object{hint}", code="invalid_json")
    params = [_param(error, body) for error in errors]
    param = next((each for each in params if each.startswith((f"{params[0]}.", f"{params[0]}["))), params[0])
    here = (error for error, each in zip(errors, params, strict=True) if each == param)
    messages = dict.fromkeys(_validation_message(error) for error in here)
    return bad_request(f"{param}: {', or '.join(messages)}", param)


def _validation_message(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _param(error: Mapping[str, Any], body: Any) -> str:
    """`("body", "messages", 0, "user", "content")` → `messages[0].content`.

    Pydantic inserts the names of union branches between those of fields; only the body tells them apart.
    """
    path, here, loc = "", body, error["loc"]
    missing = error["type"] == "missing"
    for i, part in enumerate(loc[1:], start=2):
        if isinstance(part, int) and isinstance(here, list) and part < len(here):
            path, here = f"{path}[{part}]", here[part]
        elif (
            isinstance(part, str) and isinstance(here, dict) and (part in here or (missing and i == len(loc)))
        ):
            path, here = f"{path}.{part}" if path else part, here.get(part)
    return path


class BodyRefused(HTTPException):
    """Raised while the body is read.  A subclass of HTTPException, because FastAPI wraps all others there."""


class BodyUnfit(BodyRefused):
    """The body was read, but is refused before it is validated."""

    def __init__(self, error: ApiError):
        super().__init__(error.status, error.message)
        self.error = error


class BodyTooLarge(BodyRefused):
    def __init__(self, limit: int):
        super().__init__(413, f"the body is longer than {limit} bytes", headers={"connection": "close"})


class BodyTooSlow(BodyRefused):
    def __init__(self, seconds: float):
        super().__init__(
            408, f"the body did not arrive within {seconds:g} s", headers={"connection": "close"}
        )
