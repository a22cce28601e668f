"""The native library is found, built once, and checked before use; an error says so if it is missing."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from shutil import ignore_patterns

import pytest

from gptoss.assembly import assemble
from gptoss.start import StartError
from model.backends import cpu as kernels_cpu
from model.backends.cpu import library, toolchain
from model.backends.cpu.library import NativeLibraryMissing, choose_isa, isas, open_library
from model.backends.cpu.program import OPCODES, STRUCTS, Assignment, Rows, SumOverRanks
from model.device import physical_cores
from server.settings import Settings


@pytest.fixture(scope="module")
def built():
    """The library that is used."""
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
    """`load` without its cached result."""
    return library.load.__wrapped__


def test_without_library_and_compiler_the_message_says_what_helps(empty_cache, fresh_load, monkeypatch):
    monkeypatch.setattr(toolchain, "compiler", lambda: None)
    with pytest.raises(NativeLibraryMissing, match=r"install g\+\+.*--backend reference.*slower"):
        fresh_load()


def test_the_start_ends_with_what_is_missing_and_what_it_costs(empty_cache, fresh_load, monkeypatch):
    """One line for the user; and the alternative in it works."""
    monkeypatch.setattr(toolchain, "compiler", lambda: None)
    monkeypatch.setattr(kernels_cpu, "load", fresh_load)
    with pytest.raises(StartError, match=r"install g\+\+.*--backend reference.*slower") as error:
        assemble(Settings(device="cpu"))
    assert "\n" not in str(error.value)
    assert "kernels: reference" in assemble(Settings(device="cpu", backend="reference")).summary


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


HEADER = (toolchain.NATIVE / "abi.h").read_text()


@pytest.mark.parametrize("struct", [*STRUCTS, Rows, Assignment], ids=lambda each: each.__name__)
def test_structures_are_those_of_the_header_field_by_field(struct):
    """The size alone would not reveal that two fields are swapped."""
    body = re.search(rf"^struct {struct.__name__} {{(.*?)^}};", HEADER, re.DOTALL | re.MULTILINE)[1]
    declared = []
    for declaration in re.sub("//.*", "", body).split(";")[:-1]:
        if function := re.fullmatch(r"\s*\w+ \(\*(\w+)\)\(.*\)", declaration):
            declared.append((function[1], SumOverRanks))
            continue
        kind, names = re.fullmatch(r"\s*((?:const )?\w+\W*?)(?=\w)([\w, ]+)", declaration).groups()
        declared += [(name.strip(), C_TYPES.get(kind.split()[0]) or c_void_p) for name in names.split(",")]
        if "*" in kind:
            declared[-1] = declared[-1][0], c_void_p
    assert [(name, kind) for name, kind, *_ in struct._fields_] == declared


C_TYPES = {
    "int32_t": c_int32,
    "int64_t": c_int64,
    "float": c_float,
    "Rows": Rows,
    "Assignment": Assignment,
}


def test_opcodes_and_functions_are_those_of_the_header(built):
    (opcodes,) = re.findall(r"enum Opcode : int32_t {(.*?)OPCODES", HEADER, re.DOTALL)
    assert [name.strip() for name in opcodes.split(",")[:-1]] == [
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", each.__name__).upper() for each in OPCODES
    ]
    for function in set(re.findall(r"\b(gptoss_\w+)\(", HEADER)):
        assert getattr(library.load(), function).argtypes is not None, f"{function} is not declared"


def test_bandwidth_is_measured_by_reading(built):
    machine = library.load().gptoss_open(2, b"portable")
    data = (ctypes.c_uint8 * (5 << 20))()
    assert 1e6 < library.load().gptoss_read_bandwidth(machine, ctypes.addressof(data), len(data)) < 1e13
    library.load().gptoss_close(machine)


def test_without_a_compiler_the_installation_succeeds_and_says_so(tmp_path):
    """Runs what pip runs to build the extension, with a compiler that fails."""
    pytest.importorskip("setuptools")
    root = toolchain.NATIVE.parents[3]
    shutil.copy(root / "setup.py", tmp_path)
    shutil.copytree(toolchain.NATIVE.parent, tmp_path / "model/backends/cpu", ignore=ignore_patterns("*.so"))
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", "out", "--build-temp", "temp"]
    broken = os.environ | {"CC": "/bin/false", "CXX": "/bin/false"}
    done = subprocess.run(command, cwd=tmp_path, env=broken, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert 'building extension "model.backends.cpu._native" failed' in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.so"))


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


def test_threads_that_ask_at_once_for_the_instruction_sets_all_hear_them():
    """The list was rewritten at each call, so another thread could find it empty."""
    native = library.load()
    want = isas(native)
    with ThreadPoolExecutor(4) as pool:
        heard = list(pool.map(lambda _: isas(native), range(20_000), chunksize=1))
    assert all(each == want for each in heard)
