"""The image installs what pyproject.toml requires: pinned, with hashes, and listed with licences.

If one of these tests fails after a dependency was added or changed, run `make lock`.
"""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.image import licences
from deploy.image.lock import EXTRAS, PYTHON

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IMAGE = {"python_version": PYTHON, "sys_platform": "linux", "platform_system": "Linux", "extra": ""}
VARIANTS = ("cpu", "cuda")
INSTALLED = [
    *PROJECT["project"]["dependencies"],
    *(each for extra in EXTRAS[1::2] for each in PROJECT["project"]["optional-dependencies"][extra]),
]
AGAIN = "pyproject.toml and deploy/requirements/ have parted: run `make lock`"


def lock(name):
    """Name → version."""
    return licences.locked(ROOT / "deploy" / "requirements" / f"{name}.txt")


def asked(requirements):
    parsed = map(Requirement, requirements)
    return [each for each in parsed if each.marker is None or each.marker.evaluate(IMAGE)]


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        *((variant, INSTALLED) for variant in VARIANTS),
        ("build", PROJECT["build-system"]["requires"]),
    ],
    ids=[*VARIANTS, "build"],
)
def test_what_is_asked_for_is_locked_within_its_bounds(name, requirements):
    pins = lock(name)
    for each in asked(requirements):
        version = pins.get(canonicalize_name(each.name))
        assert version, f"{each.name} is not in deploy/requirements/{name}.txt; {AGAIN}"
        assert each.specifier.contains(version), f"{each} against {version}; {AGAIN}"


@pytest.mark.parametrize("name", [*VARIANTS, "build"])
def test_a_lock_is_pins_with_hashes_and_nothing_else(name):
    """No address of an index, and no path of the machine on which it was made."""
    text = (ROOT / "deploy" / "requirements" / f"{name}.txt").read_text()
    pin = r"[a-z0-9][\w.-]*==\S+(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.fullmatch(rf"#[^\n]*\n(?:{pin})+", text)


def test_the_variants_differ_in_torchs_build_and_what_a_gpu_needs():
    cpu, cuda = lock("cpu"), lock("cuda")
    assert cpu.pop("torch") == cuda.pop("torch") + "+cpu"
    assert cpu.items() <= cuda.items()
    only_cuda = cuda.keys() - cpu.keys()
    assert "triton" in only_cuda
    assert {name.partition("-")[0] for name in only_cuda} == {"cuda", "nvidia", "triton"}


def test_every_package_is_listed_with_its_licence():
    rows = re.findall(r"^\| (\S+) \| (.+?) \| (both|cpu|cuda) \|", licences.TARGET.read_text(), re.MULTILINE)
    cpu, cuda = set(lock("cpu")), set(lock("cuda"))
    places = {"both": cpu & cuda, "cpu": cpu - cuda, "cuda": cuda - cpu}
    listed = {place: {name for name, _, where in rows if where == place} for place in places}
    assert listed == places, f"THIRD_PARTY.md is of other locks; {AGAIN}"
    assert {name for name, licence, _ in rows if licence == "not stated"} <= {"cuda-toolkit"}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"license_expression": "MIT", "license": "x"}, "MIT"),
        ({"license": "BSD"}, "BSD"),
        (
            {"license": "May be\nused", "classifier": ["License :: OSI Approved :: MIT License"]},
            "MIT License",
        ),
        ({"license": "", "classifier": ["Topic :: Text"]}, "not stated"),
    ],
)
def test_a_licence_is_what_the_metadata_says(metadata, said):
    assert licences.licence(metadata) == said
