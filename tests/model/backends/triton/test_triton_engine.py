"""The engine with the Triton model, which samples on its device: the same answers with and without overlap.

In the interpreter, or on a GPU, where steps really overlap.
"""

import struct
from collections import Counter
from dataclasses import fields, replace

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
from bench.synthetic import Synthetic
from engine.admission import Limits
from engine.engine import Engine
from engine.request import Request, SamplingParams, Token
from engine.runner import Runner
from model.backends.triton.kernels import dense, edits, experts_few, token_choice
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.batch import Batch
from tests import tiny_checkpoint
from tests.tools.traffic.historian import VOCABULARY, Historian

pytestmark = pytest.mark.timeout(600)  # the interpreter is slow on a busy machine

CONFIG = replace(tiny_checkpoint.CONFIG, num_layers=2, sliding_window=7)
LIMITS = Limits(num_pages=60, page_size=4, window=7, max_context=60, max_running=3, max_tokens_per_step=30)
GREEDY = SamplingParams(temperature=0)
SAMPLED = SamplingParams(temperature=1.5, seed=2**63 + 5)
NUCLEUS = SamplingParams(temperature=1.5, top_p=0.8, top_k=100, seed=-7)
BIASED = SamplingParams(temperature=1.5, logit_bias={3: 2.0}, seed=1)
PENALISED = SamplingParams(
    temperature=1.5, repetition_penalty=1.4, presence_penalty=0.5, frequency_penalty=0.9, seed=3
)
STUBBORN = SamplingParams(temperature=0, frequency_penalty=2.0, logit_bias={7: 100.0, 9: 98.0, 5: 100.0})
"""Parameters with which the answer is 7, then alternately 9 and 7, if the counts are right; 5 is excluded."""


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE.type == "cpu":  # the interpreter takes time for each program
            for tile in (experts_few.GATE_UP_TILE, experts_few.DOWN_TILE, dense.ROW_TILE, dense.SMALL_TILE):
                patch.setitem(tile, "BN", 128)
        weights = Reader(Synthetic(CONFIG), DEVICE, torch.float32).all()
        yield TritonModel(CONFIG, weights, page_size=4)


def say(model, requests: dict[str, Request], overlaps: bool, limits: Limits = LIMITS) -> dict[str, list[int]]:
    """Add the first two requests at once, each of the others one step later.  Returns the answers.

    limits  instead of LIMITS: so small that sequences are preempted
    """
    engine = Engine(Runner(model, limits.num_pages, banned=[0, 5, 210], overlaps=overlaps), limits)
    arriving = list(requests.values())
    said: dict[str, list[int]] = {id: [] for id in requests}
    while engine.busy or arriving:
        for request in arriving[: 1 if said["a"] else 2]:
            engine.add(request)
            arriving.remove(request)
        for event in engine.step():
            assert isinstance(event, Token), event
            said[event.request_id].append(event.id)
    assert engine.stats().pages_free == limits.num_pages
    assert limits is LIMITS or engine.stats().preemptions > 0
    return said


class Sampler(Historian):
    """A model that computes nothing, but edits and samples with the kernels."""

    device = DEVICE

    def new_cache(self, num_pages):
        self._pages = super().new_cache(num_pages)
        return self._pages

    def forward(self, batch, cache):
        there = (getattr(batch, field.name) for field in fields(batch))
        here = Batch(*(None if each is None else each.cpu() for each in there))
        return super().forward(here, self._pages).to(DEVICE)

    def edit(self, logits, asked, latest=None):
        edits.edit_logits(logits, asked, latest)

    def choose(self, logits, draws, batch):
        return token_choice.choose_tokens(logits, draws, batch)


@pytest.fixture
def sampler():
    return Sampler(page_size=4, window=7)


def ask(id: str, length: int, max_tokens: int, params: SamplingParams, **options) -> Request:
    return Request(id, [(7 * i + length) % 90 for i in range(length)], max_tokens, sampling=params, **options)


