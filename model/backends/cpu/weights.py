"""Converts a checkpoint to the weights that the native library reads, one tensor at a time, so that none is
in memory twice.

native/layout.h describes the layout.  The embedding, and the unembedding for rescoring, stay in the
checkpoint's mapped file, because a step uses only a few of their rows.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

from model.backends.cpu.program import BF16, HIGH, INT8, LOW, MXFP4
from model.config import CheckpointError, ModelConfig
from model.loading.tensors import TensorSource

DENSE_FORMATS = {"int8": INT8, "bf16": BF16}
TILE = 32

SMALL_UNEMBEDDING = 2 * 2**20
"""An unembedding of at most this many bytes stays in bf16.  It fits into a core's cache, where shorter codes
are not read faster, and finding the logits to rescore would take longer than computing all of them.
"""


def allocate(nbytes: int) -> Tensor:
    """Zeroed memory [nbytes] uint8, in huge pages if the system has them: 5 to 40% more bandwidth."""
    memory = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


@dataclass(frozen=True, slots=True)
class Packed:
    """One matrix [outputs, inputs], or one per expert, in tiles.

    data  uint8
    bias  [outputs rounded up to 32], or one row per expert; float32
    """

    data: Tensor
    bias: Tensor | None
    format: int
    outputs: int
    inputs: int


@dataclass(frozen=True, slots=True)
class Layer:
    attention_norm: Tensor
    qkv: Packed
    sinks: Tensor
    out: Packed
    experts_norm: Tensor
    gate: Packed
    mlp1: Packed
    mlp2: Packed


@dataclass(frozen=True, slots=True)
class Weights:
    """
    embedding    [V, C] bf16, in the checkpoint's file
    table        [V, C] bf16, the unembedding in the checkpoint's file; None if logits are not rescored
    unembedding  in bf16; or the upper halves of its int8 codes, then the lower ones
    """

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    unembedding: tuple[Packed, ...]
    table: Tensor | None

    @property
    def nbytes(self) -> int:
        """Memory of the weights, without those that stay in the checkpoint's files."""
        packed = [*self.unembedding]
        for layer in self.layers:
            packed += [layer.qkv, layer.out, layer.gate, layer.mlp1, layer.mlp2]
        return sum(each.data.nbytes + (0 if each.bias is None else each.bias.nbytes) for each in packed)


class Packer:
    """Reads tensors of one checkpoint and packs them with all threads of `machine`."""

    def __init__(self, library: ctypes.CDLL, machine: int, checkpoint: TensorSource, dense: int):
        self.library = library
        self.machine = machine
        self.checkpoint = checkpoint
        self.format = dense

    def all(self) -> Weights:
        config = self.checkpoint.config
        check(config)
        unembedding = self.read("unembedding.weight")
        halves = self.format == INT8 and unembedding.nbytes > SMALL_UNEMBEDDING
        formats = (HIGH, LOW) if halves else (BF16,)
        return Weights(
            embedding=self.read("embedding.weight"),
            layers=tuple(self.layer(f"block.{n}") for n in range(config.num_layers)),
            norm=self.vector("norm.scale"),
            unembedding=tuple(self.pack(unembedding, None, format) for format in formats),
            table=unembedding if halves else None,
        )

    def layer(self, block: str) -> Layer:
        return Layer(
            attention_norm=self.vector(f"{block}.attn.norm.scale"),
            qkv=self.dense(f"{block}.attn.qkv", self.format),
            sinks=self.vector(f"{block}.attn.sinks"),
            out=self.dense(f"{block}.attn.out", self.format),
            experts_norm=self.vector(f"{block}.mlp.norm.scale"),
            gate=self.dense(
                f"{block}.mlp.gate", BF16
            ),  # bf16: it is small, and an error could choose other experts
            mlp1=self.experts(f"{block}.mlp.mlp1", paired=True),
            mlp2=self.experts(f"{block}.mlp.mlp2", paired=False),
        )

    def read(self, name: str) -> Tensor:
        return self.checkpoint.read(name).contiguous()

    def vector(self, name: str) -> Tensor:
        return self.read(name).float()

    def dense(self, name: str, format: int) -> Packed:
        return self.pack(self.read(f"{name}.weight"), self.vector(f"{name}.bias"), format)

    def pack(self, weight: Tensor, bias: Tensor | None, format: int) -> Packed:
        outputs, inputs = weight.shape
        data = allocate(self.library.gptoss_packed_bytes(format, outputs, inputs))
        self.library.gptoss_pack_dense(
            self.machine, format, weight.data_ptr(), outputs, inputs, data.data_ptr()
        )
        if bias is not None:
            bias = torch.nn.functional.pad(bias, (0, -outputs % TILE))
        return Packed(data, bias, format, outputs, inputs)

    def experts(self, name: str, paired: bool) -> Packed:
        """All experts of one matrix.  `paired`: each tile has 16 gates, then their 16 values."""
        blocks, scales = self.read(f"{name}_weight.blocks"), self.read(f"{name}_weight.scales")
        experts, outputs, groups, _ = blocks.shape
        inputs = 32 * groups
        if (scales == 255).any():
            raise CheckpointError(f"{name}_weight.scales holds 255, which is not a number in MXFP4")
        data = allocate(experts * self.library.gptoss_packed_bytes(MXFP4, outputs, inputs))
        self.library.gptoss_pack_mxfp4(
            self.machine,
            blocks.data_ptr(),
            scales.data_ptr(),
            experts,
            outputs,
            inputs,
            paired,
            data.data_ptr(),
        )
        bias = self.vector(f"{name}_bias")
        if paired:
            bias = bias.view(experts, -1, 16, 2).transpose(2, 3).reshape(experts, outputs)
        return Packed(data, torch.nn.functional.pad(bias, (0, -outputs % TILE)), MXFP4, outputs, inputs)


def check(config: ModelConfig) -> None:
    """Raises CheckpointError for sizes that the tiles do not support; the reference backend supports all."""
    for name, size in (
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_attention_heads * head_dim", config.num_heads * config.head_dim),
    ):
        if size % 32:
            raise CheckpointError(f"the CPU kernels need {name} to be a multiple of 32, not {size}")
