"""The native library: finds or builds it, loads and checks it, and asks which instruction sets can run.

It is searched in this order: the library that was built when the package was installed; one that an earlier
start has built in the cache folder ($XDG_CACHE_HOME/gptoss); one built now, if there is a compiler.
Otherwise `NativeLibraryMissing` says what to do.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from model.backends.cpu import toolchain
from model.backends.cpu.program import ABI_VERSION, STRUCTS, Instruction, Step

log = logging.getLogger(__name__)


class NativeLibraryMissing(ImportError):
    """The CPU kernels cannot be loaded.  The message has the reason and a remedy."""


COST = (
    "Without it only the plain PyTorch backend can run on this machine (--backend reference): "
    "about a hundred times slower at gpt-oss-20b, fit for small models and tests."
)


@cache
def load() -> ctypes.CDLL:
    """The library, with types for its functions.  Raises NativeLibraryMissing."""
    chosen = os.environ.get("GPTOSS_CPU_LIBRARY")  # built by hand, for example with a sanitizer
    return open_library(Path(chosen) if chosen else _packaged() or _cached())


def open_library(path: Path) -> ctypes.CDLL:
    """Load the library at `path`, and check that it has the same structures as program.py."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeLibraryMissing(f"{path} cannot be loaded: {error}. {COST}") from error
    _declare(library)
    theirs = (ctypes.c_int32 * len(STRUCTS))()
    version = library.gptoss_abi(theirs)
    ours = [ctypes.sizeof(struct) for struct in STRUCTS]
    if version != ABI_VERSION or list(theirs) != ours:
        raise NativeLibraryMissing(
            f"{path} has interface {version} with structures of {list(theirs)} bytes;"
            f" this version of gptoss expects {ABI_VERSION} with {ours}"
        )
    return library


def _packaged() -> Path | None:
    """The library beside this file, if it was built from the sources beside it."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).parent / f"_native{suffix}"
        if path.exists():
            if toolchain.digest().encode() in path.read_bytes():
                return path
            log.warning("%s was built from other sources than those beside it; it is not used", path.name)
    return None


def _cached() -> Path:
    """The library in the cache folder, built if necessary; two programs that start at once build it once."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptoss"
    target = folder / f"cpu-{toolchain.digest()}.so"
    if target.exists():
        return target
    command = toolchain.compiler()
    if command is None:
        raise NativeLibraryMissing(
            "the CPU kernels were not built when gptoss was installed, and there is no C++ compiler to build"
            f" them now: install g++, or set CXX, and start again. {COST}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                log.info("building the CPU kernels with %s: about ten seconds, only once", command)
                toolchain.build(target, command)
    except (OSError, RuntimeError) as error:
        raise NativeLibraryMissing(
            f"the CPU kernels could not be built into {folder}: {error}. {COST}"
        ) from error
    return target


def _declare(library: ctypes.CDLL) -> None:
    """The types of the functions in native/abi.h."""
    pointer, long, string = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p
    for name, result, arguments in (
        ("sources", string, []),
        ("abi", ctypes.c_int, [ctypes.POINTER(ctypes.c_int32)]),
        ("isas", string, []),
        ("open", pointer, [ctypes.c_int, string]),
        ("close", None, [pointer]),
        ("prompt_bits", None, [pointer, ctypes.c_int]),
        ("prefetch", None, [pointer, ctypes.c_int]),
        ("run", long, [pointer, ctypes.POINTER(Instruction), ctypes.c_int, ctypes.POINTER(Step)]),
        ("packed_bytes", long, [ctypes.c_int, long, long]),
        ("pack_mxfp4", None, [pointer, pointer, pointer, long, long, long, ctypes.c_int, pointer]),
        ("pack_dense", None, [pointer, ctypes.c_int, pointer, long, long, pointer]),
        ("read_bandwidth", ctypes.c_double, [pointer, pointer, long]),
    ):
        function = getattr(library, f"gptoss_{name}")
        function.restype, function.argtypes = result, arguments


def isas(library: ctypes.CDLL) -> list[str]:
    """The instruction sets this processor can run, best first."""
    return list(library.gptoss_isas().decode().split())


def choose_isa(library: ctypes.CDLL, wanted: str | None = None) -> str:
    """`wanted`, or $GPTOSS_CPU_ISA, or the best.  Raises ValueError if the processor cannot run it."""
    found = isas(library)
    name = wanted or os.environ.get("GPTOSS_CPU_ISA") or found[0]
    if name not in found:
        raise ValueError(f"this processor cannot run CPU kernels for {name!r}; it can run {', '.join(found)}")
    return name
