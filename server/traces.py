"""OpenTelemetry traces: one span for each request, off unless a variable OTEL_* names a destination.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318    to a collector, over HTTP
    OTEL_TRACES_EXPORTER=console                         to stdout, to try it

A span is created when its request has ended, from times that were recorded before, so tracing costs nothing
while the request runs.  Its parent is taken from the client's header `traceparent`.  Attributes follow
OpenTelemetry's semantic conventions for HTTP and generative AI; the four `gen_ai.latency.*`, which these do
not define yet, are named as in vLLM.  A span contains no text of a prompt or an answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.settings import SettingsError
from server.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from starlette.types import Scope

    from server.logs import Outcome

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
}
"""Path → gen_ai.operation.name."""

UNTRACED = frozenset({"/health", "/ready", "/metrics", "/page/markdown"})
"""Paths that monitoring and the page request many times a minute; they have no span."""

MAX_TEXT = 256
"""Maximum characters of a text that a client chose, such as a path; the rest is cut."""


class Traces:
    """
    model_id   the model's name in requests and answers
    processor  exports ended spans
    environ    the environment, to see whether it names the service; the SDK itself reads OTEL_SERVICE_NAME,
               OTEL_RESOURCE_ATTRIBUTES and OTEL_TRACES_SAMPLER
    """

    def __init__(self, model_id: str, processor: SpanProcessor, environ: Mapping[str, str]):
        named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        attributes = {"service.version": VERSION} | ({} if named else {"service.name": "gptoss"})
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("gptoss", VERSION)
        self._parents = TraceContextTextMapPropagator()
        self._model_id = model_id

    def finished(self, scope: Scope, request_id: str, outcome: Outcome) -> None:
        """Records the span of a request that has ended."""
        path = scope["path"]
        if path in UNTRACED:
            return
        carrier = {
            name: value.decode("latin-1")
            for name, sent in (("traceparent", b"traceparent"), ("tracestate", b"tracestate"))
            if (value := dict(scope["headers"]).get(sent)) is not None
        }
        route = getattr(scope.get("route"), "path", None)
        attributes: dict[str, Any] = {
            "http.request.method": scope["method"],
            "url.path": path[:MAX_TEXT],
            "http.response.status_code": outcome.status,
            "gptoss.request_id": request_id,
        }
        if route is not None:
            attributes["http.route"] = route
        name = f"{scope['method']} {route}" if route is not None else scope["method"]
        if outcome.figures is not None and path in OPERATIONS:
            name = f"{OPERATIONS[path]} {self._model_id}"
            attributes |= self._answered(OPERATIONS[path], outcome)
        ended_at = time.time_ns() - _nanoseconds(time.perf_counter() - outcome.ended_at)
        span = self._tracer.start_span(
            name,
            self._parents.extract(carrier),
            SpanKind.SERVER,
            attributes,
            start_time=ended_at - _nanoseconds(outcome.seconds),
        )
        if (failed := _failure(outcome)) is not None:
            span.set_attribute("error.type", failed)
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended_at)

    def _answered(self, operation: str, outcome: Outcome) -> dict[str, Any]:
        figures = outcome.figures
        assert figures is not None
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "gptoss",
            "gen_ai.request.model": self._model_id,
            "gen_ai.response.model": self._model_id,
            "gen_ai.usage.input_tokens": figures.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": figures.cached_tokens,
            "gen_ai.usage.output_tokens": figures.completion_tokens,
            "gen_ai.response.finish_reasons": tuple(figures.finish),
        }
        if (first := outcome.first_token_seconds) is not None:
            # The time to the first token without the prompt's computation: reading the body, and the queue.
            queue = max(first - figures.prompt_seconds, 0.0)
            attributes |= {
                "gen_ai.latency.time_to_first_token": first,
                "gen_ai.latency.time_in_queue": queue,
                "gen_ai.latency.time_in_model_prefill": figures.prompt_seconds,
                "gen_ai.latency.time_in_model_decode": outcome.seconds - first,
            }
        return attributes

    def close(self) -> None:
        """Exports the remaining spans; takes a few seconds at most."""
        self._provider.force_flush(3000)
        self._provider.shutdown()


def open_traces(model_id: str, environ: Mapping[str, str]) -> Traces:
    """Raises SettingsError."""
    kind = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if kind == "console":
        return Traces(model_id, BatchSpanProcessor(ConsoleSpanExporter()), environ)
    if kind != "otlp":
        raise SettingsError(f"OTEL_TRACES_EXPORTER: must be otlp, console or none, not {kind!r}")
    for name in "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL":
        if (protocol := environ.get(name) or "http/protobuf") != "http/protobuf":
            raise SettingsError(f"{name}: must be http/protobuf, not {protocol!r}")
        if name in environ:
            break
    return Traces(model_id, BatchSpanProcessor(OTLPSpanExporter(timeout=3)), environ)


def _failure(outcome: Outcome) -> str | None:
    """error.type of a failed request: its status, or an error code if the status had been sent before."""
    if outcome.status >= 500:
        return str(outcome.status)
    finish = outcome.figures.finish if outcome.figures is not None else []
    ends = {"stop", "length", "tool_calls"}
    return next((reason for reason in finish if reason not in ends), None)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
