"""An error as a response, in the words of the API that was asked."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Scope

from engine.errors import EngineError
from language.constraints import SchemaError
from language.harmony.messages import ConversationError
from server.api.messages import errors as anthropic
from server.errors import ApiError, as_api_error


def refusal(error: Exception, scope: Scope) -> Response:
    told = as_api_error(error)
    if anthropic.asked_by(scope):
        return anthropic.response(told, scope["state"]["request_id"])
    return told.response()


def install(app: FastAPI) -> None:
    """Answer every exception of a route in its API's shape.  What nobody expected passes on to the gate,
    which logs it once.
    """

    async def answer(request: Request, error: Exception) -> Response:
        return refusal(error, request.scope)

    for kind in (
        ApiError,
        ConversationError,
        SchemaError,
        EngineError,
        RequestValidationError,
        StarletteHTTPException,
    ):
        app.add_exception_handler(kind, answer)
