"""The dashboard queries metrics that the server has, from the Prometheus that scrapes the server."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from engine.engine import Stats
from server.settings import Settings
from tests.server.fakes import final, live

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "gptoss.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def parse(path):
    return yaml.safe_load((ROOT / path).read_text())


@pytest.fixture(scope="module")
def samples(tiny_tokenizer):
    """Name → labels of all metrics after one answer."""
    with live(tiny_tokenizer, final("Hi!"), settings=Settings(date="2025-06-28")) as server:
        server.worker.stats = Stats
        server.openai().chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])
        families = text_string_to_metric_families(server.http.get("/metrics").text)
        return {sample.name: set(sample.labels) for family in families for sample in family.samples}


@pytest.mark.parametrize("query", QUERIES)
def test_every_figure_of_the_dashboard_is_one_that_the_server_tells(query, samples):
    if query.startswith("up{"):
        return  # Prometheus' own
    names = re.findall(r"\bgptoss_\w+", query)
    assert names
    for name in names:
        assert name in samples, f"/metrics has no {name}"
        for label in re.findall(r"by \((\w+)\)", query):
            assert label in samples[name], f"{name} has no label {label}"


def test_counters_are_asked_for_their_rate_and_gauges_are_not():
    for query in QUERIES:
        for name, after in re.findall(r"\b(gptoss_\w+)(\[?)", query):
            assert bool(after) == name.endswith(("_total", "_bucket")), query


def test_panels_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_everyone_finds_everyone():
    """compose.yaml, Prometheus and Grafana agree on names, ports and folders."""
    services = parse("compose.yaml")["services"]
    (job,) = parse("deploy/monitoring/prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["gptoss:8000"]}]
    assert f'up{{job="{job["job_name"]}"}}' in QUERIES
    (source,) = parse("deploy/monitoring/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
    assert {"gptoss", "prometheus", "grafana"} == set(services)
    mounts = [volume.split(":") for service in services.values() for volume in service["volumes"]]
    folders = {inside: outside for outside, inside, *_ in mounts if outside.startswith("./")}
    for outside in folders.values():
        assert (ROOT / outside).exists(), outside
    (provider,) = parse("deploy/monitoring/grafana/provisioning/dashboards/gptoss.yml")["providers"]
    assert folders[provider["options"]["path"]] == "./deploy/monitoring/grafana/dashboards"


def test_only_the_server_starts_when_nothing_else_is_asked_for():
    services = parse("compose.yaml")["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["gptoss"]
