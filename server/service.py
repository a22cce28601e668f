"""The objects that the routes use.  They are created once at startup; routes get them from the app."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from language.constraints import Constraints
from language.constraints.threads import CompilerThreads
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer
from server.dialogue.reasoning_cache import ReasoningCache
from server.dialogue.seal import Seal
from server.dialogue.store import Store
from server.errors import MAX_MESSAGE, ApiError
from server.fields.reading import LoggedOnce
from server.front.preprocessing import PreprocessingPool
from server.metrics import Metrics
from server.settings import Settings

if TYPE_CHECKING:
    from engine.worker import Worker


@dataclass(frozen=True, slots=True)
class Service:
    """
    model_id      the model's name in requests and answers
    max_context   longest prompt and answer together, tokens
    fingerprint   identifies weights and version
    date          YYYY-MM-DD, the current date in the system message
    created       when the server started, Unix seconds
    logged_once   names of ignored fields that have been logged
    """

    worker: Worker
    tokenizer: Tokenizer
    renderer: Renderer
    metrics: Metrics
    constraints: Constraints
    compilers: CompilerThreads
    reasoning_cache: ReasoningCache
    seal: Seal
    store: Store
    preprocessing: PreprocessingPool
    settings: Settings
    model_id: str
    max_context: int
    fingerprint: str
    date: str
    created: int = field(default_factory=lambda: int(time.time()))
    logged_once: LoggedOnce = field(default_factory=LoggedOnce)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names that requests may use for the model, its own name first."""
        return tuple(dict.fromkeys((self.model_id, *self.settings.served_model_name)))

    def check_model(self, asked: str | None) -> None:
        if asked is not None and asked not in self.model_names:
            names = " or ".join(map(repr, self.model_names))
            message = f"there is no model {asked[:MAX_MESSAGE]!r} here; there is {names}"
            raise ApiError(404, message, param="model", code="model_not_found")

    @property
    def timeout_seconds(self) -> float | None:
        return self.settings.request_timeout or None


async def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(service_of)]
