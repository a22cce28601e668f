"""Builds the native library from its sources: called by setup.py when the package is installed, or at the
first use.

Imports only the standard library, because setup.py runs this file before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NATIVE = Path(__file__).parent / "native"

# Each isa_*.cpp selects its own instruction set, so that the library runs everywhere and chooses at the
# start.  Without contraction, a product and a sum are two roundings on all of them.  The last two flags
# silence GCC 12's warnings about its own AVX-512 intrinsics.
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden"]
FLAGS += ["-ffp-contract=off", "-fno-math-errno"]
FLAGS += ["-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]


ONLY_FOR = {
    "isa_avx2": "x86_64",
    "isa_avx512": "x86_64",
    "isa_neon": "aarch64",
    "panels_amx": "x86_64",
    "panels_amx_codes8": "x86_64",
    "panels_amx_int8": "x86_64",
    "panels_amx_mxfp4": "x86_64",
    "panels_vnni": "x86_64",
}
"""Sources that are only for one architecture."""

MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())


def sources(machine: str = MACHINE) -> list[Path]:
    """The files to compile for an architecture."""
    return sorted(path for path in NATIVE.glob("*.cpp") if ONLY_FOR.get(path.stem, machine) == machine)


def headers() -> list[Path]:
    return sorted(NATIVE.glob("*.h"))


def digest() -> str:
    """A hash of the sources and flags.  The library contains it, so one made from other sources is
    recognised.
    """
    content = b"\0".join(path.read_bytes() for path in (*sources(), *headers()))
    return hashlib.sha256(content + " ".join(FLAGS).encode()).hexdigest()[:16]


def defines() -> dict[str, str]:
    return {"SOURCES": digest()}


def compiler() -> str | None:
    """The C++ compiler to use: $CXX, or the first of the usual names that exists."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and shutil.which(name):
            return name
    return None


def build(target: Path, command: str, extra: tuple[str, ...] = ()) -> None:
    """Compile the sources with `command` into the shared library `target`, which appears complete or not at
    all.

    Raises RuntimeError with the compiler's output.
    """
    link(target, command, sources(), ("-shared", *extra))


def link(target: Path, command: str, files: list[Path], extra: tuple[str, ...]) -> None:
    """Compile `files` on all cores, and link them into `target`.  `extra` flags are for both."""

    def run(*arguments: str | Path) -> None:
        done = subprocess.run([command, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stderr[-4000:]}")

    flags = [*FLAGS, *extra, *(f"-D{name}={value}" for name, value in defines().items())]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [Path(folder) / f"{path.stem}.o" for path in files]
        pairs = zip(files, objects, strict=True)
        list(pool.map(lambda pair: run(*flags, "-c", pair[0], "-o", pair[1]), pairs))
        whole = Path(folder) / target.name
        run("-pthread", *extra, *objects, "-o", whole)
        whole.replace(target)


def main() -> None:
    """python model/backends/cpu/toolchain.py TARGET [FLAG ...]: by hand, for instance with a sanitizer."""
    command = compiler()
    if command is None:
        sys.exit("there is no C++ compiler: install g++, or set CXX")
    build(Path(sys.argv[1]), command, tuple(sys.argv[2:]))


if __name__ == "__main__":
    main()
