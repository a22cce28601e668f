"""Which part of each tensor a rank has, if several ranks compute one model (model/parallel).

A part has the name of its tensor.  With the sizes of `Ranks.config`, the parts of a rank are a smaller
gpt-oss, with two exceptions: every rank has the whole router; and the bias of attention's output must be
added only once, so rank 0 has it and the others have zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig
from model.loading.tensors import DeviceTensors, Shape, TensorSource, shapes
from model.parallel.ranks import Ranks

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of one tensor.

    rows     ranges along its first dimension, in ascending order, which are concatenated
    columns  the range along its second dimension; None: all
    shape    of the part; if it has more rows than `rows`, the others are zeros
    """

    rows: tuple[Range, ...]
    columns: Range | None
    shape: Shape


def cuts(whole: ModelConfig, ranks: Ranks) -> dict[str, Cut]:
    """The part of each tensor, by name, in the order of computation.  Raises CheckpointError."""
    return {name: _cut(name, shape, whole, ranks) for name, shape in shapes(whole).items()}


def _cut(name: str, shape: Shape, whole: ModelConfig, ranks: Ranks) -> Cut:
    own, kind = ranks.config(whole), name.split(".", 2)[-1] if name.startswith("block.") else name
    if kind in ("embedding.weight", "unembedding.weight"):
        first = ranks.first(own.vocab_size)
        end = min(first + own.vocab_size, whole.vocab_size)
        own_rows = ((first, end),) if first < end else ()
        return Cut(own_rows, None, (own.vocab_size, *shape[1:]))
    if kind in ("attn.qkv.weight", "attn.qkv.bias"):
        queries, keys = own.num_heads * own.head_dim, own.num_kv_heads * own.head_dim
        q = ranks.first(queries)
        k = queries * ranks.size + ranks.first(keys)
        v = k + keys * ranks.size
        rows = ((q, q + queries), (k, k + keys), (v, v + keys))
        return Cut(rows, None, (queries + 2 * keys, *shape[1:]))
    if kind == "attn.sinks":
        return _range(ranks.first(own.num_heads), own.num_heads, shape)
    if kind == "attn.out.weight":
        width = own.num_heads * own.head_dim
        first = ranks.first(width)
        return Cut(((0, shape[0]),), (first, first + width), (shape[0], width))
    if kind == "attn.out.bias":
        return Cut(() if ranks.rank else ((0, shape[0]),), None, shape)
    if kind.startswith(("mlp.mlp1", "mlp.mlp2")):
        return _range(ranks.first(own.num_experts), own.num_experts, shape)
    return Cut(((0, shape[0]),), None, shape)  # norms, and the router


def _range(first: int, count: int, shape: Shape) -> Cut:
    return Cut(((first, first + count),), None, (count, *shape[1:]))


class Part:
    """A `TensorSource`: one rank's part of another source.  (For files, `Checkpoint.part` reads only the
    part.)

    config  the sizes of the part
    """

    def __init__(self, source: TensorSource, ranks: Ranks):
        self.config = ranks.config(source.config)
        self._source = source
        self._cuts = cuts(source.config, ranks)

    def read(self, name: str) -> Tensor:
        return _of(self._source.read(name), self._cuts[name])

    def onto(self, device: torch.device) -> DeviceTensors:
        return _PartOnto(self._source.onto(device), self._cuts)


class _PartOnto:
    def __init__(self, tensors: DeviceTensors, cuts: dict[str, Cut]):
        self._tensors = tensors
        self._cuts = cuts

    def __enter__(self) -> _PartOnto:
        self._tensors.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._tensors.__exit__(*raised)

    def read(self, name: str) -> Tensor:
        return _of(self._tensors.read(name), self._cuts[name])


def _of(tensor: Tensor, cut: Cut) -> Tensor:
    """The part of a whole tensor, copied to new memory."""
    part = tensor.new_zeros(cut.shape)
    row = 0
    for begin, end in cut.rows:
        rows = tensor[begin:end]
        part[row : row + end - begin] = rows if cut.columns is None else rows[:, slice(*cut.columns)]
        row += end - begin
    return part
