"""A checkpoint: a folder of safetensors files, read one tensor at a time under the names of tensors.py.

Tensors are read from memory-mapped files (`read`), or by several threads onto a device (`onto`).  gpt-oss is
published in several layouts; for each, one function maps our names to stored tensors:

    original           block.0.mlp.mlp1_weight.blocks ...                        our own names
    Hugging Face       model.layers.0.mlp.experts.gate_up_proj_blocks ...        q, k and v separate
    the same, bf16     model.layers.0.mlp.experts.gate_up_proj                   experts encoded when read

A published folder has both layouts: then the files at its top are used, and `original/` only if there are
none.  Opening reads only headers, and checks every name, shape and type against config.json, so that a wrong
folder is refused at once.  Nothing is ever unpickled.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import CheckpointError, ModelConfig
from model.loading import mxfp4
from model.loading.part import Cut, cuts
from model.loading.shards import Stored, open_all, some, weights_folder
from model.loading.tensors import DeviceTensors, Shape, dtype, nbytes, shapes
from model.loading.upload import Uploads, channel
from model.parallel.ranks import Ranks

log = logging.getLogger(__name__)

RECENT = 12
"""The pages of this many most recently read tensors stay in memory: more than one matrix of experts needs."""

AHEAD_BYTES = 512 << 20
"""Bytes that the system is asked to read ahead: enough for a fast disk while the last tensor is packed."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one of our tensors is made from stored ones.

    parts    stored names and their shapes, concatenated along the first dimension.  Further rows of the
             tensor are zeros: a rank's part may be longer than its rows in the file, or only zeros
    encoded  0 or 1: the blocks or the scales of the only part, which is bf16 [E, in, out] and must be encoded
             first; None: the tensor is stored as it is
    """

    parts: Mapping[str, Shape]
    encoded: int | None = None


class Checkpoint:
    """A `TensorSource` of the files of one folder.

    config    the contents of its config.json
    folder    the folder of its safetensors files
    names     names of all tensors, in the order of computation
    nbytes    size of all tensors together, as `read` returns them
    on_read   called with the size of each tensor when it is first read, to show the progress
    """

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        stored: Mapping[str, Stored],
        recipes: Mapping[str, Recipe],
        part: Mapping[str, Shape] | None = None,
    ):
        """
        part  shapes of the tensors, if they are not those of `config`
        """
        self.folder = folder
        self.config = config
        self._shapes = shapes(config) if part is None else part
        self.names = tuple(self._shapes)
        self.nbytes = sum(nbytes(name, shape) for name, shape in self._shapes.items())
        self.on_read: Callable[[int], object] = lambda size: None
        self._stored = stored
        self._recipes = recipes
        self._announced: set[str] = set()
        self._unread = set(self.names)
        self._recent: deque[Stored] = deque(maxlen=RECENT)
        self._encoder = _Encoder(
            folder, {part for r in recipes.values() if r.encoded is not None for part in r.parts}
        )

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """The checkpoint in `folder`, checked but not read.  Raises CheckpointError."""
        folder = weights_folder(folder)
        config = ModelConfig.read(folder)
        stored = open_all(folder)
        recipes = _recipes(folder, config, stored)
        _check(folder, recipes, stored)
        return cls(folder, config, stored, recipes)

    def part(self, ranks: Ranks) -> Checkpoint:
        """One rank's part of the checkpoint, which reads only that part's bytes.  Raises CheckpointError."""
        config, of_names = ranks.config(self.config), cuts(self.config, ranks)
        stored: dict[str, Stored] = {}
        recipes = {}
        for name, recipe in self._recipes.items():
            pieces = dict(_pieces(recipe, of_names[name], self._stored))
            stored |= pieces
            parts = {piece: held.shape for piece, held in pieces.items()}
            recipes[name] = Recipe(parts, recipe.encoded)
        part_shapes = {name: cut.shape for name, cut in of_names.items()}
        return Checkpoint(self.folder, config, stored, recipes, part_shapes)

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json beside the weights or one folder up.  Raises CheckpointError if none is."""
        for folder in (self.folder, self.folder.resolve().parent):
            if (path := folder / "tokenizer.json").is_file():
                return path
        raise CheckpointError(f"there is no tokenizer.json in {self.folder} or one folder up")

    def read(self, name: str) -> Tensor:
        """One tensor on the CPU: uint8 if MXFP4 blocks or scales, else bfloat16.

        If the file has the tensor as it is, the result is the memory of the mapped file, and must not be
        written to.  Later calls free these pages (touching them reads them again), so that weights that a
        backend has packed are not in memory twice.  Meanwhile the system reads the next tensors of `names`
        from the disk.
        """
        recipe = self._recipes[name]
        self._release_old()
        self._announce(name)
        self._recent.extend(self._stored[part] for part in recipe.parts)
        self._count(name)
        if recipe.encoded is not None:
            (part,) = recipe.parts
            return self._encoder.encode(part, self._stored[part].tensor())[recipe.encoded]
        return self._end_to_end(name, [self._stored[part].tensor() for part in recipe.parts])

    def onto(self, device: torch.device) -> DeviceTensors:
        """All tensors on a device, to be read one after the other."""
        return _Uploaded(self, device)

    def _end_to_end(self, name: str, parts: list[Tensor], device: torch.device | None = None) -> Tensor:
        """One of our tensors, concatenated from stored ones: bfloat16, unless it is uint8."""
        shape, kind = self._shapes[name], dtype(name)
        if missing := shape[0] - sum(len(part) for part in parts):
            parts = [*parts, torch.zeros(missing, *shape[1:], dtype=kind, device=device)]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        return tensor.to(kind)

    def _count(self, name: str) -> None:
        """Report the bytes of a tensor that is read for the first time."""
        if name in self._unread:
            self._unread.remove(name)
            self.on_read(nbytes(name, self._shapes[name]))

    def _release_old(self) -> None:
        """Free the pages of older tensors.  The latest few stay: a backend reads several, then packs them
        together.
        """
        for stored in self._recent:
            stored.release()

    def _announce(self, name: str) -> None:
        """Ask the system to read this tensor and those that follow it."""
        ahead = 0
        for next_name in self.names[self.names.index(name) :]:
            for part in self._recipes[next_name].parts.keys() - self._announced:
                self._stored[part].announce()
                self._announced.add(part)
            ahead += nbytes(next_name, self._shapes[next_name])
            if ahead > AHEAD_BYTES:
                break


