"""The programs of a launch give bit-identical results in any order, and the sanitizer has checked every
kernel.

Whole steps of models with every option, and the choice of tokens, run on memory that was not written;
sanitizer.py says what else is checked.
"""

import pkgutil
from dataclasses import dataclass, replace
from importlib import import_module

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
if DEVICE.type == "cuda":
    pytest.skip("a GPU takes its own order", allow_module_level=True)

from triton.runtime.interpreter import InterpretedFunction

from bench.synthetic import Synthetic
from model.backends import triton as backend
from model.backends.triton import graphs, triton_model
from model.backends.triton.kernels import dense, dense_int8, dependent_launch, expert_order, experts_few
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.draws import Draws
from model.logit_edits import Edits
from tests import tiny_checkpoint
from tests.model.paging import Paged
from tests.tools.sanitizer.sanitizer import watching

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(600),
]  # the interpreter is slow on a busy machine

CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2, sliding_window=5)
SEQUENCES = [[(7 * i + s) % CONFIG.vocab_size for i in range(length)] for s, length in enumerate((23, 11))]


@dataclass(frozen=True)
class Option:
    """Options of a model, and its steps: chunks by sequence."""

    dense: str
    kv_cache_dtype: str
    batch_invariant: bool
    pdl: bool
    steps: tuple[dict[int, int], ...]


OPTIONS = {
    "plain": Option("bf16", "bf16", False, True, ({0: 17, 1: 9}, {0: 1, 1: 1}, {0: 1})),
    "eight bits": Option("int8", "fp8", False, True, ({0: 9, 1: 3}, {1: 1, 0: 1}, {1: 1})),
    "invariant": Option("int8", "bf16", True, False, ({0: 12}, {0: 1, 1: 1})),
}


@pytest.fixture(scope="module", autouse=True)
def _wide_tiles_and_short_parts():
    """Uses few programs, because the interpreter takes time for each, but several tiles and parts."""
    with pytest.MonkeyPatch.context() as patch:
        for kernels in (experts_few, dense, dense_int8):
            for name in ("GATE_UP_TILE", "DOWN_TILE", "ROW_TILE", "SMALL_TILE"):
                if hasattr(kernels, name):
                    patch.setitem(getattr(kernels, name), "BN", 64)
        patch.setattr(triton_model, "KEYS_OF_A_PART", 64)
        patch.setattr(expert_order, "MOST_LOGITS", 100)  # of few tokens and of many, by other kernels
        for name in ("gdc_launch_dependents", "gdc_wait"):  # which launches one after the other do not need
            patch.setattr(dependent_launch, name, lambda: None)
        yield


def answers(option: Option) -> list[torch.Tensor]:
    """Everything that a model computes: packed weights, logits, tokens, and its cache."""
    weights = Reader(Synthetic(CONFIG), DEVICE, torch.float32, option.dense).all()
    options = {"kv_cache_dtype": option.kv_cache_dtype, "batch_invariant": option.batch_invariant}
    model = TritonModel(CONFIG, weights, page_size=4, **options)
    model.pdl = option.pdl
    model.multiprocessors = 5  # a decode of one sequence splits the keys of full layers in four
    paged, found = Paged(model, SEQUENCES), [weights.layers[1].mlp2.words]
    for chunks in option.steps:
        batch = paged.pack(chunks)
        if len(batch.tokens) == len(batch.lengths) > 1:  # as before a graph; one row has kernels of its own
            padded = graphs.blank(len(batch.tokens) + 1, batch.page_table.shape[2] + 2, DEVICE)
            graphs.stage(batch, padded)
            batch = padded
        with torch.inference_mode():
            logits = model.forward(batch, paged.cache)[:2]
            drawn = (
                model.choose(logits, DRAWS, batch),
                model.choose(logits, replace(DRAWS, filters=False), batch),
            )
            edited = logits.clone()
            model.edit(edited, edits(len(logits)))
            model.edit(edited, edits(len(logits)), torch.tensor([3, 9])[: len(logits)])
        found += [logits.clone(), edited, *drawn]
    return found + list(paged.cache.tensors)


DRAWS = Draws(
    seeds=torch.tensor([5, -7]),
    temperature=torch.tensor([1.0, 0.7]),
    top_k=torch.tensor([9, CONFIG.vocab_size], dtype=torch.int32),
    top_p=torch.tensor([0.5, 0.9]),
    min_p=torch.tensor([0.0, 0.01]),
    filters=True,
)


def edits(rows: int) -> Edits:
    """Edits of up to two rows; the last has a mask."""
    records = [[3, 2, 0, 0], [0, 0, 0x3F800000, 1], [CONFIG.vocab_size - 1, 1, 0, 0]]
    return Edits(
        records=torch.tensor(records, dtype=torch.int32)[: 2 * rows - 1],
        starts=torch.tensor([0, 1, 3], dtype=torch.int32)[: rows + 1],
        penalties=torch.tensor([1.5, 0.7, 0.1, 0.2, 0.3, 0.4])[: 3 * rows].view(3, rows),
        masked=torch.tensor([rows - 1], dtype=torch.int32),
        masks=torch.full((1, -(-CONFIG.vocab_size // 32)), 0x5A5A5A5A, dtype=torch.int32),
    )


@pytest.fixture(scope="module")
def in_order():
    """The results of each option with programs in order, and all functions that ran."""
    found = {}
    for name, option in OPTIONS.items():
        with watching() as watch:
            found[name] = answers(option), watch.ran
    return found


@pytest.mark.parametrize(
    ("name", "order"), [("plain", "shuffled"), ("eight bits", "reversed"), ("invariant", "shuffled")]
)
def test_in_any_order_of_programs_the_bits_are_the_same(in_order, name, order):
    with watching(order):
        got = answers(OPTIONS[name])
    for ours, theirs in zip(got, in_order[name][0], strict=True):
        assert torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8))


def test_every_kernel_there_is_was_watched(in_order):
    """A new kernel in the folder must be run here too."""
    there = set()
    for each in pkgutil.walk_packages(backend.__path__, f"{backend.__name__}."):
        module = import_module(each.name)
        for name, value in vars(module).items():
            if isinstance(value, InterpretedFunction) and value.fn.__module__ == module.__name__:
                there.add(f"{module.__name__}.{name}")
    assert len(there) > 30
    assert sorted(there.difference(*(ran for _, ran in in_order.values()))) == []
