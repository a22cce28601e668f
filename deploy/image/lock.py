"""Writes deploy/requirements/*.txt: the exact packages of the container image, each with its hashes.

    python deploy/image/lock.py                keep locked versions that pyproject.toml allows
    python deploy/image/lock.py --upgrade      take the newest that it allows
    python deploy/image/lock.py --upgrade-package NAME

cuda.txt   PyPI's build of torch, with Triton and NVIDIA's libraries
cpu.txt    the same versions, with torch's CPU build and without Triton and NVIDIA's libraries
build.txt  the packages that build this project's wheel

They are resolved for the image's Python and platform, not for those that run this script.  A base image with
another Python can use the CUDA variant, because PyPI has the hashes of all wheels of a version.  Of torch's
CPU build, only the downloaded wheel's hash is known, so the CPU variant needs Python 3.11.  That build is on
a separate index: pip fetches it with this machine's settings, such as PIP_EXTRA_INDEX_URL.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "deploy" / "requirements"
PYTHON = "3.11"
PLATFORM = "x86_64-manylinux_2_28"
EXTRAS = ["--extra", "postgres", "--extra", "otel"]
"""Extras of this project that the image has, for several servers."""

HEADER = "# Made by `make lock` from pyproject.toml; not edited by hand.\n"


def compile_lock(name: str, requirements: Path, options: list[str]) -> Path:
    """Writes LOCKS / `name` from a pyproject.toml or a list of requirements.  Versions in the old lock are
    kept.
    """
    target = LOCKS / name
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "compile", str(requirements), "--output-file", str(target), "--quiet"]
    command += ["--generate-hashes", "--python-version", PYTHON, "--python-platform", PLATFORM]
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", *options]
    subprocess.run(command, check=True)
    target.write_text(HEADER + target.read_text().removeprefix(HEADER))
    return target


def main() -> None:
    options = sys.argv[1:]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    cuda = compile_lock("cuda.txt", ROOT / "pyproject.toml", [*EXTRAS, *options])
    version = re.search(r"^torch==(\S+)", cuda.read_text(), re.MULTILINE)
    assert version, "pyproject.toml must require torch"
    torch = f"torch=={version[1]}+cpu"
    with tempfile.TemporaryDirectory() as folder:
        wheels, override, build = (
            Path(folder) / "wheels",
            Path(folder) / "override",
            Path(folder) / "build.in",
        )
        fetch = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--python-version", PYTHON]
        fetch += ["--platform", PLATFORM.partition("-")[2] + "_x86_64", "--dest", str(wheels), torch]
        subprocess.run([sys.executable, "-m", "pip", *fetch], check=True)
        override.write_text(torch)
        same = ["--constraint", str(cuda), "--override", str(override), "--find-links", str(wheels)]
        compile_lock("cpu.txt", ROOT / "pyproject.toml", [*same, *EXTRAS, *options])
        build.write_text("\n".join(project["build-system"]["requires"]))
        compile_lock("build.txt", build, options)


if __name__ == "__main__":
    main()
