"""All kernels are compiled in advance, and later found in the cache.  This needs no GPU: a launch with shapes
only compiles.

Compiling needs kernels that are not interpreted, so these tests run in other processes.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import tests.model.backends.triton.triton_here  # noqa: F401   first: see there

# isort: split
from triton.runtime.jit import JITFunction

from model.backends.triton import ahead
from tests import tiny_checkpoint

pytestmark = pytest.mark.timeout(600)  # a compiler on a busy machine takes its time

CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=3, sliding_window=7)
JOB = ahead.Job(CONFIG, "bf16", "bf16", False, "bfloat16", (9, 0), 132)

KEYS = """
import sys

import torch
import triton

from model.backends.triton import ahead, outlines

keys = set()

def noted(*, key, fn, **_):
    keys.add(f"{fn.name} {key}")
    return True  # and not compiled

def launched(launches):
    keys.clear()
    launches()
    return set(keys)

triton.runtime.driver.set_active(ahead.OfflineDriver(90))
triton.knobs.runtime.jit_cache_hook = noted
decodes = [(n, 1) for n in (*range(1, 20), *range(23, 60, 6), 65, 90, 127, 129, 255, 300, 700)]
prompts = [(1, n) for n in (*range(2, 20), 31, 33, 63, 66, *range(90, 1200, 97), 2047, 2049, 5000)]
mixed = [(n, length) for n in (2, 9, 40, 70) for length in (2, 5, 130)]
for job in map(ahead.Job.read, sys.argv[1:]):
    with ahead.compiling(), torch.inference_mode():
        made = launched(job.compile)
        options = (job.dense, job.kv_cache_dtype, job.batch_invariant)
        model = outlines.outline(job.config, *options, torch.bfloat16, job.multiprocessors, job.capability)
        for model.pdl in (False, True):
            asked = launched(lambda: outlines.launch(model, decodes))
            asked |= launched(lambda: outlines.launch(model, prompts + mixed))
            missing = sorted(asked - made)
            assert len(asked) > 12, asked
            assert not missing, (str(job), missing)
"""


def python(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.exhaustive
def test_no_step_launches_what_was_not_compiled_ahead():
    few = replace(JOB, config=replace(CONFIG, num_experts=40), multiprocessors=58)
    jobs = (JOB, replace(JOB, dense="int8"), replace(JOB, batch_invariant=True), few)
    python("-c", KEYS, *map(str, jobs))


HITS = """
import sys

import triton

from model.backends.triton import ahead

hits = []
triton.knobs.compilation.listener = lambda **compiled: hits.append(compiled["cache_hit"])
ahead.main(ahead.Job.read(sys.argv[1]), 0, 40)
print(len(hits), sum(hits))
"""


@pytest.mark.exhaustive
def test_what_a_process_compiles_another_finds(monkeypatch, tmp_path):
    """Started as by `started`, with the same environment; later processes need not compile."""
    start = subprocess.Popen

    def one(command, **named):
        return start(command if command[-1] == "0/40" else [sys.executable, "-c", "pass"], **named)

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(ahead.subprocess, "Popen", one)
        assert {process.wait(300) for process in ahead.started(JOB, 40)} == {0}
    compiled, found = map(int, python("-c", HITS, str(JOB)).split())
    assert compiled == found > 0


def launched(monkeypatch, seen):
    """Launch a function, for which Triton compiles `kernel`, within `ahead.compiling(seen)`."""
    kernel = SimpleNamespace(name="some", src="its source", metadata="what it needs")
    monkeypatch.setattr(JITFunction, "run", lambda *_, **__: kernel)
    with ahead.compiling(seen):
        JITFunction.run(SimpleNamespace(fn=None), grid=(1,), warmup=False)
    return kernel


def test_a_process_builds_launchers_where_triton_compiles_them(monkeypatch, caplog):
    """Triton 3.6 compiles 29 C files in a model's first steps, which takes 0.3 s for each."""
    built = []
    monkeypatch.setattr(ahead.nvidia, "make_launcher", None, raising=False)
    monkeypatch.setattr(
        ahead.nvidia, "CudaLauncher", lambda source, metadata: built.append((source, metadata))
    )
    launched(monkeypatch, ahead.with_launcher)
    assert built == [("its source", "what it needs")]

    def refuse(*_):
        raise AssertionError("libcuda.so cannot found!")

    monkeypatch.setattr(ahead.nvidia, "CudaLauncher", refuse)
    launched(monkeypatch, ahead.with_launcher)
    assert "the launcher of some will be built at its first launch: libcuda.so" in caplog.text


