"""The web pages: the chat page at GET /, and the API documentation at GET /docs.

They are HTML, a stylesheet and plain ES modules in files/, sent unchanged, and use the same API as any other
client.  This module has only what the pages need in addition: Markdown as HTML, and facts about the server.

The files need no API key, because they contain no data.  The requests that they send need one, as any
client's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError

from server.api.shared_fields import Body, Many
from server.errors import BodyTooLarge, bad_request
from server.page.rendering import Rendering
from server.page.snippets import snippets
from server.service import TheService
from server.version import VERSION

FILES = Path(__file__).with_name("files")

MAX_CHARACTERS = 65_536
"""Maximum characters of Markdown in one request."""

MAX_BYTES = 6 * MAX_CHARACTERS + 4096
"""Maximum bytes of its body: a character may be written as \\u and four digits."""

POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'; trusted-types page"
)
"""Nothing is loaded from or sent to other hosts, and no text is executed.

Only files/markdown.js, which parses HTML, may create the trusted-types policy named here.
"""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",  # revalidated each time, with the ETag
}

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

INDEX = {
    "object": "index",
    "chat_completions": "/v1/chat/completions",
    "models": "/v1/models",
    "health": "/health",
    "openapi": "/openapi.json",
    "docs": "/docs",
}


class MarkdownBody(Body):
    texts: Many[Annotated[str, Field(max_length=MAX_CHARACTERS)]] = Field(min_length=1, max_length=256)


@dataclass(frozen=True, slots=True)
class File:
    """One file with its type."""

    body: bytes
    type: str

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'

    def response(self, request: Request) -> Response:
        headers = {**HEADERS, "etag": self.tag}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type=self.type)


class Pages:
    """The pages' routes (`router`), and the paths among them that need no key (`paths`).

    The owner must close it.
    """

    def __init__(self, summary: str):
        """
        summary  what was loaded, and where: lines of `name: facts`
        """
        self._facts = [line.split(": ", 1) for line in summary.splitlines() if ": " in line]
        self._rendering = Rendering()
        files = {
            path.name: File(path.read_bytes(), TYPES[path.suffix])
            for path in sorted(FILES.iterdir())
            if path.suffix in TYPES
        }
        self.router = APIRouter(include_in_schema=False)
        self._add("/", files.pop("index.html"), self._index)
        self._add("/docs", files.pop("docs.html"))
        for name, file in files.items():
            self._add(f"/page/{name}", file)
        self.paths = frozenset({"/", "/docs", *(f"/page/{name}" for name in files)})
        self.router.add_api_route("/page/markdown", self._markdown, methods=["POST"])
        self.router.add_api_route("/page/server", self._server, methods=["GET"])

    def close(self) -> None:
        self._rendering.close()

    def _add(self, path: str, file: File, endpoint: Any = None) -> None:
        async def send(request: Request) -> Response:
            return file.response(request) if endpoint is None else endpoint(request, file)

        self.router.add_api_route(path, send, methods=["GET", "HEAD"], response_model=None)

    def _index(self, request: Request, page: File) -> Response:
        """The page; for a program that asks for JSON, a list of links."""
        accepted = request.headers.get("accept", "")
        if "application/json" in accepted and "text/html" not in accepted:
            response: Response = JSONResponse(INDEX)
        else:
            response = page.response(request)
        response.headers["vary"] = "accept"
        return response

    async def _markdown(self, request: Request) -> dict[str, Any]:
        """Reads its body itself, because it must neither wait for a preprocessing slot nor hold one while it
        waits for the renderer (server/front/bodies.py).
        """
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise bad_request("the body must be JSON, with content-type: application/json", None)
        body = await request.body()
        if len(body) > MAX_BYTES:
            raise BodyTooLarge(MAX_BYTES)
        try:
            texts = MarkdownBody.model_validate_json(body).texts
        except ValidationError as error:
            raise bad_request(f"texts: {error.errors()[0]['msg']}", "texts") from None
        if sum(map(len, texts)) > MAX_CHARACTERS:
            raise bad_request(f"texts: more than {MAX_CHARACTERS} characters together", "texts")
        return {"texts": await self._rendering.render(texts)}

    async def _server(self, request: Request, service: TheService) -> dict[str, Any]:
        paths = request.app.openapi()["paths"]
        needs_key = bool(service.settings.api_keys())
        return {
            "model": service.model_id,
            "version": VERSION,
            "max_context": service.max_context,
            "facts": self._facts,
            "snippets": snippets(service.model_id, service.max_context, needs_key, paths),
        }