@pytest.mark.exhaustive
def test_answers_are_the_same_in_both_orders_and_every_draw_is_the_kernels(model, monkeypatch):
    calls = Counter()
    choose, edit = token_choice.choose_tokens, edits.edit_logits

    def counted(logits, draws, batch):
        calls["filtered" if draws.filters else "plain"] += 1
        return choose(logits, draws, batch)

    def counted_edit(logits, edits, latest):
        calls["edited" if latest is None else "edited ahead"] += 1
        edit(logits, edits, latest)

    monkeypatch.setattr("model.backends.triton.triton_model.choose_tokens", counted)
    monkeypatch.setattr("model.backends.triton.triton_model.edit_logits", counted_edit)
    requests = {
        "a": ask("a", 9, 4, GREEDY),
        "b": ask("b", 3, 5, PENALISED),
        "c": ask("c", 8, 3, NUCLEUS),
        "d": ask("d", 2, 2, BIASED),
    }
    overlapped = say(model, requests, overlaps=True)
    assert calls["plain"]
    assert calls["filtered"]
    assert calls["edited"]
    assert calls["edited ahead"]
    assert overlapped == say(model, requests, overlaps=False)
    assert [len(tokens) for tokens in overlapped.values()] == [4, 5, 3, 2]
    assert not {0, 5, 210} & {token for tokens in overlapped.values() for token in tokens}


@pytest.mark.exhaustive
def test_a_stop_in_the_middle_changes_nobody_elses_answer(model):
    requests = {"a": ask("a", 9, 4, GREEDY), "b": ask("b", 3, 4, SAMPLED)}
    whole = say(model, requests, overlaps=True)
    stops = {**requests, "a": replace(requests["a"], stop_tokens=frozenset([whole["a"][1]]))}
    said = say(model, stops, overlaps=True)
    assert said == {"a": whole["a"][: whole["a"].index(whole["a"][1]) + 1], "b": whole["b"]}


def test_a_penalty_knows_the_token_that_nobody_has_read_yet(sampler):
    requests = {"a": ask("a", 4, 6, STUBBORN), "b": ask("b", 4, 6, replace(STUBBORN, frequency_penalty=0.0))}
    said = say(sampler, requests, overlaps=True)
    assert said == say(sampler, requests, overlaps=False)
    assert said["b"] == [7] * 6
    assert set(said["a"]) == {7, 9}
    assert 2 <= said["a"].count(9) <= 3


def test_stop_tokens_wait_for_min_tokens_in_both_orders(sampler):
    (first, *_) = say(sampler, {"a": ask("a", 9, 1, GREEDY)}, overlaps=False)["a"]
    biased = SamplingParams(temperature=0, logit_bias={first: 100.0})
    request = ask("a", 9, 8, biased, min_tokens=3, stop_tokens=frozenset([first]))
    requests = {"a": request, "b": ask("b", 3, 6, PENALISED)}
    said = say(sampler, requests, overlaps=True)
    assert said == say(sampler, requests, overlaps=False)
    assert said["a"].index(first) == 3
    assert len(said["a"]) == 4


def test_who_gives_way_and_comes_back_says_what_it_would_have_said(sampler):
    """With too few pages for all; tokens are kept, and counts are made from them."""
    requests = {
        "a": ask("a", 9, 9, PENALISED),
        "b": ask("b", 5, 9, replace(PENALISED, seed=4)),
        "c": ask("c", 6, 9, STUBBORN),
    }
    undisturbed = say(sampler, requests, overlaps=False)
    scarce = replace(LIMITS, num_pages=17)
    for overlaps in (True, False):
        assert say(sampler, requests, overlaps, scarce) == undisturbed


class Even:
    """A constraint that allows only even tokens."""

    def mask(self):
        return memoryview(struct.pack("I", 0x55555555) * -(-VOCABULARY // 32))

    def ready(self, seconds=0):
        return True

    def accept(self, token):
        assert token % 2 == 0


@pytest.mark.parametrize("reports", [None, 0], ids=["all ahead", "log-probabilities in turn"])
def test_constraints_beside_penalties(sampler, reports):
    asks = {"a": PENALISED, "b": replace(PENALISED, seed=8, logprobs=reports), "c": BIASED}
    requests = {id: ask(id, 5, 6, params) for id, params in asks.items()}
    requests["c"] = replace(requests["c"], constraint=Even())
    said = say(sampler, requests, overlaps=True)
    assert said == say(sampler, requests, overlaps=False)
    assert all(token % 2 == 0 for token in said["c"])
    alone = say(sampler, {"a": requests["a"]}, overlaps=True)
    assert alone["a"] == said["a"]
