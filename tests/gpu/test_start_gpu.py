"""The start on a real GPU, before the first request: it compiles all kernels, and tests overlapping launches.

python -m pytest -m gpu tests/gpu
"""

import time
from dataclasses import replace

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("there is no GPU that torch can use", allow_module_level=True)
pytest.importorskip("triton", reason="Triton is not installed")

import triton

from bench.gpu.load import Decode, Prefill, Random
from model.backends.triton import ahead, overlap
from model.backends.triton.kernels import dependent_launch
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.loading.synthetic import SIZES

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

CUDA = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def model():
    """The real sizes of 20b, with two layers."""
    config = replace(SIZES["20b"], num_layers=2)
    with torch.inference_mode():
        return TritonModel(config, Reader(Random(config), CUDA, torch.bfloat16).all())


@torch.inference_mode()
def test_kernels_that_overlap_give_the_same_bits(model):
    if torch.cuda.get_device_capability(CUDA) < dependent_launch.OLDEST:
        assert not overlap.pays(model)
        pytest.skip("this GPU cannot launch kernels so")
    apart, overlapping, same = overlap.measure(model)
    print(f"{1e3 * apart:.3f} ms apart, {1e3 * overlapping:.3f} overlapping")
    assert same
    assert apart > 0
    assert overlapping > 0


@torch.inference_mode()
def test_after_the_start_nothing_is_compiled(model, monkeypatch, tmp_path):
    """Processes compile into an empty cache, as in a first start; then steps of many sizes run."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    job = ahead.Job.on(CUDA, model.config, "bf16", "bf16", False)
    began = time.perf_counter()
    with ahead.compiled(job):
        pass
    print(f"compiled in {time.perf_counter() - began:.1f} s")
    assert job.mark.exists()

    late = []
    monkeypatch.setattr(triton.knobs.runtime, "jit_cache_hook", lambda **asked: late.append(asked["fn"].name))
    for model.pdl in (False, True) if job.capability >= dependent_launch.OLDEST else (False,):
        for rows in (1, 2, 3, 5, 8, 13, 20, 64, 100):
            load = Decode(model, rows, 300)
            model.forward(load.batch(0), load.cache)
            load.close()
    model.pdl = False
    for tokens in (2, 7, 12, 40, 200, 300, 700, 2048):
        load = Prefill(model, tokens)
        model.forward(load.batch, load.cache)
    torch.cuda.synchronize()
    assert late == []