class _Uploaded:
    """`DeviceTensors` of a checkpoint: each tensor is made on the device from its stored bytes.

    The bytes are uploaded in advance (upload.py).  Experts that must be encoded first are read and encoded on
    the host when they are requested.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device):
        self._checkpoint = checkpoint
        self._device = device
        self._order = iter(checkpoint.names)
        stored = [checkpoint._stored[part] for name in checkpoint.names for part in self._parts(name)]
        self._bytes = Uploads([each.region for each in stored], channel(device))

    def __enter__(self) -> _Uploaded:
        self._bytes.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._bytes.__exit__(*raised)

    def read(self, name: str) -> Tensor:
        checkpoint, due = self._checkpoint, next(self._order)
        assert name == due, f"the next tensor is {due}"
        if checkpoint._recipes[name].encoded is not None:
            return checkpoint.read(name).to(self._device, copy=True)  # the encoder keeps its own
        try:
            parts = [checkpoint._stored[part].of(next(self._bytes)) for part in self._parts(name)]
        except OSError as error:
            what = error.filename or checkpoint.folder
            raise CheckpointError(f"{what} cannot be read: {error.strerror}") from error
        checkpoint._count(name)
        return checkpoint._end_to_end(name, parts, self._device)

    def _parts(self, name: str) -> Iterable[str]:
        """The stored tensors that are uploaded for one of ours."""
        recipe = self._checkpoint._recipes[name]
        return () if recipe.encoded is not None else recipe.parts


def _pieces(recipe: Recipe, cut: Cut, stored: Mapping[str, Stored]) -> Iterator[tuple[str, Stored]]:
    """The pieces of stored tensors that make up a part of one of our tensors, in order, each with a name."""
    first = 0  # the row of our tensor at which this stored tensor begins
    for name, (count, *_) in recipe.parts.items():
        for begin, end in cut.rows:
            rows = max(begin, first) - first, min(end, first + count) - first
            if rows == (0, count) and cut.columns is None:
                yield name, stored[name]
            elif rows[0] < rows[1]:
                piece = stored[name].rows(*rows)
                piece = piece if cut.columns is None else piece.columns(*cut.columns)
                yield f"{name} {rows} {cut.columns}", piece
        first += count


class _Encoder:
    """Encodes experts that are stored as bf16, and logs the total error after the last of them."""

    def __init__(self, folder: Path, parts: set[str]):
        self._folder = folder
        self._left = set(parts)
        self._last: tuple[str, tuple[Tensor, Tensor]] | None = (
            None  # kept, because the scales are requested after the blocks
        )
        self._squares = self._squared_errors = 0.0

    def encode(self, part: str, experts: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks and scales of stored experts [E, in, out]: one expert at a time, along `in`."""
        if self._last and self._last[0] == part:
            return self._last[1]
        self._last = None  # frees its memory before the next is allocated
        pairs = [self._encode(part, expert.T.contiguous()) for expert in experts]
        blocks, scales = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))
        self._last = part, (blocks, scales)
        self._log_error(part)
        return blocks, scales

    def _encode(self, part: str, weights: Tensor) -> tuple[Tensor, Tensor]:
        """One expert [out, in]."""
        try:
            blocks, scales = mxfp4.encode(weights)
        except ValueError as error:
            raise CheckpointError(f"{part} in {self._folder} cannot be encoded: {error}") from None
        self._squares += weights.float().square().sum().item()
        self._squared_errors += (weights - mxfp4.decode(blocks, scales, torch.float32)).square().sum().item()
        return blocks, scales

    def _log_error(self, part: str) -> None:
        if self._left == {part}:
            error = (self._squared_errors / self._squares) ** 0.5 if self._squares else 0.0
            log.warning("experts in %s encoded as MXFP4: relative RMS error %.2g", self._folder, error)
        self._left.discard(part)


