"""OpenTelemetry: one span for each request, with its measurements, as a child of the client's span."""

import re
import time

import httpx
import pytest

from engine.engine import Stats
from engine.errors import NonFinite
from gptoss.application import traces as traces_of
from gptoss.start import StartError
from server.app import create_app
from server.settings import Settings, SettingsError
from tests.server.fakes import Live, Pause, ScriptedWorker, final, serving

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry's SDK is not installed: the extra `otel`")

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from server.traces import Traces

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "my secret"}]}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def server(tiny_tokenizer):
    exporter = InMemorySpanExporter()
    traces = Traces("tiny", SimpleSpanProcessor(exporter), {})
    worker = ScriptedWorker()
    worker.stats = Stats
    app = create_app(worker, tiny_tokenizer, Settings(date="2025-06-28"), "tiny", 4096, traces=traces)
    with serving(app) as url:
        server = Live(tiny_tokenizer, worker, url, app)
        server.exporter = exporter
        yield server


@pytest.fixture
def spans(server):
    """The spans of this test so far; a span is created shortly after the last byte."""
    server.exporter.clear()

    def ended(number):
        end = time.monotonic() + 20
        while len(found := server.exporter.get_finished_spans()) < number:
            assert time.monotonic() < end
            time.sleep(0.002)
        assert len(found) == number
        return found

    return ended


def plays(server, script, cached_tokens=0):
    def steps(request):
        parts = [script] if isinstance(script, str) else script
        return [step for part in parts for step in (server.said(part) if isinstance(part, str) else [part])]

    server.worker.reset(steps, cached_tokens)


def test_a_span_has_the_times_the_tokens_and_the_end_of_an_answer(server, spans):
    plays(server, [Pause(0.7), final("Hello!"), Pause(0.05)], cached_tokens=12)
    before = time.time_ns()
    usage = server.http.post(CHAT, json=HI).json()["usage"]
    (span,) = spans(1)
    after = time.time_ns()
    assert span.name == "chat tiny"
    assert span.kind == SpanKind.SERVER
    told = span.attributes
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "tiny"
    assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert told["gen_ai.usage.cache_read.input_tokens"] == 12
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["http.request.method"] == "POST"
    assert told["http.route"] == told["url.path"] == CHAT
    assert told["http.response.status_code"] == 200
    whole = (span.end_time - span.start_time) / 1e9
    queue, prompt, decode = (
        told[f"gen_ai.latency.time_in_{part}"] for part in ("queue", "model_prefill", "model_decode")
    )
    assert prompt == 0.6  # as the scripted worker says
    assert 0.05 < queue < whole
    assert queue + prompt + decode == pytest.approx(whole, abs=0.01)
    assert told["gen_ai.latency.time_to_first_token"] == pytest.approx(queue + prompt)
    assert before - 10**8 < span.start_time < span.end_time < after + 10**8
    assert "secret" not in span.to_json()


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/completions", {"prompt": "a", "stream": True}, "text_completion tiny"),
        ("/v1/responses", {"input": "a"}, "chat tiny"),
        ("/v1/messages", {"max_tokens": 50, "messages": HI["messages"]}, "chat tiny"),
    ],
)
def test_each_api_has_its_operation(server, spans, path, body, name):
    plays(server, final("Hello!"))
    assert server.http.post(path, json=body).status_code == 200
    (span,) = spans(1)
    assert span.name == name
    assert span.attributes["gen_ai.usage.output_tokens"] > 0
    assert span.status.status_code == StatusCode.UNSET


def test_the_clients_span_is_the_parent(server, spans):
    plays(server, final("Hello!"))
    server.http.post(CHAT, json=HI, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    (span,) = spans(1)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT


def test_a_client_that_does_not_sample_gets_no_span(server, spans):
    plays(server, final("Hello!"))
    server.http.post(CHAT, json=HI, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    server.http.post(CHAT, json=HI)
    assert f"{spans(1)[0].context.trace_id:032x}" != TRACE


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-01", "x" * 5000, "\xff"])
def test_a_traceparent_that_is_none_begins_a_trace(server, spans, header):
    plays(server, final("Hello!"))
    sent = {"traceparent": header.encode("latin-1")}
    assert server.http.post(CHAT, json=HI, headers=sent).status_code == 200
    assert spans(1)[0].parent is None


def test_failures_are_told(server, spans):
    plays(server, [NonFinite()])
    assert server.http.post(CHAT, json=HI).status_code == 500
    server.http.post(CHAT, json=HI | {"stream": True})
    assert server.http.post(CHAT, json={}).status_code == 400
    assert server.http.get("/nowhere").status_code == 404
    whole, stream, bad, lost = spans(4)
    assert [span.status.status_code for span in (whole, stream)] == [StatusCode.ERROR] * 2
    assert whole.attributes["error.type"] == "500"
    assert stream.attributes["error.type"] == "non_finite_logits"
    assert bad.status.status_code == StatusCode.UNSET
    assert bad.name == f"POST {CHAT}"
    assert lost.name == "GET"


def test_a_client_that_leaves_is_told(server, spans):
    plays(server, [*"Hello", Pause(60), final("!")])
    with server.http.stream("POST", "/v1/completions", json={"prompt": "a", "stream": True}) as answer:
        next(answer.iter_lines())
    (span,) = spans(1)
    assert span.attributes["gen_ai.usage.output_tokens"] > 0
    assert span.attributes["gen_ai.response.finish_reasons"] == ()


def test_who_looks_after_the_server_leaves_no_spans(server, spans):
    for path in "/health", "/ready", "/metrics":
        assert server.http.get(path).status_code == 200
    server.http.get("/v1/models")
    assert spans(1)[0].name == "GET /v1/models"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x", "OTEL_RESOURCE_ATTRIBUTES": "a=b"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_without_a_place_for_them_there_are_none(environ):
    assert traces_of("tiny", environ) is None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER: must be otlp, console or none, not 'zipkin'",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf, not 'grpc'",
        ),
    ],
)
def test_what_cannot_be_done_is_told(environ, said):
    with pytest.raises(SettingsError, match=re.escape(said)):
        traces_of("tiny", environ)


def test_a_missing_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "server.traces")
    with pytest.raises(
        StartError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT needs OpenTelemetry: pip install 'gptoss\[otel\]'"
    ):
        traces_of("tiny", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})


def test_spans_reach_a_collector_and_one_that_is_gone_holds_nobody_up(tiny_tokenizer, monkeypatch):
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    came = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            came.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_): ...

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    Thread(target=collector.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    _one_request(tiny_tokenizer)
    collector.shutdown()
    collector.server_close()
    ((path, sent),) = came
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(sent).resource_spans
    assert ("service.name", "ours") in {(a.key, a.value.string_value) for a in resource.resource.attributes}
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["chat tiny"]

    began = time.monotonic()
    _one_request(tiny_tokenizer)  # nobody is there any more
    assert time.monotonic() - began < 15


def _one_request(tokenizer):
    """Start a server, send one request, and stop it."""
    import os

    worker = ScriptedWorker()
    worker.reset(lambda request: tokenizer.encode_with_specials(final("Hello!")))
    settings = Settings(date="2025-06-28")
    app = create_app(worker, tokenizer, settings, "tiny", 4096, traces=traces_of("tiny", os.environ))
    with serving(app) as url:
        assert httpx.post(url + CHAT, json=HI).status_code == 200
