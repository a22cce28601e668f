"""gpt-oss on an NVIDIA GPU of compute capability 8.0 or later: Triton kernels, which need only torch and
Triton.

A decode step reads weights and computes little, so its time is bytes over bandwidth, and the arithmetic is
done while the bytes arrive.  The kernels are in kernels/.  A layer of a step of few tokens has six kernels:

    dense.py             norm, QKV, bias                      attention's output, bias, residual
    attention_decode.py  rotation, cache write, attention (split over keys; the last program adds the parts)
    router.py            norm, the experts' logits, choice
    experts_few.py       gate and up, activation              down, weighted sum, residual
    last_arrival.py      how the last of several programs continues with the results of all

Steps of more tokens use the library's dense products, and sort the pairs of token and expert:

    norm.py              RMSNorm, in the order of columns and of fragments
    rotary.py, attention_prefill.py      cache write; blocks of queries against pages
    router.py, expert_order.py           the experts' logits, choice, sort
    experts_many.py      gate and up, down, sum

    edits.py, token_choice.py            penalties, biases and masks; sampling

    codes.py             the kernels' layout of MXFP4         weights.py   checkpoint → device
    dense_int8.py        dense weights in eight bits (`--dense int8`)
    triton_model.py      the network, from these kernels      graphs.py    decode steps as CUDA graphs
    dependent_launch.py  kernels that begin early             overlap.py   whether that is faster here
    triton_checks.py     each kernel against plain PyTorch, before the first request
    ahead.py             compiles all kernels at the start, on all cores

Every kernel has a plain version in PyTorch beside it, and is tested against it: with small sizes in Triton's
interpreter, where a sanitizer checks each memory access (tests/tools/sanitizer); with real sizes on a GPU
(tests/gpu, bench/gpu); and with the model's own weights when a model is built.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from model.check import Check
from model.interfaces import Backend
from model.loading.tensors import TensorSource
from model.parallel.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from model.backends.triton.triton_model import TritonModel

log = logging.getLogger(__name__)

OLDEST = (8, 0)
"""Minimum compute capability, for bfloat16 on tensor cores and asynchronous copies."""


def build(
    checkpoint: TensorSource,
    device: torch.device,
    *,
    dense: str = "bf16",
    kv_cache_dtype: str = "bf16",
    batch_invariant: bool = False,
    ranks: Ranks = ALONE,
) -> TritonModel:
    """The checkpoint's model on a GPU; its kernels have been compiled, and compared with plain PyTorch.

    dense            "bf16": attention and unembedding as they were trained; "int8": in eight bits by groups
                     of 64, so that a token reads a third less, and 20b needs 1.2 GB less memory
    kv_cache_dtype   "bf16", or "fp8": keys and values of full layers in eight bits, see fp8.py
    ranks            the ranks that compute the model; the checkpoint is then this rank's part
    batch_invariant  a token's result is bit-identical whatever else is in the batch (slower)

    Raises ImportError without Triton, ValueError for an unsupported device or an unknown format,
    CheckpointError for an unsupported checkpoint, and WrongResult if a kernel's result is wrong on this GPU.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        raise ValueError(f"the triton backend runs on NVIDIA GPUs, not on {device}")
    if device.type == "cuda" and (capability := torch.cuda.get_device_capability(device)) < OLDEST:
        raise ValueError(
            f"the Triton kernels need compute capability 8.0, and {torch.cuda.get_device_name(device)} has"
            f" {capability[0]}.{capability[1]}; --backend reference runs on it, slowly"
        )
    try:
        from model.backends.triton import ahead, overlap
        from model.backends.triton.triton_checks import probe
        from model.backends.triton.triton_model import TritonModel
        from model.backends.triton.weights import Reader
    except ModuleNotFoundError as missing:
        if missing.name != "triton":
            raise
        raise ImportError("it needs the package triton, which torch's builds for CUDA bring along") from None

    def read() -> TritonModel:
        weights = Reader(checkpoint, device, torch.bfloat16, dense).all()
        return TritonModel(checkpoint.config, weights, 32, kv_cache_dtype, batch_invariant, ranks)

    if interpreted:
        return read()
    log.info("compiling and checking the Triton kernels: up to a minute the first time, then seconds")
    job = ahead.Job.on(device, checkpoint.config, dense, kv_cache_dtype, batch_invariant, ranks.size)
    with ahead.compiled(job):
        model = read()
    probe(model)
    model.pdl = overlap.pays(model)
    torch.cuda.empty_cache()  # so that this memory is free for keys and values
    return model


def kernel_checks(model: TritonModel) -> Iterator[Check]:
    """Checks each kernel in steps of several sizes, see triton_checks.py."""
    from model.backends.triton import triton_checks

    return triton_checks.checks(model, triton_checks.TOKENS)


BACKEND = Backend(
    "triton",
    build,
    defaults={"dense": "bf16", "kv_cache_dtype": "bf16", "batch_invariant": False},
    kernel_checks=kernel_checks,
)