# Layouts: one function each, from our names to stored tensors.


def _recipes(folder: Path, config: ModelConfig, stored: Iterable[str]) -> dict[str, Recipe]:
    """The recipes of the layout to which the stored names belong."""
    names = set(stored)
    if any(name.startswith("block.") for name in names):
        return _original(config)
    if any(name.startswith("model.layers.") for name in names):
        bf16 = any(name.endswith("mlp.experts.gate_up_proj") for name in names)
        return _hugging_face(config, bf16)
    found = ", ".join(sorted(names)[:3])
    raise CheckpointError(
        f"{folder} is not a gpt-oss: tensors are called {found} ..., not block.0... or model.layers.0..."
    )


def _original(config: ModelConfig) -> dict[str, Recipe]:
    """Our names are the original layout's."""
    return {name: Recipe({name: shape}) for name, shape in shapes(config).items()}


def _hugging_face(config: ModelConfig, bf16: bool) -> dict[str, Recipe]:
    """transformers' names; with `bf16`, those of experts that are not quantised."""
    ours = shapes(config)
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    hidden, width, experts = config.hidden_size, config.intermediate_size, config.num_experts

    recipes = {
        ours_name: Recipe({name: ours[ours_name]})
        for ours_name, name in (
            ("embedding.weight", "model.embed_tokens.weight"),
            ("norm.scale", "model.norm.weight"),
            ("unembedding.weight", "lm_head.weight"),
        )
    }
    for n in range(config.num_layers):
        block, layer = f"block.{n}", f"model.layers.{n}"
        for name, theirs in (
            ("attn.norm.scale", "input_layernorm.weight"),
            ("attn.sinks", "self_attn.sinks"),
            ("attn.out.weight", "self_attn.o_proj.weight"),
            ("attn.out.bias", "self_attn.o_proj.bias"),
            ("mlp.norm.scale", "post_attention_layernorm.weight"),
            ("mlp.gate.weight", "mlp.router.weight"),
            ("mlp.gate.bias", "mlp.router.bias"),
            ("mlp.mlp1_bias", "mlp.experts.gate_up_proj_bias"),
            ("mlp.mlp2_bias", "mlp.experts.down_proj_bias"),
        ):
            recipes[f"{block}.{name}"] = Recipe({f"{layer}.{theirs}": ours[f"{block}.{name}"]})
        rows = {"q": heads, "k": kv_heads, "v": kv_heads}
        for kind, columns in ("weight", (hidden,)), ("bias", ()):
            parts = {f"{layer}.self_attn.{x}_proj.{kind}": (count, *columns) for x, count in rows.items()}
            recipes[f"{block}.attn.qkv.{kind}"] = Recipe(parts)
        for name, theirs, shape in (
            ("mlp1_weight", "gate_up_proj", (experts, hidden, 2 * width)),
            ("mlp2_weight", "down_proj", (experts, width, hidden)),
        ):
            for encoded, kind in enumerate(("blocks", "scales")):
                our_name, part = f"{block}.mlp.{name}.{kind}", f"{layer}.mlp.experts.{theirs}"
                recipes[our_name] = (
                    Recipe({part: shape}, encoded) if bf16 else Recipe({f"{part}_{kind}": ours[our_name]})
                )
    return recipes


def _check(folder: Path, recipes: Mapping[str, Recipe], stored: Mapping[str, Stored]) -> None:
    """Raises CheckpointError unless the stored tensors are those of the recipes: number, names, shapes,
    types.
    """
    wanted: dict[str, Shape] = {}
    packed: set[str] = set()
    for name, recipe in recipes.items():
        wanted |= recipe.parts
        if name.endswith((".blocks", ".scales")) and recipe.encoded is None:
            packed |= recipe.parts.keys()

    missing = [name for name in wanted if name not in stored]
    unexpected = [name for name in sorted(stored) if name not in wanted]
    misshapen = []
    narrowed = []
    for name in wanted.keys() & stored.keys():
        shape, dtype = stored[name].shape, stored[name].dtype
        if shape != wanted[name]:
            misshapen.append(f"{name} is {list(shape)}, not {list(wanted[name])}")
        elif dtype not in (("U8",) if name in packed else ("BF16", "F16", "F32")):
            misshapen.append(f"{name} has type {dtype}, not {'U8' if name in packed else 'BF16'}")
        elif dtype == "F32":
            narrowed.append(name)
    faults = [
        f"{kind}: {some(names)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", sorted(misshapen)),
        )
        if names
    ]
    if faults:
        raise CheckpointError(
            f"the tensors in {folder} are not those its config.json describes; {'; '.join(faults)}"
        )
    if narrowed:
        log.info("%d tensors in %s are float32; they are rounded to bfloat16", len(narrowed), folder)
