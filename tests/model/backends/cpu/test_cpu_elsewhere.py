"""One step of the demo model on an emulated processor, and with the thread sanitizer.

native/run_step.cpp, which is compiled for this, runs the file that step_file.py writes.  Its result must be
bit-identical to that of this process.
"""

import os
import shutil
import subprocess

import numpy as np
import pytest
import torch

from demo.tokenizer import WEIGHTS
from model.backends.cpu import build, toolchain
from model.backends.cpu.library import isas
from model.loading.checkpoint import Checkpoint
from tests.model.backends.cpu import step_file
from tests.model.backends.cpu.cpu_steps import load
from tests.model.backends.cpu.test_cpu_model import Book, fresh

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(900)]  # a busy machine compiles slowly

CPU = torch.device("cpu")
DRIVER = toolchain.NATIVE.parents[3] / "tests/model/backends/cpu/native/run_step.cpp"


def compiled(folder, command, machine, *flags):
    """The program run_step for a machine, including the library."""
    target = folder / f"run_step-{machine}"
    files = [*toolchain.sources(machine), DRIVER]
    toolchain.link(target, command, files, (f"-I{toolchain.NATIVE}", *flags))
    return target


def needed(*names):
    """Skips the test unless all programs are installed.  Returns the first."""
    for name in names:
        if not name or not shutil.which(name):
            pytest.skip(f"there is no {name or 'C++ compiler'} here")
    return names[0]


@pytest.fixture(scope="module", params=["int8", "bf16"])
def step(request, tmp_path_factory):
    """A file with a step of two chunks, partly a prompt with 8-bit activations; and its logits."""
    load()
    model = build(Checkpoint.open(WEIGHTS), CPU, dense=request.param, threads=1, prompt_activations=8)
    book = Book(model.config, [90, 7])
    batch = book.batch([(0, 0, 90), (1, 0, 7)], samples=[5, 89, 96], prompts=[50, 0])
    cache = fresh(model)
    model.reserve(len(batch.tokens))
    step, logits, held = model.step(batch, cache)
    path = tmp_path_factory.mktemp("step") / f"{request.param}.step"
    step_file.write(path, model, step, [*held, cache.keys, cache.values], logits)
    model.run(step)
    return path, logits.numpy()


def assert_same(program, step, isa, threads):
    path, want = step
    done = subprocess.run([*program, path, isa, str(threads)], capture_output=True, timeout=600)
    if b"unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not run at the addresses it was given")
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    got = np.frombuffer(done.stdout, dtype=np.float32).reshape(want.shape)
    assert np.array_equal(got.view(np.uint32), want.view(np.uint32))


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    """run_step for 64-bit ARM, under emulation."""
    emulator = needed("qemu-aarch64")
    compiler = needed("aarch64-linux-gnu-g++")
    return [emulator, compiled(tmp_path_factory.mktemp("arm"), compiler, "aarch64", "-static")]


@pytest.mark.parametrize("isa", ["neon", "portable"])
def test_an_arm_processor_computes_the_same_bits(step, arm, isa):
    assert_same(arm, step, isa, threads=2)


def test_an_arm_processor_without_dot_products_runs_the_portable_kernels(step, arm):
    older = [arm[0], "-cpu", "cortex-a53", arm[1]]
    done = subprocess.run([*older, step[0], "neon", "1"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert "no such instruction set here; this processor runs portable" in done.stderr


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """run_step for this machine with the thread sanitizer, which ends a program with a data race."""
    compiler = needed(toolchain.compiler())
    flags = ("-O1", "-g", "-fsanitize=thread")
    try:
        program = compiled(tmp_path_factory.mktemp("tsan"), compiler, toolchain.MACHINE, *flags)
    except RuntimeError as error:
        if "tsan" in str(error):
            pytest.skip("the compiler has no thread sanitizer")
        raise
    # The sanitizer of GCC 12 wants its memory where random addresses may already be; a container may not let
    # us ask for others.
    told = ""
    for prefix in ([shutil.which("setarch") or "setarch", os.uname().machine, "-R"], []):
        if not prefix or shutil.which(prefix[0]):
            told = subprocess.run([*prefix, program], capture_output=True, text=True, timeout=60).stderr
            if "give FILE" in told:
                return [*prefix, program]
    pytest.skip(f"the thread sanitizer does not run here: {told[:200]}")


def test_threads_do_not_race(step, watched):
    assert_same(watched, step, isas(load())[0], threads=3)
