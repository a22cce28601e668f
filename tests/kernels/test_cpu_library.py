"""The native library is found, built once, checked before use, and missed aloud."""

import ctypes
import os
import shutil
from pathlib import Path

import pytest

from model.kernels.cpu import library, toolchain
from model.kernels.cpu.library import NativeLibraryMissing, choose_isa, isas, open_library, physical_cores


@pytest.fixture(scope="module")
def built():
    """The library in use, wherever it was found."""
    try:
        return Path(library.load()._name)
    except NativeLibraryMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "_packaged", lambda: None)
    monkeypatch.delenv("GPTOSS_CPU_LIBRARY", raising=False)
    return tmp_path / "gptoss"


@pytest.fixture
def fresh_load():
    """`load`, not remembering what it loaded before."""
    return library.load.__wrapped__


def test_without_library_and_compiler_the_message_says_what_helps(empty_cache, fresh_load, monkeypatch):
    monkeypatch.setattr(toolchain, "compiler", lambda: None)
    with pytest.raises(NativeLibraryMissing, match=r"install g\+\+.*--backend reference.*slower"):
        fresh_load()


def test_a_compiler_that_fails_is_quoted(empty_cache, fresh_load, monkeypatch, tmp_path):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho no such thing as c++17 >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(toolchain, "compiler", lambda: str(broken))
    with pytest.raises(NativeLibraryMissing, match=r"(?s)no such thing as c\+\+17"):
        fresh_load()
    assert not list(empty_cache.glob("*.so"))


def test_what_was_built_before_is_used_without_a_compiler(built, empty_cache, fresh_load, monkeypatch):
    empty_cache.mkdir()
    shutil.copy(built, empty_cache / f"cpu-{toolchain.digest()}.so")
    monkeypatch.setattr(toolchain, "compiler", lambda: None)
    assert isas(fresh_load())[-1] == "portable"


def test_other_sources_have_another_digest(tmp_path, monkeypatch):
    before = toolchain.digest()
    shutil.copytree(toolchain.NATIVE, tmp_path / "native")
    monkeypatch.setattr(toolchain, "NATIVE", tmp_path / "native")
    assert toolchain.digest() == before
    with (tmp_path / "native" / "layout.h").open("a") as header:
        header.write("// changed\n")
    assert toolchain.digest() != before


def test_a_library_with_other_structures_is_refused(built, monkeypatch):
    class Larger(ctypes.Structure):
        _fields_ = (("x", ctypes.c_int64 * 9),)

    monkeypatch.setattr(library, "STRUCTS", (*library.STRUCTS[:-1], Larger))
    with pytest.raises(NativeLibraryMissing, match="structures of"):
        open_library(built)


def test_what_is_no_library_is_refused(tmp_path):
    (tmp_path / "broken.so").write_bytes(b"not a library")
    with pytest.raises(NativeLibraryMissing, match=r"broken\.so cannot be loaded"):
        open_library(tmp_path / "broken.so")


def test_the_instruction_set_can_be_forced(built, monkeypatch):
    found = isas(library.load())
    assert choose_isa(library.load()) == os.environ.get("GPTOSS_CPU_ISA", found[0])
    monkeypatch.setenv("GPTOSS_CPU_ISA", "portable")
    assert choose_isa(library.load()) == "portable"
    assert choose_isa(library.load(), found[0]) == found[0]


def test_cores_are_counted_once_and_within_reach():
    assert 1 <= physical_cores() <= len(os.sched_getaffinity(0))
