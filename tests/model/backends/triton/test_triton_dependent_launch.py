"""Kernels that begin while the previous one ends follow the rules of dependent_launch.py.

The interpreter has no such launches, but records what a program does before it waits.  On a GPU, the model's
build checks that the results are the same, and measures whether it is faster.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
from triton.runtime import interpreter

from bench.synthetic import Synthetic
from model.backends.triton.kernels import dense, dense_int8, dependent_launch, experts_few
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader, _tensors
from tests import tiny_checkpoint
from tests.model.paging import Paged

pytestmark = [
    pytest.mark.timeout(600),  # the interpreter is slow on a busy machine
    pytest.mark.skipif(DEVICE.type == "cuda", reason="looks into Triton's interpreter"),
]

CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2, sliding_window=5)
STEP = {
    "dense._row_kernel", "dense._rows_kernel", "dense_int8._row_kernel", "dense_int8._rows_kernel",
    "attention_decode._decode_kernel", "router._router_kernel",
    "experts_few._gate_up_kernel", "experts_few._down_kernel",
}  # fmt: skip
"""All kernels of a step of few tokens, except for the embedding, which is PyTorch's and waits for all others.
"""


class Observer:
    """Records what each program does before it waits.

    may_read   address ranges that no kernel of the step writes
    kernels    name of each kernel that launched the next one and waited → number of its programs
    ahead      number of loads before waiting, counted by lanes
    faults     violations of the rules
    """

    def __init__(self, monkeypatch):
        self.may_read: list[tuple[int, int]] = []
        self.kernels: Counter[str] = Counter()
        self.ahead = 0
        self.faults: list[str] = []
        self._kernel = ""
        self._said: list[str] = []
        builder = interpreter.interpreter_builder
        load, store, turn = builder.create_masked_load, builder.create_masked_store, builder.set_grid_idx
        call = interpreter.GridExecutor.__call__

        def observed_load(pointers, mask, *rest, **named):
            if "wait" not in self._said:
                self._look(pointers.data, mask.data)
            return load(pointers, mask, *rest, **named)

        def observed_store(*operands, **named):
            self._said.append("store")
            return store(*operands, **named)

        def observed_turn(*index):
            self._end_of_program()
            turn(*index)

        def observed_call(executor, *operands, **named):
            self._kernel = f"{executor.fn.__module__.split('.')[-1]}.{executor.fn.__name__}"
            result = call(executor, *operands, **named)
            self._end_of_program()
            return result

        monkeypatch.setattr(builder, "create_masked_load", observed_load)
        monkeypatch.setattr(builder, "create_masked_store", observed_store)
        monkeypatch.setattr(builder, "set_grid_idx", observed_turn)
        monkeypatch.setattr(interpreter.GridExecutor, "__call__", observed_call)
        monkeypatch.setattr(dependent_launch, "gdc_launch_dependents", lambda: self._said.append("launch"))
        monkeypatch.setattr(dependent_launch, "gdc_wait", lambda: self._said.append("wait"))

    def _look(self, pointers, mask):
        addresses = pointers[mask]
        self.ahead += addresses.size
        inside = [(addresses >= begin) & (addresses < end) for begin, end in self.may_read]
        if not np.logical_or.reduce(inside).all():
            self.faults.append(f"{self._kernel} reads too early")

    def _end_of_program(self):
        said, self._said = self._said, []
        if not said:  # the first of a launch has none before it
            return
        self.kernels[self._kernel] += 1
        if said[:2] != ["launch", "wait"] or {"launch", "wait"} & set(said[2:]):
            self.faults.append(f"{self._kernel}: {said}")


@pytest.fixture
def observer(monkeypatch):
    tiles = (experts_few.GATE_UP_TILE, experts_few.DOWN_TILE, dense.ROW_TILE, dense.SMALL_TILE)
    for tile in (*tiles, dense_int8.ROW_TILE):  # the interpreter takes time for each program
        monkeypatch.setitem(tile, "BN", 64)
    return Observer(monkeypatch)


def steps(observer: Observer, model: TritonModel, monkeypatch) -> list[torch.Tensor]:
    """Logits of steps of one and of two tokens after prompts; only these steps are observed."""
    network = model.network

    def observed(batch, cache, logits=None):
        given = (batch.positions, batch.slots, batch.lengths, batch.page_table, batch.samples)
        observer.may_read = [extent(tensor) for tensor in (*_tensors(model.weights), *given)]
        return network(batch, cache, logits)

    paged = Paged(model, [[7 * n % 200 for n in range(length)] for length in (10, 7)], seed=3)
    paged.step({0: 8, 1: 5})
    observer.faults.clear()
    observer.kernels.clear()
    observer.ahead = 0
    monkeypatch.setattr(model, "network", observed)
    return [*paged.step({0: 1}), *paged.step({1: 1}), *paged.step({0: 1, 1: 1})]


def extent(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes


def model_of(dense_format: str) -> TritonModel:
    weights = Reader(Synthetic(CONFIG), DEVICE, torch.float32, dense_format).all()
    model = TritonModel(CONFIG, weights, page_size=4)
    model.multiprocessors = 2  # a decode of one sequence splits the keys of full layers in four
    return model


@pytest.mark.exhaustive
@pytest.mark.parametrize("dense_format", ["bf16", "int8"])
def test_all_launch_the_next_and_wait_and_until_then_read_what_nobody_writes(
    observer, monkeypatch, dense_format
):
    model = model_of(dense_format)
    want = steps(observer, model, monkeypatch)
    model.pdl = True
    got = steps(observer, model, monkeypatch)
    assert not observer.faults
    assert observer.ahead > model.config.hidden_size
    other = "dense_int8" if dense_format == "bf16" else "dense"
    assert set(observer.kernels) == {kernel for kernel in STEP if not kernel.startswith(f"{other}.")}
    torch.testing.assert_close(torch.stack(got), torch.stack(want), rtol=0, atol=0)


@pytest.mark.exhaustive
def test_who_does_not_wait_or_reads_too_early_is_seen(observer, monkeypatch):
    model = model_of("bf16")
    model.pdl = True
    with monkeypatch.context() as patch:
        patch.setattr(dependent_launch, "gdc_wait", lambda: None)
        steps(observer, model, monkeypatch)
    assert any("reads too early" in fault for fault in observer.faults)
    assert any(fault.startswith("router._router_kernel: ['launch', 'store'") for fault in observer.faults)