def test_what_is_started_compiles_with_launchers(monkeypatch):
    monkeypatch.setattr(ahead.triton.runtime.driver, "set_active", lambda driver: None)
    monkeypatch.setattr(ahead.triton.knobs.runtime, "jit_cache_hook", None)
    monkeypatch.setattr(
        ahead.Job, "compile", lambda job: JITFunction.run(SimpleNamespace(fn=None), grid=(1,), warmup=False)
    )
    kernel, built = SimpleNamespace(src="its source", metadata="what it needs"), []
    monkeypatch.setattr(JITFunction, "run", lambda *_, **__: kernel)
    monkeypatch.setattr(ahead.nvidia, "make_launcher", None, raising=False)
    monkeypatch.setattr(ahead.nvidia, "CudaLauncher", lambda *asked: built.append(asked))
    ahead.main(JOB, 0, 1)
    assert built == [("its source", "what it needs")]


def test_this_process_loads_all_kernels_before_the_first_step(monkeypatch, caplog):
    loaded = []

    def loading(function, named, kernel):
        kernel._init_handles = lambda: loaded.append(kernel)
        ahead.loaded(function, named, kernel)

    assert loaded == [launched(monkeypatch, loading)]

    def failing(function, named, kernel):
        def fail():
            raise RuntimeError("out of resource: shared memory")

        kernel._init_handles = fail
        ahead.loaded(function, named, kernel)

    launched(monkeypatch, failing)
    assert "some cannot be loaded: out of resource" in caplog.text


def test_a_job_is_read_as_it_was_written():
    assert ahead.Job.read(str(JOB)) == JOB
    assert json.loads(str(JOB))["config"]["sliding_window"] == 7


def test_a_change_in_any_kernel_is_compiled_anew(monkeypatch, tmp_path):
    """After kernels moved to another folder, the start after an upgrade compiled them on one core."""
    monkeypatch.setattr(ahead, "SOURCES", tmp_path)
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "norm.py").write_text("one = 1")
    before = JOB.mark
    assert before == JOB.mark
    (tmp_path / "kernels" / "norm.py").write_text("one = 2")
    assert before != JOB.mark
    assert (ahead.Path(ahead.__file__).parent / "kernels" / "norm.py").is_file()


def test_a_job_for_a_gpu_that_is_not_here_has_its_types():
    made = {
        (capability, cache): ahead.Job.of(capability, 1, CONFIG, "int8", cache, False).full_dtype
        for capability in ((8, 0), (9, 0))
        for cache in ("bf16", "fp8")
    }
    assert list(made.values()) == ["bfloat16", "uint8", "bfloat16", "float8_e4m3fn"]


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Marks are written to a folder of the test, and compilations in this process are only counted."""
    made = []
    monkeypatch.setattr(ahead.triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(ahead.Job, "compile", lambda job: made.append(job))
    return made


def test_processes_run_beside_what_is_inside_and_only_the_first_time(here, monkeypatch):
    started = []

    def start(job, count):
        started.append(subprocess.Popen([sys.executable, "-c", "pass"]))
        return started[-1:]

    monkeypatch.setattr(ahead, "started", start)
    for _ in range(2):
        with ahead.compiled(JOB):
            assert len(started) == 1
    assert started[0].returncode == 0
    assert here == [JOB, JOB]
    with ahead.compiled(replace(JOB, multiprocessors=1)):
        assert len(started) == 2


def test_a_process_that_fails_or_hangs_leaves_its_share_to_this_one(here, monkeypatch, caplog):
    programs = ["raise SystemExit(3)", "import time; time.sleep(1000)"]

    def start(job, count):
        processes.extend(subprocess.Popen([sys.executable, "-c", program]) for program in programs)
        return processes

    processes = []
    monkeypatch.setattr(ahead, "started", start)
    monkeypatch.setattr(ahead, "SECONDS", 0.5)
    with ahead.compiled(JOB):
        pass
    assert here == [JOB]
    assert "have not finished" in caplog.text
    assert all(process.returncode is not None for process in processes)


def test_an_error_inside_ends_the_processes_at_once(here, monkeypatch):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    monkeypatch.setattr(ahead, "started", lambda job, count: [sleeper])
    began = time.monotonic()
    with pytest.raises(ValueError, match="no such format"), ahead.compiled(JOB):
        raise ValueError("no such format")
    assert time.monotonic() - began < 60
    assert sleeper.returncode is not None
    assert here == []
    assert not JOB.mark.exists()


def test_a_machine_that_starts_no_process_compiles_alone(here, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError("no more processes")

    monkeypatch.setattr(ahead.subprocess, "Popen", refuse)
    with ahead.compiled(JOB):
        pass
    assert here == [JOB]
    assert "no more processes" in caplog.text
