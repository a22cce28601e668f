"""Builds the image without a Docker engine, tests its server, and prints its size.

    sudo python deploy/image/trial.py [--variant cuda] [--work FOLDER] [--keep]

debootstrap makes the base image, buildah builds the Dockerfile on it, and the image's entry point runs as
process 1 of its own namespace, as the image's user.  The test runs `gptoss doctor`, the HEALTHCHECK, and a
request; then it sends SIGTERM during another answer, which must end normally, with exit code 0.  No compiler
may be in the image.

Needs root, and Debian's buildah and debootstrap; `.ci/image` installs them.  pip finds torch's CPU wheel with
this machine's settings.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from container import Container, Failure

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
BASE = "localhost/gptoss-base"
COMPILERS = ("cc", "gcc", "g++", "clang", "ld", "make", "pip", "pip3")
"""Programs that the final image must not have."""


def run(*command: str | Path, quiet: bool = True) -> str:
    """Run a command, and return its stdout.  Raises Failure with the end of its output."""
    done = subprocess.run([str(word) for word in command], text=True, capture_output=quiet, check=False)
    if done.returncode:
        said = "\n".join((done.stdout or "").splitlines()[-15:] + (done.stderr or "").splitlines()[-15:])
        raise Failure(f"{command[0]} failed, exit code {done.returncode}\n{said}")
    return done.stdout or ""


class Builder:
    """buildah, with its images and containers under `folder`.

    driver  overlay if it can be mounted there; otherwise vfs, which works everywhere, but copies the whole
            image for every stage and container
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self.driver = "overlay"
        try:
            self("info")
        except Failure:
            self.driver = "vfs"

    def __call__(self, *words: str | Path, quiet: bool = True) -> str:
        root = self._folder / "storage" / self.driver
        store = ["--root", root, "--runroot", self._folder / "run", "--storage-driver", self.driver]
        return run("buildah", *store, *words, quiet=quiet).strip()

    def has(self, image: str) -> bool:
        return image in self("images", "--format", "{{.Name}}").splitlines()

    def commit_folder(self, folder: Path, image: str) -> None:
        container = self("from", "scratch")
        self("add", container, folder, "/")
        self("commit", "--rm", container, image)


def make_base(work: Path, builder: Builder) -> None:
    """A base image of Debian from debootstrap, with updates; nearly the same as debian:bookworm-slim."""
    folder = work / "base"
    if not folder.exists():
        partial = work / "base.partial"
        shutil.rmtree(partial, ignore_errors=True)
        run("debootstrap", "--variant=minbase", SUITE, partial)
        sources = partial / "etc/apt/sources.list"
        mirror = sources.read_text().split()[1]
        security = mirror.rstrip("/") + "-security"
        lines = [(mirror, SUITE), (mirror, f"{SUITE}-updates"), (security, f"{SUITE}-security")]
        sources.write_text("".join(f"deb {place} {suite} main\n" for place, suite in lines))
        for leftover in (partial / "var/cache/apt/archives").glob("*.deb"):
            leftover.unlink()
        partial.rename(folder)
    builder.commit_folder(folder, BASE)


def make_torch_index(work: Path) -> Path:
    """A package index for pip that has only the locked CPU build of torch."""
    pin = re.search(r"^torch==\S+ \\\n(?: +--hash=\S+(?: \\\n)?)+", _lock("cpu"), re.MULTILINE)
    assert pin, "deploy/requirements/cpu.txt has torch"
    folder = work / "index" / "torch"
    folder.mkdir(parents=True, exist_ok=True)
    asked = work / "torch.txt"
    asked.write_text(pin[0] + "\n")
    # The Python of Debian 12, which the image has, not the one that runs this script.
    wanted = ["--only-binary", ":all:", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"]
    run(sys.executable, "-m", "pip", "download", "--no-deps", *wanted, "--dest", folder, "-r", asked)
    links = (f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(folder.glob("*.whl")))
    (folder / "index.html").write_text("".join(links))
    return folder.parent


def _lock(variant: str) -> str:
    return (ROOT / "deploy" / "requirements" / f"{variant}.txt").read_text()


def build(work: Path, builder: Builder, variant: str) -> str:
    """Builds the image, and returns its name.  The build uses this machine's certificates for pip, if it has
    any.
    """
    image = f"localhost/gptoss:{variant}"
    options = ["--isolation", "chroot", "--format", "docker", "--layers=false", "--tag", image]
    arguments = {"BASE_IMAGE": BASE, "VARIANT": variant}
    if variant == "cpu":
        arguments["TORCH_INDEX"] = "file:///torch-index"
        options += ["--volume", f"{make_torch_index(work)}:/torch-index:ro"]
    if certificates := os.environ.get("PIP_CERT"):
        (work / "pip.conf").write_text("[global]\ncert = /etc/pip-cert.pem\n")
        options += ["--volume", f"{work}/pip.conf:/etc/pip.conf:ro"]
        options += ["--volume", f"{certificates}:/etc/pip-cert.pem:ro"]
    for name, value in arguments.items():
        options += ["--build-arg", f"{name}={value}"]
    builder("build", *options, ROOT, quiet=False)
    return image


def try_it(builder: Builder, image: str) -> None:
    """Tests the image.  Raises Failure at the first check that fails."""
    name = builder("from", image)
    try:
        root = Path(builder("mount", name))
        described = json.loads(builder("inspect", name))["Docker"]["config"]
        container = Container(root, described)
        found = container.find(COMPILERS)
        if found:
            raise Failure(f"the final image has {', '.join(found)}")
        print(f"doctor: {container.doctor()}")
        with container.serving() as server:
            print(f"ready after {server.start_seconds:.1f} s, as {server.user}; HEALTHCHECK: healthy")
            print(f"answer: {server.ask('What is the capital of France?')!r}")
            print(f"SIGTERM during an answer: {server.stop_during_an_answer()}; exit code 0")
        container.print_size()
    finally:
        builder("rm", name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the image with buildah and try it.")
    parser.add_argument("--variant", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "image", help="folder for the build; needs some GB"
    )
    parser.add_argument("--keep", action="store_true", help="keep the image in the work folder's storage")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("deploy/image/trial.py: must be root, for chroot and mounts")
    work: Path = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    builder = Builder(work)
    began = time.monotonic()
    try:
        if not builder.has(BASE):
            make_base(work, builder)
        print(f"base: Debian {SUITE}, {time.monotonic() - began:.0f} s; storage: {builder.driver}")
        image = build(work, builder, asked.variant)
        print(f"built {image}, {time.monotonic() - began:.0f} s in all")
        try_it(builder, image)
    except Failure as failure:
        sys.exit(f"deploy/image/trial.py: {failure}")
    finally:
        if not asked.keep:
            shutil.rmtree(work / "storage", ignore_errors=True)
            shutil.rmtree(work / "run", ignore_errors=True)


if __name__ == "__main__":
    main()
