"""Reads the body of a request: checks its size before parsing it, and stops if the client disconnects.

A parsed body takes much more memory than its bytes, and parsing and validating it takes long.  So a large
body waits for a slot (server/front/preprocessing.py), and is processed on a thread.  First its arrays,
objects and elements, which determine these costs, are counted in the raw bytes, which is quick.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.types import Receive

from engine.errors import EngineError
from server.errors import ApiError, BodyUnfit, as_api_error, bad_request
from server.fields import reading
from server.fields.rows import Api
from server.front.preprocessing import PreprocessingPool
from server.middleware import CLIENT_LEFT

if TYPE_CHECKING:
    from server.service import Service
    from server.settings import Settings

LARGE_BODY = 16 * 2**10
"""A body of this many bytes or more waits for a slot.  Less text is tokenised in a few milliseconds."""

MAX_CONTAINERS = 100_000
"""Maximum arrays and objects in one body."""

MAX_PAIRS = 100_000
"""Maximum names with values, in all objects of a body together."""

MAX_ELEMENTS = 400_000
"""Maximum elements of all arrays and objects of a body together; long lists of token ids need the most."""


COUNTED_BYTES = 64 * 2**10
"""The counts are compared with the limits after each slice of this size."""

Validate = Callable[[Any], tuple[Any, Any]]


class CountedRequest(Request):
    """A request whose JSON is strictly valid and within the limits: no NaN, no unpaired surrogates, bounded
    depth, numbers of bounded length.
    """

    def __init__(
        self,
        request: Request,
        opened: AsyncExitStack,
        validate: Validate | None = None,
        api: Api | None = None,
    ):
        """
        opened    releases the slot that a large body waits for
        validate  a parsed body → what the endpoint gets, and errors
        api       the API whose fields the body has; None: the body is not translated
        """
        super().__init__(request.scope, request.receive)
        self._opened, self._validate, self._api = opened, validate, api
        self.read = asyncio.Event()  # from then on, `left` can tell whether the client is still there

    async def body(self) -> bytes:
        body = await super().body()
        self.read.set()
        return body

    async def json(self) -> Any:
        """The parsed body.  A large body is already validated here, on a thread; FastAPI uses the result as
        it is.
        """
        body = await self.body()
        try:
            if len(body) < LARGE_BODY:
                return self._parsed(body)
            pool: PreprocessingPool = self.app.state.service.preprocessing
            await self._opened.enter_async_context(pool.slot(self.state.caller))
            pool.mark_slot_held()
            return await pool.run(self._validated, body)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None
        except (ApiError, EngineError) as error:
            raise BodyUnfit(as_api_error(error)) from None

    def _parsed(self, body: bytes) -> Any:
        parsed = from_json(body, allow_inf_nan=False)
        if isinstance(parsed, dict):
            check_lists(parsed, self.app.state.service.settings)
            if self._api is not None:
                return self._translated(parsed, self._api)
        return parsed

    def _validated(self, body: bytes) -> Any:
        check_counts(body)
        parsed = self._parsed(body)
        if self._validate is None:
            return parsed
        value, errors = self._validate(parsed)
        if errors:
            raise as_api_error(RequestValidationError(errors, body=parsed))
        return value

    def _translated(self, body: Mapping[str, Any], api: Api) -> reading.Translated:
        """The body with our names of fields.  Ignored fields are named in a header, and once in the log."""
        service: Service = self.app.state.service
        translated = reading.read(body, api, service.settings.strict_fields)
        self.state.written = translated.written
        if translated.ignored:
            self.state.ignored = translated.ignored
            service.logged_once.log(api, translated.ignored)
        return translated


class JsonRoute(APIRoute):
    """A route whose body is read through CountedRequest, and which ends when its client leaves."""

    def get_route_handler(self) -> Any:
        handle = super().get_route_handler()
        api = reading.APIS.get(self.path)
        field = self.body_field
        validate = None if field is None else partial(field.validate, loc=("body",))

        async def counted(request: Request) -> Any:
            async with AsyncExitStack() as opened:
                asked = CountedRequest(request, opened, validate, api)
                try:
                    return await unless_left(handle(asked), asked)
                except Exception as error:
                    forget_locals(error)
                    raise
                finally:
                    request.state.body_parsed()

        return counted


def forget_locals(error: BaseException) -> None:
    """Clear the variables of the functions that this error has left.

    FastAPI's functions, and tasks, refer to the error that refers to them.  So the body among their
    variables, 8 MiB of a client that left, would stay until a full garbage collection, which is rare.
    """
    seen: set[int] = set()  # a chain of causes may be a circle
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        each = each.__cause__ or each.__context__


async def unless_left(answering: Awaitable[Response], request: CountedRequest) -> Response:
    """The response.  If the client leaves before, the work is cancelled, and the response is empty (499, for
    the log).
    """
    answer = asyncio.ensure_future(answering)
    leaving = asyncio.ensure_future(_left_after_reading(request))
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else Response(status_code=CLIENT_LEFT)
    finally:
        leaving.cancel()
        if not answer.done():
            answer.cancel()
            await asyncio.wait({answer})


async def _left_after_reading(request: CountedRequest) -> None:
    await request.read.wait()
    await left(request.receive)


async def left(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def check_counts(body: bytes) -> None:
    """Raises ApiError if this JSON has more parts than the limits allow.  Invalid JSON may pass."""
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # so that each quote begins or ends a string
    containers = pairs = elements = 0
    in_string = 0
    for start in range(0, len(bare), COUNTED_BYTES):  # in slices, so that other threads run in between
        pieces = bare[start : start + COUNTED_BYTES].split(b'"')
        outside = b"".join(pieces[in_string::2])
        in_string = (in_string + len(pieces) - 1) % 2
        containers += outside.count(b"[") + outside.count(b"{")
        pairs += outside.count(b":")
        elements += outside.count(b",")
        if containers > MAX_CONTAINERS:
            raise _too_much(f"{MAX_CONTAINERS} arrays and objects")
        if pairs > MAX_PAIRS:
            raise _too_much(f"{MAX_PAIRS} names")
        if elements > MAX_ELEMENTS:
            raise _too_much(f"{MAX_ELEMENTS} elements")


def _too_much(limit: str) -> ApiError:
    return ApiError(400, f"the body has more than {limit}", code="body_too_complex")


def check_lists(body: Mapping[str, Any], settings: Settings) -> None:
    """Raises ApiError if one of the lists is longer than this server takes."""
    for name, limit in (
        ("messages", settings.max_messages),
        ("input", settings.max_messages),
        ("instructions", settings.max_messages),
        ("tools", settings.max_tools),
        ("functions", settings.max_tools),
    ):
        given = body.get(name)
        if isinstance(given, list) and len(given) > limit:
            raise bad_request(f"{name}: {len(given)} of them; at most {limit} in one request", name)
