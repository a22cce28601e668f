"""Timed steps could be steps of the engine, and the bytes that a step reads are those of its tensors."""

import pytest
import torch

from model.backends import cpu
from model.backends.reference.gpt_oss import GptOss
from model.check import SMALL
from model.loading.synthetic import Synthetic
from model.speed import Load, time_steps
from tests.model.paging import alone
from tests.tiny_checkpoint import CONFIG

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return GptOss(Synthetic(CONFIG), CPU, page_size=4)


class Clockwork:
    """A model that counts passes, and checks that each batch could be one of the engine's."""

    def __init__(self, model):
        self.model, self.batches = model, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def forward(self, batch, cache):
        self.batches.append(batch)
        logits = self.model.forward(batch, cache)
        assert torch.isfinite(logits).all()
        return logits


@pytest.mark.parametrize(("sequences", "length", "context"), [(1, 1, 50), (3, 1, 9), (1, 30, 0), (2, 5, 7)])
def test_steps_are_steps_of_the_model(model, sequences, length, context):
    watched = Clockwork(model)
    load = Load(watched, sequences, length, context)
    timing = time_steps(load, rounds=3, memory_speed=lambda each: 1000.0 * each, needed=lambda: 5.0)
    assert timing.tokens == sequences * length
    assert len(watched.batches) == 1 + 3  # one to warm up
    assert timing.speeds == [1000.0, 2000.0, 3000.0]
    assert timing.shares == [5 / s / v for s, v in zip(timing.seconds, timing.speeds, strict=True)]
    tokens = [tuple(batch.tokens.tolist()) for batch in watched.batches]
    assert len(set(tokens)) == 4
    for batch in watched.batches:
        assert batch.lengths.tolist() == [context + length] * sequences
        assert len(set(batch.slots.flatten().tolist())) == 2 * sequences * length
        assert batch.slots.max() < load.cache.num_pages * model.page_size


def test_the_slots_of_a_load_are_those_of_its_pages(model):
    """Without tokens before it, a load's step is an ordinary prompt."""
    load = Load(model, 1, 11, 0)
    batch = load.batch(seed=1)
    logits = model.forward(batch, load.cache)
    torch.testing.assert_close(logits, alone(model, batch.tokens.tolist())[-1:])


def test_patience_ends_it_after_one_step(model):
    assert len(time_steps(Load(model, 1, 1, 5), rounds=1000, patience=0).seconds) == 1


@pytest.mark.parametrize("sequences", [1, 3])
def test_a_load_needs_the_memory_it_says(model, sequences):
    load = Load(model, sequences, 2, 7)
    held = load.cache.keys.nbytes + load.cache.values.nbytes
    assert Load.cache_bytes(model, sequences, load.seen) == held


def test_the_memory_is_measured_by_copies_or_by_the_models_own_threads(model, monkeypatch):
    monkeypatch.setattr("model.device.METER_BYTES", 1 << 20)
    monkeypatch.setattr("model.backends.cpu.cpu_model.METER_BYTES", 1 << 23)
    threads = cpu.build(Synthetic(SMALL), CPU, threads=1)
    for each, kind in ((model, "copy"), (threads, "read")):
        meter = each.meter()
        assert meter.kind == kind
        assert 1e6 < meter.measure() < 1e13
