"""A model, its steps and their operands as shapes without memory: enough for launches to compile.

What a launch compiles depends on the types of its operands and on a few sizes, not on what is in them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from model.backends.triton import graphs
from model.backends.triton.kernels import experts_many
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader, Weights
from model.batch import Batch, pages_for
from model.config import ModelConfig
from model.draws import Draws
from model.loading.tensors import DeviceTensors, ReadAndMoved, dtype, shapes
from model.logit_edits import Edits
from model.parallel.ranks import Ranks

META = torch.device("meta")

PROMPTS = (*range(2, 18), *(n + more for n in (32, 64, 128, 256, 512, 1024, 2048, 4096) for more in (0, 1)))
"""Tokens of steps that are no decodes: both sides of where another kernel, or another tile, may be taken."""


class Outlines:
    """A checkpoint of tensors without memory.  ranks: whose part it is one of; each has the whole router."""

    def __init__(self, config: ModelConfig, ranks: int = 1):
        self.config = config
        self._shapes = {
            name: (ranks * shape[0], *shape[1:]) if ".gate." in name else shape
            for name, shape in shapes(config).items()
        }

    def read(self, name: str) -> Tensor:
        return torch.empty(self._shapes[name], dtype=dtype(name), device=META)

    def onto(self, device: torch.device) -> DeviceTensors:
        return ReadAndMoved(self.read, device)


class OutlineReader(Reader):
    """Looks at no scale: there is none."""

    def check_scales(self, weights: Weights) -> None:
        pass


def outline(
    config: ModelConfig,
    dense: str,
    kv_cache_dtype: str,
    batch_invariant: bool,
    full_dtype: torch.dtype,
    multiprocessors: int,
    capability: tuple[int, int],
    ranks: int = 1,
) -> TritonModel:
    """A model of these sizes and options, on the GPU meant.  ranks: of which it is one's part."""
    reader = OutlineReader(Outlines(config, ranks), META, torch.bfloat16, dense)
    model = TritonModel(
        config,
        reader.all(),
        kv_cache_dtype=kv_cache_dtype,
        batch_invariant=batch_invariant,
        ranks=Ranks(0, ranks),
    )
    model.full_dtype = full_dtype
    model.multiprocessors = multiprocessors
    model.tiles = experts_many.tiles_for(capability)
    return model


def launch_all(model: TritonModel, pdl: Iterable[bool]) -> None:
    """Every launch that steps of any size, and choosing their tokens, may make; more than once.

    pdl  the values of `model.pdl` that decodes may come with
    """
    for model.pdl in pdl:
        launch(model, [(size, 1) for size in graphs.SIZES])
    launch(model, [(1, tokens) for tokens in PROMPTS])
    launch_choosing(model)


def launch(model: TritonModel, steps: Iterable[tuple[int, int]]) -> None:
    """The launches of these steps: sequences, and tokens of each."""
    cache = model.new_cache(pages_for(5, 4, model.page_bytes))
    for sequences, length in steps:
        model.network(batch(sequences, length, 4), cache)


def launch_choosing(model: TritonModel) -> None:
    """What is launched besides the network."""
    rows, size = 3, model.vocabulary
    step = batch(rows, 1, 4)
    graphs.stage(step, batch(4, 1, 4096))
    logits = _empty(rows, size, dtype=torch.float32)
    for latest in (None, step.tokens):
        model.edit(logits, edits(rows, size), latest)
    for filters in (False, True):
        model.choose(logits, draws(rows, filters), step)


def _empty(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def batch(sequences: int, length: int, pages: int) -> Batch:
    """`sequences` chunks of `length` tokens each, which may have `pages` pages."""
    tokens = sequences * length
    return Batch(
        tokens=_empty(tokens),
        positions=_empty(tokens),
        slots=_empty(2, tokens),
        starts=_empty(sequences + 1, dtype=torch.int32),
        lengths=_empty(sequences, dtype=torch.int32),
        page_table=_empty(2, sequences, pages, dtype=torch.int32),
        samples=_empty(sequences),
    )


def draws(rows: int, filters: bool) -> Draws:
    temperature, top_p, min_p = (_empty(rows, dtype=torch.float32) for _ in range(3))
    return Draws(_empty(rows), temperature, _empty(rows, dtype=torch.int32), top_p, min_p, filters)


def edits(rows: int, size: int) -> Edits:
    """Nine records, and a mask for each row but one, of `size` tokens."""
    return Edits(
        records=_empty(9, 4, dtype=torch.int32),
        starts=_empty(rows + 1, dtype=torch.int32),
        penalties=_empty(3, rows, dtype=torch.float32),
        masked=_empty(rows - 1, dtype=torch.int32),
        masks=_empty(rows - 1, -(-size // 32), dtype=torch.int32),
    )
