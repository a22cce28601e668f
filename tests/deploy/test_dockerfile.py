"""Properties of the Dockerfile and the compose files.  `make image` builds and runs the image."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gptoss.serve import OTHER_DESCRIPTORS
from server import settings_sources
from server.settings import Settings
from tests.server.fakes import final, live

ROOT = Path(__file__).parents[2]
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
STAGES = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]


def compose(*names):
    """The services of compose files; later files override earlier ones, as far as these tests need it."""
    return [yaml.safe_load((ROOT / name).read_text())["services"] for name in names]


def test_the_variables_of_the_image_are_settings():
    found = re.findall(r"\b(GPTOSS_\w+)=(\S+)", DOCKERFILE)
    assert settings_sources.read({}, dict(found)) == Settings(host="0.0.0.0", port=8000)


def test_what_is_copied_is_there_and_is_sent_to_the_builder():
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    sources = [source.replace("${VARIANT}", "cuda") for line in copied for source in line]
    assert len(sources) > 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(Path(source).match(pattern) for pattern in sent), f"{source} is not in .dockerignore"


def test_nothing_runs_as_root():
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["10001:10001"]
    after = DOCKERFILE.partition("USER 10001")[2]
    assert "apt-get" not in after


def test_what_compiles_is_left_behind():
    """The final image consists of the stages base, cpu and cuda."""
    kept = [stage for stage in STAGES if re.search(r" AS (base|cpu|cuda)$", stage.splitlines()[0])]
    assert len(kept) == 3
    for stage in kept:
        assert not re.search(
            r"\b(g\+\+|gcc|make|build-essential|python3-(dev|pip|venv))\b", _instructions(stage)
        )


def _instructions(stage):
    return "\n".join(line for line in stage.splitlines() if not line.startswith("#"))


@pytest.fixture
def healthcheck():
    """Run the image's HEALTHCHECK with a server on `port`.  Returns its exit code and output."""
    words = json.loads(re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])
    assert "COPY deploy/image/health.py /opt/gptoss/" in DOCKERFILE
    python, options, script = words
    assert (python, script) == ("python", "/opt/gptoss/health.py")

    def check(port, host="0.0.0.0"):
        environ = {"GPTOSS_HOST": host, "GPTOSS_PORT": str(port)}
        command = [sys.executable, options, str(ROOT / "deploy" / "image" / "health.py")]
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        return done.returncode, done.stderr

    return check


def test_a_server_is_healthy_until_its_engine_dies(tiny_tokenizer, healthcheck):
    with live(tiny_tokenizer, final("Hi!"), settings=Settings(api_key=("k",))) as server:
        port = int(server.url.rpartition(":")[2])
        assert healthcheck(port) == (0, "")
        server.worker.died = RuntimeError()
        assert healthcheck(port) == (1, "/health: 503 Service Unavailable\n")
        server.worker.died = None


def test_nobody_at_the_port_is_not_healthy(healthcheck, unused_port):
    code, said = healthcheck(unused_port)
    assert code == 1
    assert f"127.0.0.1, port {unused_port}" in said
    assert "Traceback" not in said


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and nobody answers
        yield taken.getsockname()[1]


def test_compose_gives_running_answers_their_time():
    server = compose("compose.yaml")[0]["gptoss"]
    grace = settings_sources.read({}, server["environment"]).grace
    assert int(server["stop_grace_period"].removesuffix("s")) > grace


def test_every_service_is_bounded_and_hardened():
    (base,) = compose("compose.yaml")
    for name, service in base.items():
        assert service["mem_limit"], name
        assert 0 < service["pids_limit"] <= 1024, name
        needed = Settings().max_connections + OTHER_DESCRIPTORS
        assert service["ulimits"]["nofile"]["soft"] >= needed, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
    assert base["gptoss"]["environment"]["GPTOSS_ALLOWED_HOST"] == "gptoss"  # as Prometheus calls it


VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
NAME = re.compile(r"[\w-]+(\.[\w-]+)+/[\w./-]+:[\w.-]+(@sha256:[0-9a-f]{64})?")


def images(environ):
    """Variable → the image of another project that the compose file uses.

    `:-` has the same meaning as in a shell.
    """
    services = compose("compose.yaml")[0].values()
    named = [service["image"] for service in services if "build" not in service]
    named += [service["build"]["args"]["BASE_IMAGE"] for service in services if "build" in service]
    found = [VARIABLE.fullmatch(image) for image in named]
    assert all(found), "each is named by a variable"
    return {match[1]: environ.get(match[1]) or match[2] for match in found}


def test_images_of_others_are_named_in_full_and_by_a_tag_of_a_version():
    """Podman has no default registry for short names."""
    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    found = images({})
    assert set(found) == {"BASE_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE"}
    assert found["BASE_IMAGE"] == base
    for image in found.values():
        assert NAME.fullmatch(image), image
        assert not image.endswith((":latest", ":main", ":stable")), image


def test_each_image_can_be_pinned_by_a_digest_in_one_place():
    pinned = {name: f"{image}@sha256:{'ab' * 32}" for name, image in images({}).items()}
    assert images(pinned) == pinned
    assert all(NAME.fullmatch(image) for image in pinned.values())
    said = (ROOT / "compose.yaml").read_text() + (ROOT / "SECURITY.md").read_text()
    assert all(said.count(name) >= 3 for name in pinned), "in both, and where it is used"


def test_as_many_gpus_as_the_model_is_split_over():
    (two,) = compose("compose.two-gpus.yaml")
    (devices,) = two["gptoss"]["deploy"]["resources"]["reservations"]["devices"]
    settings = settings_sources.read({}, two["gptoss"]["environment"])
    assert devices["count"] == settings.tensor_parallel == 2


@pytest.mark.parametrize("file", ["compose.gpu.yaml", "compose.two-gpus.yaml"])
def test_the_gpu_file_changes_a_service_that_is_there(file):
    base, gpu = compose("compose.yaml", file)
    assert gpu.keys() <= base.keys()
    assert base["gptoss"]["build"]["args"]["VARIANT"] == "cpu"
    assert gpu["gptoss"]["build"]["args"] == {"VARIANT": "cuda", "TORCH_INDEX": ""}
    assert base["gptoss"]["build"]["args"].keys() > gpu["gptoss"]["build"]["args"].keys()
