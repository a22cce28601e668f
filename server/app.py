"""The HTTP application: routes, middleware, start and shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.middleware.cors import CORSMiddleware

from engine.errors import EngineDied, ShuttingDown
from language.constraints import Constraints
from language.constraints.threads import CompilerThreads
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer
from server import error_responses
from server.api import chat, completions, models, responses, tokens
from server.api.messages import route as messages
from server.api.responses.background import Jobs, end_interrupted
from server.dialogue.reasoning_cache import ReasoningCache
from server.dialogue.records import StoreError
from server.dialogue.seal import Seal
from server.dialogue.sqlite_store import SqliteStore
from server.dialogue.store import open_store
from server.errors import as_api_error
from server.fields.reading import HEADER as IGNORED
from server.front.allowed_hosts import AllowedHosts
from server.front.heap import Heap
from server.front.preprocessing import PreprocessingPool
from server.front.rate_limiter import RateLimiter
from server.metrics import Metrics
from server.middleware import RequestMiddleware
from server.page import Pages
from server.service import Service, TheService
from server.settings import Settings, SettingsError
from server.version import VERSION

if TYPE_CHECKING:
    from engine.worker import Worker
    from server.traces import Traces


def create_app(
    worker: Worker,
    tokenizer: Tokenizer,
    settings: Settings,
    model_id: str,
    max_context: int,
    fingerprint: str = "fp_unknown",
    summary: str = "",
    traces: Traces | None = None,
) -> FastAPI:
    """The application for a worker, which it starts and stops.

    max_context  maximum tokens of prompt and answer together
    fingerprint  identifies weights and version
    summary      what was loaded and where, for users: lines of `name: facts`
    traces       notified of each request, and closed at the end
    """

    keys = settings.api_keys()
    service = _service(worker, tokenizer, settings, model_id, max_context, fingerprint, callers=len(keys))
    # Other servers may be computing responses of a PostgreSQL store.
    if isinstance(service.store, SqliteStore):
        end_interrupted(service.store)
    jobs, heap = Jobs(settings.max_queued, settings.store_size), Heap()
    pages = Pages(summary) if settings.page else None
    app = FastAPI(
        title="gptoss",
        version=VERSION,
        lifespan=_lifespan(service, jobs, heap, pages, traces),
        docs_url=None,  # FastAPI's own page loads scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # a redirect would contain the Host that the client sent
    )
    app.state.jobs, app.state.service = jobs, service
    apis = (chat, completions, responses, messages, models, tokens)
    for router in (*(api.router for api in apis), about):
        app.include_router(router)
    if pages is not None:
        app.include_router(pages.router)
    error_responses.install(app)
    app.add_middleware(
        RequestMiddleware,
        keys=keys,
        max_body_bytes=settings.max_body_bytes,
        metrics=service.metrics,
        traces=traces,
        allowed_hosts=AllowedHosts(settings.host_names()),
        rate_limiter=RateLimiter(settings.key_requests_per_minute),
        pages=() if pages is None else pages.paths,
        heap=heap,
    )
    if settings.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "request-id", "retry-after", IGNORED],
        )
    return app


def _service(
    worker: Worker,
    tokenizer: Tokenizer,
    settings: Settings,
    model_id: str,
    max_context: int,
    fingerprint: str,
    callers: int,
) -> Service:
    """What the handlers of all APIs share.  Raises SettingsError if the store cannot be opened.

    callers  number of API keys
    """
    constraints = Constraints(tokenizer, tokenizer.end)
    seal = Seal(settings.seal_secret(), tokenizer.checksum)
    try:
        store = open_store(settings.store, settings.store_size, settings.store_age)
    except StoreError as error:
        # A URL may have a password in it.
        named = settings.store if isinstance(settings.store, Path) else "postgresql://…"
        raise SettingsError(f"--store {named}: {error}") from None
    return Service(
        worker=worker,
        tokenizer=tokenizer,
        renderer=Renderer(tokenizer),
        metrics=Metrics(worker, seal, store),
        constraints=constraints,
        compilers=CompilerThreads(constraints, settings.max_queued),
        reasoning_cache=ReasoningCache(settings.reasoning_cache_memory),
        seal=seal,
        store=store,
        preprocessing=PreprocessingPool(settings.max_queued, callers=callers),
        settings=settings,
        model_id=model_id,
        max_context=max_context,
        fingerprint=fingerprint,
        date=settings.date or date.today().isoformat(),
    )


def _lifespan(
    service: Service, jobs: Jobs, heap: Heap, pages: Pages | None, traces: Traces | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Starts the worker with the application; at the end, stops it and closes everything else."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        try:
            yield
        finally:
            await service.worker.drain(service.settings.grace)
            await jobs.close()
            service.worker.stop()
            service.compilers.close()
            service.store.close()
            heap.close()
            service.preprocessing.close()
            if traces is not None:
                await asyncio.to_thread(traces.close)
            if pages is not None:
                pages.close()

    return lifespan


about = APIRouter()


@about.get("/health")
async def health(service: TheService) -> Response:
    """Whether the engine still runs."""
    return as_api_error(EngineDied()).response() if service.worker.died else Response("ok")


@about.get("/version")
async def program() -> dict[str, str]:
    """The program's version."""
    return {"version": VERSION}


@about.get("/ready")
async def ready(service: TheService) -> Response:
    """Whether the server accepts requests: the engine runs, and no shutdown has begun."""
    if service.worker.died:
        return as_api_error(EngineDied()).response()
    return as_api_error(ShuttingDown()).response() if service.worker.draining else Response("ok")


@about.get("/metrics")
async def figures(service: TheService) -> Response:
    """All metrics, in the text format of Prometheus."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
