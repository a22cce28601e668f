"""GET /metrics has the right values in Prometheus' format, and its gauges return to 0."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench import load
from engine.engine import Stats
from server.metrics import EngineFigures
from server.settings import Settings
from tests.server.fakes import Pause, final, live
from tests.server.test_endings import connect, request_bytes, wait_for
from tests.server.test_pressure import CHAT, body, idle, pressed


def read(text):
    """name{labels} → value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def server(tiny_tokenizer):
    """A server of its own, whose counters begin at zero."""
    with live(tiny_tokenizer, final("Hi!"), settings=Settings(date="2025-06-28")) as server:
        server.worker.stats = Stats
        yield server


def figures(server):
    return read(server.http.get("/metrics").text)


def test_an_answer_is_counted_with_its_latencies(server):
    client = server.openai()
    client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])
    seen = figures(server)
    assert seen["gptoss_request_success_total", "stop"] == 1
    assert seen["gptoss_http_responses_total", "200"] == 1
    for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds"):
        assert seen[f"gptoss_{name}_count",] == 1
        assert 0 < seen[f"gptoss_{name}_sum",] < 5
    tokens = len(server.said(final("Hi!")))
    assert seen["gptoss_inter_token_latency_seconds_count",] == tokens - 1
    assert seen["gptoss_harmony_recoveries_total",] == 0


def test_each_choice_is_counted_for_itself(server):
    server.openai().chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hi"}], n=3, max_tokens=2
    )
    seen = figures(server)
    assert seen["gptoss_request_success_total", "length"] == 3
    assert seen["gptoss_inter_token_latency_seconds_count",] == 3


def test_odd_harmony_is_counted(tiny_tokenizer):
    with live(tiny_tokenizer, "no header<|return|>", settings=Settings()) as server:
        server.worker.stats = Stats
        server.openai().chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])
        assert figures(server)["gptoss_harmony_recoveries_total",] > 0


def test_refusals_and_clients_that_left_are_no_success(tiny_tokenizer):
    with live(tiny_tokenizer, [Pause(30)], settings=Settings()) as server:
        server.worker.stats = Stats
        server.http.post(CHAT, json={})
        with connect(server) as client:
            client.sendall(request_bytes(CHAT))
            assert wait_for(lambda: server.worker.open)
        assert server.worker.wait_until_idle()
        seen = figures(server)
        assert seen["gptoss_http_responses_total", "400"] == 1
        assert seen["gptoss_http_responses_total", "499"] == 1
        assert not any(name == "gptoss_request_success_total" for name, *_ in seen)


def test_the_engines_figures_are_its_own():
    class Worker:
        def stats(self):
            return Stats(
                running=2,
                waiting=3,
                pages_total=10,
                pages_free=4,
                prefix_queries=50,
                prefix_hits=20,
                prefix_disk_hits=11,
                disk_bytes=12,
                disk_faults=13,
                prompt_tokens_computed=40,
                prompt_seconds=1.5,
                prompt_tokens=60,
                generation_tokens=70,
                preemptions=5,
                steps=9,
            )

    seen = {m.name: m.samples[0].value for m in EngineFigures(Worker()).collect()}
    assert seen == pytest.approx(
        {
            "gptoss_num_requests_running": 2,
            "gptoss_num_requests_waiting": 3,
            "gptoss_kv_cache_usage_perc": 0.6,
            "gptoss_prompt_tokens": 60,
            "gptoss_generation_tokens": 70,
            "gptoss_prefix_cache_queries": 50,
            "gptoss_prefix_cache_hits": 20,
            "gptoss_prefix_cache_disk_hits": 11,
            "gptoss_prefix_cache_disk_bytes": 12,
            "gptoss_prefix_cache_disk_faults": 13,
            "gptoss_prompt_tokens_computed": 40,
            "gptoss_prompt_seconds": 1.5,
            "gptoss_num_preemptions": 5,
            "gptoss_engine_steps": 9,
        }
    )


def test_gauges_rise_under_load_and_return_to_nothing(tiny_tokenizer):
    async def scrape(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return read(answer.partition(b"\r\n\r\n")[2].decode())

    async def crowd(port, worker):
        others = asyncio.ensure_future(
            load.run("127.0.0.1", port, CHAT, [body(max_tokens=60, ignore_eos=True)] * 60, 60)
        )
        busy = await scrape(port)
        while busy["gptoss_num_requests_running",] < 32 and not others.done():
            busy = await scrape(port)
        await others
        return busy

    with pressed(tiny_tokenizer, step_seconds=0.02) as (port, worker):
        busy = asyncio.run(crowd(port, worker))
        assert busy["gptoss_num_requests_running",] == 32
        assert busy["gptoss_num_requests_waiting",] > 0
        assert 0 < busy["gptoss_kv_cache_usage_perc",] <= 1
        assert idle(worker)
        quiet = asyncio.run(scrape(port))
        for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
            assert quiet[f"gptoss_{gauge}",] == 0
        assert quiet["gptoss_generation_tokens_total",] == 60 * 60
