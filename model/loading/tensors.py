"""The tensors of a gpt-oss by name, which backends read from files, from random weights, or from a test.

Names are those of the original layout.  All tensors are bfloat16, except the blocks and scales of experts in
MXFP4, which are uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from model.config import ModelConfig
from model.loading import mxfp4

Shape = tuple[int, ...]


class TensorSource(Protocol):
    """Where a backend reads its weights from: a `Checkpoint`, or `Synthetic`."""

    @property
    def config(self) -> ModelConfig: ...

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU unless the source says otherwise.  It must not be written to.

        Raises CheckpointError.
        """

    def onto(self, device: torch.device) -> DeviceTensors:
        """All tensors on a device, to be read one after the other."""


class DeviceTensors(Protocol):
    """The tensors of a `TensorSource` on a device.  A context, entered once; its exit ends all work."""

    def __enter__(self) -> DeviceTensors: ...
    def __exit__(self, *raised: Any) -> None: ...

    def read(self, name: str) -> Tensor:
        """The next tensor in the order of `shapes`, in new memory of the device.

        Raises CheckpointError if a file cannot be read, or has become too short.
        """


class ReadAndMoved:
    """`DeviceTensors` of a source without files: each tensor is read when it is requested, and copied."""

    def __init__(self, read: Callable[[str], Tensor], device: torch.device):
        self._read = read
        self._device = device

    def __enter__(self) -> ReadAndMoved:
        return self

    def __exit__(self, *raised: Any) -> None:
        pass

    def read(self, name: str) -> Tensor:
        return self._read(name).to(self._device)


def dtype(name: str) -> torch.dtype:
    """The type of the tensor with this name."""
    return torch.uint8 if name.endswith((".blocks", ".scales")) else torch.bfloat16


def nbytes(name: str, shape: Shape) -> int:
    """The size in bytes of the tensor with this name and shape."""
    return dtype(name).itemsize * math.prod(shape)


def shapes(config: ModelConfig) -> dict[str, Shape]:
    """The names of all tensors, in the order of computation, and their shapes."""
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    hidden, width, experts = config.hidden_size, config.intermediate_size, config.num_experts
    shapes: dict[str, Shape] = {"embedding.weight": (config.vocab_size, hidden)}
    for n in range(config.num_layers):
        shapes |= {
            f"block.{n}.attn.norm.scale": (hidden,),
            f"block.{n}.attn.qkv.weight": (heads + 2 * kv_heads, hidden),
            f"block.{n}.attn.qkv.bias": (heads + 2 * kv_heads,),
            f"block.{n}.attn.sinks": (config.num_heads,),
            f"block.{n}.attn.out.weight": (hidden, heads),
            f"block.{n}.attn.out.bias": (hidden,),
            f"block.{n}.mlp.norm.scale": (hidden,),
            f"block.{n}.mlp.gate.weight": (experts, hidden),
            f"block.{n}.mlp.gate.bias": (experts,),
            f"block.{n}.mlp.mlp1_weight.blocks": (
                experts,
                2 * width,
                hidden // mxfp4.BLOCK,
                mxfp4.BLOCK // 2,
            ),
            f"block.{n}.mlp.mlp1_weight.scales": (experts, 2 * width, hidden // mxfp4.BLOCK),
            f"block.{n}.mlp.mlp1_bias": (experts, 2 * width),
            f"block.{n}.mlp.mlp2_weight.blocks": (experts, hidden, width // mxfp4.BLOCK, mxfp4.BLOCK // 2),
            f"block.{n}.mlp.mlp2_weight.scales": (experts, hidden, width // mxfp4.BLOCK),
            f"block.{n}.mlp.mlp2_bias": (experts, hidden),
        }
    return shapes | {"norm.scale": (hidden,), "unembedding.weight": (config.vocab_size, hidden)}
