"""The files in deploy/kubernetes/ are valid for Kubernetes, and agree with the server."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from gptoss.__main__ import parser
from gptoss.serve import FLUSH_SECONDS
from server.settings_sources import read
from tests.deploy.test_monitoring import samples  # noqa: F401  # a fixture

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OBJECTS = [
    (f"{path.name}: {each['kind']} {each['metadata']['name']}", each)
    for path in sorted(FOLDER.glob("*.yaml"))
    for each in yaml.safe_load_all(path.read_text())
]
NAMES = [name for name, _ in OBJECTS]
OLDEST = "1.29"
"""The oldest supported version of Kubernetes."""

POOL = {
    "type": "object",
    "additionalProperties": False,
    "required": ["selector", "targetPorts", "endpointPickerRef"],
    "properties": {
        "selector": {
            "type": "object",
            "additionalProperties": False,
            "required": ["matchLabels"],
            "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
        },
        "targetPorts": {"type": "array", "minItems": 1, "maxItems": 8, "items": {"$ref": "#/$defs/port"}},
        "endpointPickerRef": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "port"],
            "properties": {
                "group": {"type": "string"},
                "kind": {"type": "string"},
                "name": {"type": "string"},
                "port": {"$ref": "#/$defs/port"},
                "failureMode": {"enum": ["FailOpen", "FailClose"]},
            },
        },
    },
    "$defs": {
        "port": {
            "type": "object",
            "additionalProperties": False,
            "required": ["number"],
            "properties": {"number": {"type": "integer", "minimum": 1, "maximum": 65535}},
        }
    },
}
"""The fields of an InferencePool's spec, from the reference of version 1."""


def named(kind, name):
    return next(each for _, each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name))


def pods():
    """The objects that create pods, with their names."""
    return [
        (name, each["spec"]["template"]["spec"])
        for name, each in OBJECTS
        if "template" in each.get("spec", {})
    ]


def server():
    (container,) = named("Deployment", "gptoss")["spec"]["template"]["spec"]["containers"]
    return container


def environ(container):
    return {each["name"]: each.get("value") for each in container["env"]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", [OLDEST, None], ids=["the oldest", "the newest"])
def test_every_object_is_valid_by_its_schema(name, version):
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    each = dict(OBJECTS)[name]
    if each["kind"] == "InferencePool":
        jsonschema.validate(each["spec"], POOL)
    else:
        kubernetes.validate(each, version or kubernetes.latest_version(), strict=True)


def test_a_fault_in_an_object_would_be_found():
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    each = yaml.safe_load(yaml.safe_dump(named("Deployment", "gptoss")))
    each["spec"]["template"]["spec"]["terminationGracePeriod"] = 75
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(each, kubernetes.latest_version(), strict=True)


def test_the_servers_command_and_its_variables_are_understood():
    for name, spec in pods():
        for container in spec["containers"]:
            if container["image"].startswith("gptoss:"):
                parser().parse_args(container["args"]), name
    settings = read({}, {name: value for name, value in environ(server()).items() if value is not None})
    assert settings.grace == 60


@pytest.mark.parametrize(("name", "spec"), pods(), ids=[name for name, _ in pods()])
def test_no_pod_gets_variables_that_are_called_like_our_settings(name, spec):
    """For a Service called gptoss, Kubernetes would otherwise set GPTOSS_PORT=tcp://10.0.0.1:8000."""
    assert spec["enableServiceLinks"] is False


def test_there_is_time_for_answers_to_end():
    spec = named("Deployment", "gptoss")["spec"]["template"]["spec"]
    (_, seconds) = server()["lifecycle"]["preStop"]["exec"]["command"]
    grace = int(environ(server())["GPTOSS_GRACE"])
    assert spec["terminationGracePeriodSeconds"] >= int(seconds) + grace + FLUSH_SECONDS


def test_probes_ask_what_needs_no_key():
    container = server()
    asked = {
        probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")
    }
    assert asked == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8000}
    # Loading may take as long as the image's own health check allows.
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 15 * 60


def test_what_is_mounted_is_there():
    for name, spec in pods():
        volumes = {volume["name"] for volume in spec.get("volumes", ())}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
    claims = {each["metadata"]["name"] for _, each in OBJECTS if each["kind"] == "PersistentVolumeClaim"}
    assert claims == {"gptoss-models"}


def test_everything_selects_the_pods_of_the_deployment():
    labels = named("Deployment", "gptoss")["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app": "gptoss"}
    assert named("Service", "gptoss")["spec"]["selector"] == labels
    assert named("PodDisruptionBudget", "gptoss")["spec"]["selector"]["matchLabels"] == labels
    assert named("InferencePool", "gptoss")["spec"]["selector"]["matchLabels"] == labels
    target = named("HorizontalPodAutoscaler", "gptoss")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "gptoss")


def test_autoscaling_and_the_picker_read_gauges_that_the_server_has(samples):  # noqa: F811
    scaler = named("HorizontalPodAutoscaler", "gptoss")["spec"]
    asked = {metric["pods"]["metric"]["name"] for metric in scaler["metrics"]}
    (picker,) = named("Deployment", "gptoss-picker")["spec"]["template"]["spec"]["containers"]
    asked |= {arg.partition("=")[2] for arg in picker["args"] if "-metric=gptoss" in arg}
    assert len(asked) == 3
    assert asked <= samples.keys()


def test_the_picker_is_where_the_pool_looks_for_it():
    ref = named("InferencePool", "gptoss")["spec"]["endpointPickerRef"]
    service = named("Service", ref["name"])["spec"]
    assert ref["port"]["number"] in {port["port"] for port in service["ports"]}
    config = yaml.safe_load(named("ConfigMap", "gptoss-picker")["data"]["picker.yaml"])
    plugins = {plugin["type"] for plugin in config["plugins"]}
    (profile,) = config["schedulingProfiles"]
    assert {each["pluginRef"] for each in profile["plugins"]} <= plugins
