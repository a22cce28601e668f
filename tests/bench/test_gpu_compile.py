"""The Triton kernels compile for GPUs that this machine does not have, because the interpreter accepts more
than the compiler.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tests.model.backends.triton.triton_here  # noqa: F401   first: see there

# isort: split
from bench.gpu import compile as gpu_compile

ROOT = Path(__file__).parents[2]


def compiled(folder, *asked):
    """The resources of all kernels of decodes with 1 and 24 rows, and of a prefill, at the sizes of 20b;
    compiled by a process without the interpreter.
    """
    environ = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "bench.gpu.compile", "--steps", "1x1,24x1,1x512", *asked]
    run = subprocess.run([*command, "--keep", str(folder)], env=environ, capture_output=True, text=True)
    assert run.stdout.endswith("}\n"), run.stdout + run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == (1 if found["faults"] else 0)
    return found


def test_a_folder_without_a_config_is_told():
    command = [sys.executable, "-m", "bench.gpu.compile", "--model", os.devnull]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith("python -m bench.gpu.compile: error: ")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(("stack", "shared", "code"), [(0, 99 << 10, 0), (8, 0, 1), (0, (227 << 10) + 1, 1)])
def test_a_spilled_register_or_too_much_shared_memory_is_an_error(
    stack, shared, code, tmp_path, monkeypatch, capsys
):
    """Before, registers of a kernel spilled with the locked Triton, and no test failed."""

    class Figures:
        def __init__(self, *_):
            self.__dict__.update(dict.fromkeys(("registers", "loop", "barriers", "products", "buffers"), 1))
            self.stack, self.shared, self.warps = stack, shared, 4

    monkeypatch.setattr(gpu_compile, "compile_all", lambda *_: {("_row_kernel dense", "K=4096"): None})
    monkeypatch.setattr(gpu_compile, "Figures", Figures)
    monkeypatch.setattr(sys, "argv", ["compile", "--keep", str(tmp_path)])
    assert gpu_compile.main() == code
    assert ("FAULT" in capsys.readouterr().out) == bool(code)


def names(found):
    return {row["kernel"] for row in found["kernels"]}


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_kernels_compile_for_a_hopper_without_spilling(tmp_path):
    found = compiled(tmp_path, "--capability", "90")
    kernels = names(found)
    assert found["faults"] == 0
    assert {"_decode_kernel attention_decode", "_prefill_kernel attention_prefill"} <= kernels
    assert {"_down_kernel experts_few", "_down_kernel experts_many", "_stage_kernel graphs"} <= kernels
    assert len(kernels) >= 17
    sorted_experts = [row for row in found["kernels"] if row["kernel"].endswith("_kernel experts_many")]
    sorted_experts = [row for row in sorted_experts if row["products"]]
    assert len(sorted_experts) >= 4
    for row in sorted_experts:
        block = int(re.search(r"BN=(\d+)", row["constants"])[1])
        weights = 2 * block * 128 / (32 * row["warps"])  # that a lane decodes in one round of the loop
        assert row["loop"] / weights <= 4, row
        assert row["products"] == 16, row
        assert row["barriers"] <= 3, row
    counting = [*tmp_path.glob("_router_kernel*.ptx"), *tmp_path.glob("_decode_kernel*SPLITS_64*.ptx")]
    assert len(counting) >= 4
    for path in counting:
        assert_stores_come_before_the_count_and_loads_after(path.read_text())
    for row in found["kernels"]:  # whoever waits for memory in a loop has the next tile on its way
        if row["kernel"].startswith(("_decode_kernel", "_prefill_kernel", "_rows_kernel")):
            assert row["buffers"] >= 2, row


def assert_stores_come_before_the_count_and_loads_after(ptx):
    """In last_arrival.py all threads wait before one counts, and again before they continue."""
    steps = re.findall(r"st\.global|bar\.sync|atom\.global\.gpu\.acq_rel|ld\.global", ptx)
    count = steps.index("atom.global.gpu.acq_rel")
    before, after = steps[:count], steps[count + 1 :]
    assert "bar.sync" in before[len(before) - before[::-1].index("st.global") :]
    assert "bar.sync" in after[: after.index("ld.global")]


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("capability", ["80", "90"], ids=["Ampere: fp8 as bytes", "Hopper: fp8 of its own"])
def test_eight_bits_compile_without_spilling(tmp_path, capability):
    asked = ("--capability", capability, "--dense", "int8", "--kv-cache-dtype", "fp8")
    rows = {row["kernel"]: row for row in compiled(tmp_path, *asked)["kernels"]}
    for name in ("_row_kernel dense_int8", "_rows_kernel dense_int8", "_write_kernel rotary"):
        assert rows[name]["stack"] == 0
    for name in ("_decode_kernel attention_decode", "_prefill_kernel attention_prefill"):
        assert rows[name]["stack"] == 0


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_the_bundled_demos_kernels_compile_without_spilling(tmp_path):
    """The model of a first start: small sizes, and tiles that are wider than its matrices."""
    found = compiled(tmp_path, "--model", str(ROOT / "demo" / "weights"), "--capability", "80")
    assert found["faults"] == 0
    assert len(names(found)) >= 17


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_batch_invariant_kernels_compile_without_spilling_and_are_one_of_each(tmp_path):
    """Decodes use the kernels of prompts."""
    found = compiled(tmp_path, "--batch-invariant")
    assert found["faults"] == 0
    kernels = names(found)
    assert {"_merge_kernel attention_prefill", "_rows_kernel dense", "_down_kernel experts_many"} <= kernels
    assert not kernels & {"_decode_kernel attention_decode", "_row_kernel dense", "_down_kernel experts_few"}
