"""How the native library is made from its sources: by setup.py when the package is installed, else at first
use.

Standard library only, since setup.py runs this file before anything is installed.
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

# Each isa_*.cpp names its own instruction set, so that the library runs everywhere and chooses at start.
# Without contraction, a product and a sum stay two roundings on every one of them.  The last two silence
# what GCC 12 says about its own AVX-512 intrinsics.
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden"]
FLAGS += ["-ffp-contract=off", "-fno-math-errno"]
FLAGS += ["-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]


def sources() -> list[Path]:
    """The files to compile; those of x86-64 are left out elsewhere."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return sorted(path for path in NATIVE.glob("*.cpp") if x86 or "avx" not in path.name)


def headers() -> list[Path]:
    return sorted(NATIVE.glob("*.h"))


def digest() -> str:
    """Names the sources and flags: a library that was made from others answers with another one."""
    content = b"\0".join(path.read_bytes() for path in (*sources(), *headers()))
    return hashlib.sha256(content + " ".join(FLAGS).encode()).hexdigest()[:16]


def defines() -> dict[str, str]:
    return {"SOURCES": digest()}


def compiler() -> str | None:
    """The C++ compiler to use: $CXX, or the first of the usual names that is there."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and shutil.which(name):
            return name
    return None


def build(target: Path, command: str, extra: tuple[str, ...] = ()) -> None:
    """Compile the sources with `command` into the shared library `target`, which appears whole or not at all.

    Raises RuntimeError with what the compiler said.
    """

    def run(*arguments: str | Path) -> None:
        done = subprocess.run([command, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stderr[-4000:]}")

    flags = [*FLAGS, *extra, *(f"-D{name}={value}" for name, value in defines().items())]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [Path(folder) / f"{path.stem}.o" for path in sources()]
        list(
            pool.map(
                lambda pair: run(*flags, "-c", pair[0], "-o", pair[1]), zip(sources(), objects, strict=True)
            )
        )
        whole = Path(folder) / target.name
        run("-shared", "-pthread", *extra, *objects, "-o", whole)
        whole.replace(target)


def main() -> None:
    """python model/kernels/cpu/toolchain.py TARGET [FLAG ...]: by hand, for instance with a sanitizer."""
    command = compiler()
    if command is None:
        sys.exit("there is no C++ compiler: install g++, or set CXX")
    build(Path(sys.argv[1]), command, tuple(sys.argv[2:]))


if __name__ == "__main__":
    main()
