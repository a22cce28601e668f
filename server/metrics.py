"""Metrics for Prometheus: GET /metrics.

Metrics that vLLM also has carry its names, with our prefix, so that dashboards need only a search and
replace.  Gauges and token counts are the engine's own, read at each scrape.  Latencies are measured in the
server, because that is what clients experience.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from engine.worker import Worker
    from server.dialogue.seal import Seal
    from server.dialogue.store import Store
    from server.logs import Outcome

PREFIX = "gptoss"

FIRST_TOKEN_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
BETWEEN_TOKENS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5)
WHOLE_ANSWER_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """The metrics of this process, in their own registry."""

    def __init__(self, worker: Worker, seal: Seal, store: Store):
        self._registry = CollectorRegistry()
        self._registry.register(EngineFigures(worker))
        self._registry.register(StoreFigures(seal, store))
        self.between_tokens = self._histogram(
            "inter_token_latency_seconds", "time between two tokens of an answer", BETWEEN_TOKENS_SECONDS
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "time from the request to its first token", FIRST_TOKEN_SECONDS
        )
        self._whole_answer = self._histogram(
            "e2e_request_latency_seconds",
            "time from the request to the end of its answer",
            WHOLE_ANSWER_SECONDS,
        )
        self._successes = self._counter(
            "request_success", "finished answers, by reason", ("finished_reason",)
        )
        self._responses = self._counter(
            "http_responses", "HTTP responses, by status; 499: the client disconnected", ("status",)
        )
        self._recoveries = self._counter(
            "harmony_recoveries", "deviations from the harmony format that were repaired"
        )

    def finished(self, outcome: Outcome) -> None:
        """Count a finished request."""
        self._responses.labels(str(outcome.status)).inc()
        if outcome.first_token_seconds is not None:
            self._first_token.observe(outcome.first_token_seconds)
        if outcome.figures is None:
            return
        self._recoveries.inc(outcome.figures.recoveries)
        if outcome.figures.finish:
            self._whole_answer.observe(outcome.seconds)
        for reason in outcome.figures.finish:
            self._successes.labels(reason).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"{PREFIX}_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", meaning, buckets=buckets, registry=self._registry)


class StoreFigures(Collector):
    """Metrics of the store, and of the encrypted chains of thought that clients send back."""

    def __init__(self, seal: Seal, store: Store):
        self._seal, self._store = seal, store

    def collect(self) -> Iterator[Metric]:
        seals = CounterMetricFamily(
            f"{PREFIX}_seals", "encrypted chains of thought that clients sent back", labels=("outcome",)
        )
        seals.add_metric(("opened",), self._seal.opened)
        seals.add_metric(("refused",), self._seal.refused)
        yield seals
        count, size = self._store.count, self._store.size
        yield GaugeMetricFamily(f"{PREFIX}_store_objects", "stored responses and conversations", count)
        yield GaugeMetricFamily(
            f"{PREFIX}_store_bytes", "size of the stored responses and conversations", size
        )


class EngineFigures(Collector):
    """The engine's Stats as of its latest step."""

    def __init__(self, worker: Worker):
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        stats = self._worker.stats()
        used = 1 - stats.pages_free / stats.pages_total if stats.pages_total else 0.0
        gauges = (
            ("num_requests_running", "sequences in the current step", stats.running),
            ("num_requests_waiting", "requests in the queue", stats.waiting),
            ("kv_cache_usage_perc", "pages held by running sequences, from 0 to 1", used),
            ("prefix_cache_disk_bytes", "size of the prefix cache on disk", stats.disk_bytes),
        )
        counters = (
            ("prompt_tokens", "prompt tokens of answered requests", stats.prompt_tokens),
            ("generation_tokens", "tokens sampled", stats.generation_tokens),
            ("prefix_cache_queries", "prompt tokens looked up in the prefix cache", stats.prefix_queries),
            ("prefix_cache_hits", "prompt tokens found in the prefix cache", stats.prefix_hits),
            (
                "prefix_cache_disk_hits",
                "prompt tokens whose pages were read from disk",
                stats.prefix_disk_hits,
            ),
            (
                "prefix_cache_disk_faults",
                "files of the prefix cache that could not be read or written",
                stats.disk_faults,
            ),
            (
                "prompt_tokens_computed",
                "prompt tokens that were not in the prefix cache, and so were computed",
                stats.prompt_tokens_computed,
            ),
            ("prompt_seconds", "seconds spent computing them", stats.prompt_seconds),
            (
                "num_preemptions",
                "sequences that were preempted and must be computed again",
                stats.preemptions,
            ),
            ("engine_steps", "steps of the engine", stats.steps),
        )
        for name, meaning, value in gauges:
            yield GaugeMetricFamily(f"{PREFIX}_{name}", meaning, value)
        for name, meaning, value in counters:
            yield CounterMetricFamily(f"{PREFIX}_{name}", meaning, value)
