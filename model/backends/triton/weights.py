"""Converts a checkpoint to weights on the device, in the kernels' layout, one tensor at a time.

Dense weights stay as in the checkpoint, or are converted to eight bits (dense_int8.py).  The experts' blocks
stay too, except for the order of bits in each word, which is changed in place (codes.py).  Their scales stay
bytes.

The conversion runs on the device while the next tensors are uploaded (`Checkpoint.onto`); the host waits for
the device only once, at the end.  Beside the weights, the device holds only the tensor that is being
converted, and those that are being uploaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from model.backends.triton.kernels import codes
from model.backends.triton.kernels.dense import Dense
from model.backends.triton.kernels.dense_int8 import quantise
from model.config import CheckpointError, ModelConfig
from model.loading.mxfp4 import decode
from model.loading.tensors import TensorSource


@dataclass(frozen=True, slots=True)
class Matrices:
    """One matrix [outputs, K] of every expert.

    words   [E, outputs, K / 8] int32, see codes.py
    scales  [E, outputs, K / 32] uint8
    bias    [E, outputs]
    """

    words: Tensor
    scales: Tensor
    bias: Tensor

    @property
    def nbytes(self) -> int:
        return self.words.nbytes + self.scales.nbytes + self.bias.nbytes

    def decoded(self, expert: int) -> Tensor:
        """One expert's matrix [outputs, K] float32, for comparison."""
        return decode(codes.unpack(self.words[expert]), self.scales[expert], torch.float32)


@dataclass(frozen=True, slots=True)
class Layer:
    """norms [C], qkv [(H + 2 KV) * D, C], sinks [H] float32, out [C, H * D], gate [E, C]."""

    attention_norm: Tensor
    qkv: Dense
    qkv_bias: Tensor
    sinks: Tensor
    out: Dense
    out_bias: Tensor
    experts_norm: Tensor
    gate: Tensor
    gate_bias: Tensor
    mlp1: Matrices
    mlp2: Matrices


@dataclass(frozen=True, slots=True)
class Weights:
    """embedding, unembedding [V, C], norm [C]."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    unembedding: Dense

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in _tensors(self))


def _tensors(held: object) -> Iterator[Tensor]:
    for field in fields(held):  # type: ignore[arg-type]
        value = getattr(held, field.name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Tensor):
                yield each
            else:
                yield from _tensors(each)


DENSE_FORMATS = ("bf16", "int8")


class Reader:
    """Reads the tensors of one checkpoint onto a device, once; all but the experts' in `dtype`.

    dense  format of attention's matrices and the unembedding: "bf16" (in `dtype`) or "int8"
    """

    def __init__(
        self, checkpoint: TensorSource, device: torch.device, dtype: torch.dtype, dense: str = "bf16"
    ):
        if dense not in DENSE_FORMATS:
            raise ValueError(f"dense weights can be kept as {' or '.join(DENSE_FORMATS)}, not {dense!r}")
        self.checkpoint = checkpoint
        self.device = device
        self.dtype = dtype
        self.format = dense
        self.tensors = checkpoint.onto(device)

    def all(self) -> Weights:
        """Raises CheckpointError for sizes or scales that the kernels do not support."""
        check(self.checkpoint.config)
        on_gpu = self.device.type == "cuda"
        with torch.cuda.device(self.device) if on_gpu else contextlib.nullcontext(), self.tensors:
            weights = Weights(
                embedding=self.dense("embedding.weight"),
                layers=tuple(self.layer(f"block.{n}") for n in range(self.checkpoint.config.num_layers)),
                norm=self.dense("norm.scale"),
                unembedding=self.matrix("unembedding.weight"),
            )
            self.check_scales(weights)
        return weights

    def layer(self, block: str) -> Layer:
        return Layer(
            attention_norm=self.dense(f"{block}.attn.norm.scale"),
            qkv=self.matrix(f"{block}.attn.qkv.weight"),
            qkv_bias=self.dense(f"{block}.attn.qkv.bias"),
            sinks=self.dense(f"{block}.attn.sinks").float(),
            out=self.matrix(f"{block}.attn.out.weight"),
            out_bias=self.dense(f"{block}.attn.out.bias"),
            experts_norm=self.dense(f"{block}.mlp.norm.scale"),
            gate=self.dense(f"{block}.mlp.gate.weight"),
            gate_bias=self.dense(f"{block}.mlp.gate.bias"),
            mlp1=self.experts(f"{block}.mlp.mlp1"),
            mlp2=self.experts(f"{block}.mlp.mlp2"),
        )

    def dense(self, name: str) -> Tensor:
        return self.tensors.read(name).to(self.dtype).contiguous()

    def matrix(self, name: str) -> Dense:
        if self.format == "int8":
            return quantise(self.tensors.read(name), self.device)
        return self.dense(name)

    def experts(self, name: str) -> Matrices:
        blocks = self.tensors.read(f"{name}_weight.blocks").contiguous()
        scales = self.tensors.read(f"{name}_weight.scales").contiguous()
        return Matrices(codes.pack(blocks), scales, self.dense(f"{name}_bias"))

    def check_scales(self, weights: Weights) -> None:
        """Raises CheckpointError.  Checks all scales together, because the host waits for the result."""
        scales = {
            f"block.{n}.mlp.{kind}_weight.scales": matrices.scales.max()
            for n, layer in enumerate(weights.layers)
            for kind, matrices in (("mlp1", layer.mlp1), ("mlp2", layer.mlp2))
        }
        for name, largest in zip(scales, torch.stack([*scales.values()]).tolist(), strict=True):
            if largest > codes.LARGEST_SCALE:
                raise CheckpointError(
                    f"{name} holds {largest}: the Triton kernels support scales up to"
                    f" {codes.LARGEST_SCALE}, 2 ** {codes.LARGEST_SCALE - 127}; the reference backend"
                    " supports all"
                )


def check(config: ModelConfig) -> None:
    """Raises CheckpointError for sizes that the kernels' tiles do not support; the reference backend supports
    all.
    """
    if config.head_dim & (config.head_dim - 1) or config.head_dim < 16:
        raise CheckpointError(
            f"the Triton kernels need head_dim to be a power of two from 16 on, not {config.head_dim}"
        )
