"""Errors as HTTP responses, in the format of the API that was called (OpenAI's or Anthropic's)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Scope

from engine.errors import EngineError
from language.constraints import SchemaError
from language.harmony.messages import ConversationError
from server.api.messages import errors as anthropic
from server.errors import ApiError, as_api_error


def error_response(error: Exception, scope: Scope) -> Response:
    api_error = as_api_error(error)
    _use_the_clients_names(api_error, scope["state"].get("written", {}))
    if anthropic.asked_by(scope):
        return anthropic.response(api_error, scope["state"]["request_id"])
    return api_error.response()


def _use_the_clients_names(error: ApiError, written: Mapping[str, str]) -> None:
    """If the client used another name of a field, put that name into the error (server/fields/reading.py).

    written  our name → the client's
    """
    for ours, theirs in written.items():
        param = error.param or ""
        if param == ours or param.startswith((f"{ours}.", f"{ours}[")):
            error.param = theirs + param[len(ours) :]
            if error.message.startswith(ours):
                error.message = theirs + error.message[len(ours) :]
            return


LONGEST_SHOWN = 200
"""Characters of the requested path that an error message repeats, at most."""


def install(app: FastAPI) -> None:
    """Answer every exception of a route in its API's format.  An unexpected one passes on to the middleware,
    which logs it once.
    """

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, StarletteHTTPException) and error.status_code == 404:
            return error_response(_no_such_endpoint(error, request, app), request.scope)
        return error_response(error, request.scope)

    for kind in (
        ApiError,
        ConversationError,
        SchemaError,
        EngineError,
        RequestValidationError,
        StarletteHTTPException,
    ):
        app.add_exception_handler(kind, answer)


def _no_such_endpoint(error: StarletteHTTPException, request: Request, app: FastAPI) -> ApiError:
    """404, with the most similar endpoint if there is one."""
    asked = request.url.path[:LONGEST_SHOWN]
    known = app.openapi()["paths"]
    api_error = as_api_error(error)
    if near := difflib.get_close_matches(asked, known, n=1, cutoff=0.8):
        api_error.message = f"{asked}: there is no such endpoint; did you mean {near[0]}?"
    return api_error
