"""The Triton kernels compile for a GPU that is not here: an interpreter lets pass what a compiler may not."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kernels_compile_for_a_hopper_without_spilling(tmp_path):
    """At the sizes of 20b: a decode of one and of 24, and a prefill; in a process that interprets nothing."""
    environ = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    asked = ["--capability", "90", "--steps", "1x1,24x1,1x512", "--keep", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "bench.gpu_compile", *asked], env=environ, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["faults"] == 0
    kernels = {row["kernel"] for row in found["kernels"]}
    assert {"_decode_kernel attention_decode", "_prefill_kernel attention_prefill"} <= kernels
    assert {"_down_kernel experts_few", "_down_kernel experts_many", "_stage_kernel graphs"} <= kernels
    assert len(kernels) >= 17
