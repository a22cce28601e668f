"""The complete application: the model, its engine on a thread of its own, and the HTTP API.

It is served on a port (serve.py), called in this process (batch/), or run by another server (deploy/ray/).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI

from engine.worker import Worker
from gptoss.assembly import Assembled, assemble
from gptoss.start import StartError
from server.app import create_app
from server.settings import Settings

if TYPE_CHECKING:
    from server.traces import Traces

DESTINATIONS = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Variables of OpenTelemetry that say where traces go; without one of them there are no traces."""


@dataclass(frozen=True, slots=True)
class Application:
    """
    app        starts and stops the worker in its lifespan
    assembled  the engine, and facts about the loaded model
    """

    app: FastAPI
    worker: Worker
    assembled: Assembled


def application(settings: Settings, environ: Mapping[str, str] | None = None) -> Application:
    """environ: the process's environment by default.  Raises StartError or SettingsError."""
    assembled = assemble(settings)
    worker = Worker(assembled.engine, callers=len(settings.api_keys()))
    if assembled.others is not None:
        assembled.others.on_lost(worker.fail)
    app = create_app(
        worker,
        assembled.tokenizer,
        settings,
        assembled.model_id,
        assembled.max_context,
        assembled.fingerprint,
        assembled.summary,
        traces(assembled.model_id, os.environ if environ is None else environ),
    )
    app.openapi()  # described and kept now: it takes 0.2 s, of the event loop at the first unknown path
    return Application(app, worker, assembled)


def traces(model_id: str, environ: Mapping[str, str]) -> Traces | None:
    """Raises StartError or SettingsError."""
    asked = next((name for name in DESTINATIONS if environ.get(name)), None)
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if asked is None or disabled or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    try:
        from server.traces import open_traces
    except ImportError as error:
        raise StartError(f"{asked} needs OpenTelemetry: pip install 'gptoss[otel]' ({error})") from None
    return open_traces(model_id, environ)
