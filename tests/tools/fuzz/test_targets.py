"""The fuzz targets hold for bytes made by hand, for what was once found, and for some drawn at random.

They are led by coverage when a person asks for it: `python -m tests.tools.fuzz TARGET`.
"""

import random
from pathlib import Path

import pytest

from server.front.protocol import BoundedProtocol
from tests.tools.fuzz import targets
from tests.tools.fuzz.targets import SEEDS, TARGETS

FOUND = Path(__file__).with_name("found")
CASES = [(name, seed) for name, seeds in SEEDS.items() for seed in seeds]
CASES += [(path.name.split("-")[0], path.read_bytes()) for path in sorted(FOUND.glob("*-*"))]


@pytest.mark.parametrize(("name", "data"), CASES)
def test_a_target_holds_for(name, data):
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_what_is_nearly_right(name):
    """Seeds with bytes changed, left out, and repeated."""
    r = random.Random(name)
    for _ in range(150):
        data = bytearray(r.choice(SEEDS[name]))
        for _ in range(r.randrange(1, 6)):
            at = r.randrange(len(data)) if data else 0
            match r.randrange(3):
                case 0:
                    data[at : at + 1] = bytes([r.randrange(256)])
                case 1:
                    del data[at : at + r.randrange(1, 9)]
                case _:
                    data[at:at] = data[at : at + 40] * r.randrange(1, 30)
        TARGETS[name](bytes(data))


@pytest.mark.parametrize(
    ("name", "data", "broken", "attribute", "value"),
    [
        ("http", SEEDS["http"][0], BoundedProtocol, "_feed", lambda self, slice: 1 / 0),
        ("harmony", SEEDS["harmony"][0], targets.Reader, "finish", lambda self: 1 / 0),
        ("header", SEEDS["header"][0], targets.SampledHeader, "take_body", lambda self: "invented"),
        ("index", SEEDS["index"][0], targets.Checkpoint, "open", lambda folder: 1 / 0),
        ("config", SEEDS["config"][1], targets.ModelConfig, "read", lambda folder: 1 / 0),
        ("settings", SEEDS["settings"][1], targets.settings_sources, "read", lambda flags, environ: 1 / 0),
    ],
)
def test_a_target_notices_what_is_broken(monkeypatch, name, data, broken, attribute, value):
    monkeypatch.setattr(broken, attribute, value)
    with pytest.raises((AssertionError, ZeroDivisionError)):
        TARGETS[name](data)
