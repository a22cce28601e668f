"""The engine on the Triton model, which chooses tokens itself: the same answers in turn and overlapped.

In the interpreter, or on a GPU, where steps do overlap."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from tests.kernels.triton_here import DEVICE  # first: see there

# isort: split
from bench.synthetic import Synthetic
from engine.engine import Engine
from engine.request import Request, Token
from engine.runner import Runner
from engine.sampling import SamplingParams
from engine.scheduler import Limits
from model.kernels.triton import dense, experts_few, sampling
from model.kernels.triton.model import TritonModel
from model.kernels.triton.weights import Reader
from tests import tiny_checkpoint

pytestmark = pytest.mark.timeout(600)  # an interpreter on a busy machine takes its time

CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2, sliding_window=7)
LIMITS = Limits(num_pages=60, page_size=4, window=7, max_context=60, max_running=3, max_tokens_per_step=30)
GREEDY = SamplingParams(temperature=0)
SAMPLED = SamplingParams(temperature=1.5, seed=2**63 + 5)
NUCLEUS = SamplingParams(temperature=1.5, top_p=0.8, top_k=100, seed=-7)
BIASED = SamplingParams(temperature=1.5, logit_bias={3: 2.0}, seed=1)


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE.type == "cpu":  # an interpreter is slow by the program
            for tile in (experts_few.GATE_UP_TILE, experts_few.DOWN_TILE, dense.ROW_TILE, dense.SMALL_TILE):
                patch.setitem(tile, "BN", 128)
        weights = Reader(Synthetic(CONFIG), DEVICE, torch.float32).all()
        yield TritonModel(CONFIG, weights, page_size=4)


def say(model, requests: dict[str, Request], overlaps: bool) -> dict[str, list[int]]:
    """The first two at once, each of the others when there was a step more."""
    engine = Engine(Runner(model, LIMITS.num_pages, banned=[0, 5, 210], overlaps=overlaps), LIMITS)
    arriving = list(requests.values())
    said: dict[str, list[int]] = {id: [] for id in requests}
    while engine.busy or arriving:
        for request in arriving[: 1 if said["a"] else 2]:
            engine.add(request)
            arriving.remove(request)
        for event in engine.step():
            assert isinstance(event, Token), event
            said[event.request_id].append(event.id)
    assert engine.stats().pages_free == LIMITS.num_pages
    return said


def ask(id: str, length: int, max_tokens: int, params: SamplingParams, **options) -> Request:
    return Request(
        id, [(7 * i + length) % 200 for i in range(length)], max_tokens, sampling=params, **options
    )


def test_answers_are_the_same_in_both_orders_and_every_draw_is_the_kernels(model, monkeypatch):
    calls = Counter()
    choose = sampling.choose_tokens

    def counted(logits, draws, batch):
        calls["filtered" if draws.filters else "plain"] += 1
        return choose(logits, draws, batch)

    monkeypatch.setattr("model.kernels.triton.model.choose_tokens", counted)
    requests = {
        "a": ask("a", 9, 4, GREEDY),
        "b": ask("b", 3, 5, SAMPLED),
        "c": ask("c", 8, 3, NUCLEUS),
        "d": ask("d", 2, 2, BIASED),
    }
    overlapped = say(model, requests, overlaps=True)
    assert calls["plain"]
    assert calls["filtered"]
    assert overlapped == say(model, requests, overlaps=False)
    assert [len(tokens) for tokens in overlapped.values()] == [4, 5, 3, 2]
    assert not {0, 5, 210} & {token for tokens in overlapped.values() for token in tokens}


def test_a_stop_in_the_middle_changes_nobody_elses_answer(model):
    requests = {"a": ask("a", 9, 4, GREEDY), "b": ask("b", 3, 4, SAMPLED)}
    whole = say(model, requests, overlaps=True)
    stops = {**requests, "a": replace(requests["a"], stop_tokens=frozenset([whole["a"][1]]))}
    said = say(model, stops, overlaps=True)
    assert said == {"a": whole["a"][: whole["a"].index(whole["a"][1]) + 1], "b": whole["b"]}
