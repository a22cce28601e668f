"""A model, its steps and their operands as shapes without memory, which is enough to compile all launches.

What a launch compiles depends on the types of its operands and on a few sizes, not on their contents.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from model.backends.triton import graphs
from model.backends.triton.kernels import attention_decode, experts_many
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
"""Numbers of tokens of steps that are not decodes: on both sides of each number at which the kernel or tile
changes.
"""


class Outlines:
    """A checkpoint of tensors without memory.

    ranks  number of ranks, of one of which it is the part; each has the whole router
    """

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
    """Does not check scales, because there are none."""

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
    """A model of these sizes and options, for the GPU that kernels are compiled for.

    ranks  number of ranks, of one of which it is the part
    """
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
    model.splits_at_once = attention_decode.splits_at_once(capability)
    return model


def launch_all(model: TritonModel, pdl: Iterable[bool]) -> None:
    """Makes every launch that steps of any size, and sampling, may make; some more than once.

    pdl  the values of `model.pdl` that decode steps may have
    """
    for model.pdl in pdl:
        launch(model, [(size, 1) for size in graphs.SIZES])
    launch(model, [(1, tokens) for tokens in PROMPTS])
    launch_choosing(model)


def launch(model: TritonModel, steps: Iterable[tuple[int, int]]) -> None:
    """Makes the launches of these steps (number of sequences, tokens of each)."""
    cache = model.new_cache(pages_for(5, 4, model.page_bytes))
    for sequences, length in steps:
        model.network(batch(sequences, length, 4), cache)


def launch_choosing(model: TritonModel) -> None:
    """Makes the launches of logit edits and sampling."""
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
    """A batch of `sequences` chunks of `length` tokens each, with room for `pages` pages each."""
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
    """Edits with nine records, and a mask of `size` tokens for each row but one."""
    return Edits(
        records=_empty(9, 4, dtype=torch.int32),
        starts=_empty(rows + 1, dtype=torch.int32),
        penalties=_empty(3, rows, dtype=torch.float32),
        masked=_empty(rows - 1, dtype=torch.int32),
        masks=_empty(rows - 1, -(-size // 32), dtype=torch.int32),
    )
