"""Writes THIRD_PARTY.md: the packages that the container image adds to its base, and their licences.

    python deploy/image/licences.py

The packages are those of deploy/requirements/cpu.txt and cuda.txt.  The licence is taken from each package's
metadata, which pip reports without installing the package, and often without downloading it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "THIRD_PARTY.md"
HEADER = """\
# Software by others

What the container image adds to Debian, and under which licence, as each package says itself.  Every
package brings the text of its licence: `*.dist-info/` in the image's site-packages; torch's lists what is
compiled into it.  Debian's own packages have theirs in `/usr/share/doc/*/copyright`.  Made by `make lock`;
not edited by hand.

| package | licence | image | home |
|---|---|---|---|
"""


def locked(path: Path) -> dict[str, str]:
    """Name → version of what a lock pins."""
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s\\]+)", path.read_text(), re.MULTILINE))


def licence(metadata: dict[str, Any]) -> str:
    """The SPDX expression; of older packages the name that they give, or their classifiers."""
    if expression := metadata.get("license_expression"):
        return str(expression)
    name = (metadata.get("license") or "").strip()
    if name and len(name.splitlines()) == 1:  # some have the whole text there
        return name
    classifiers = [each for each in metadata.get("classifier", []) if each.startswith("License ::")]
    return ", ".join(each.rpartition(" :: ")[2] for each in classifiers) or "not stated"


def home(metadata: dict[str, Any]) -> str:
    links: dict[str, str] = dict(link.split(", ", 1) for link in metadata.get("project_url", []))
    named = {name.lower(): link for name, link in links.items()}
    for name in ("homepage", "source", "repository", "source code", "github"):
        if name in named:
            return named[name]
    return str(metadata.get("home_page") or next(iter(links.values()), ""))


def reported(pins: list[str]) -> list[dict[str, Any]]:
    """What pip says of these packages for this Python; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", str(report)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *pins], check=True)
        return [item["metadata"] for item in json.loads(report.read_text())["install"]]


def normal(name: str) -> str:
    """PEP 503: how a lock spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    cpu, cuda = (locked(ROOT / "deploy" / "requirements" / name) for name in ("cpu.txt", "cuda.txt"))
    rows = []
    for metadata in reported([f"{name}=={version}" for name, version in (cuda | cpu).items()]):
        name = normal(metadata["name"])
        image = "both" if name in cpu and name in cuda else "cuda" if name in cuda else "cpu"
        rows.append(f"| {name} | {licence(metadata)} | {image} | {home(metadata)} |")
    TARGET.write_text(HEADER + "\n".join(sorted(rows)) + "\n")


if __name__ == "__main__":
    main()
