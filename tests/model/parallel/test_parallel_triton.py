"""Several ranks together compute what one computes alone: the Triton backend, in the interpreter, with a
process for each rank.

In float32, so that only the order of sums differs.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE

# isort: split
from tests import tiny_checkpoint
from tests.model.parallel import triton_rank

pytestmark = [
    pytest.mark.timeout(600),  # the interpreter is slow on a busy machine
    pytest.mark.skipif(DEVICE.type != "cpu", reason="in the interpreter"),
]


@pytest.mark.exhaustive
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_together_have_the_logits_of_one_alone(size, tmp_path):
    folder = tmp_path / "tiny"
    tiny_checkpoint.write(folder, "hf", triton_rank.CONFIG, seed=5)
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    root = Path(__file__).parents[3]
    processes = []
    for rank, of in [(0, 1), *((rank, size) for rank in range(size))]:
        command = [sys.executable, "-m", "tests.model.parallel.triton_rank"]
        command += [str(folder), str(tmp_path), str(rank), str(of)]
        processes.append(subprocess.Popen(command, env=environment, cwd=root))
    try:
        assert [process.wait(500) for process in processes] == [0] * (size + 1)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    want = torch.load(tmp_path / "logits-0-of-1", weights_only=True)
    for rank in range(size):
        got = torch.load(tmp_path / f"logits-{rank}-of-{size}", weights_only=True)
        torch.testing.assert_close(got, want, rtol=0, atol=3e-4)
