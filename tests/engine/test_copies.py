"""How many copies to and from the device a step makes, and when the host waits for the device."""

from array import array
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from engine import runner as runner_module
from engine.engine import Engine
from engine.request import Request, SamplingParams
from engine.runner import Runner
from model.batch import Batch, KVCache
from model.draws import Draws
from model.loading.synthetic import GPT_OSS_20B
from model.logit_edits import Edits
from tests.tools.traffic.historian import GREEDY, LIMITS, VOCABULARY, ask, finish


class Device:
    """A fake device: its tensors have shapes but no memory.

    Reading a tensor before it is downloaded is an error, where a real device would wait.
    """

    def __init__(self):
        self.log: list[str] = []

    def upload(self, wide: array, narrow: array) -> tuple[Tensor, Tensor]:
        self.log.append("upload")
        return (
            torch.empty(len(wide), dtype=torch.int64, device="meta"),
            torch.empty(len(narrow), dtype=torch.int32, device="meta"),
        )

    def download(self, tensor: Tensor):
        self.log.append("download")
        return Answer(self.log, tensor.shape[1])


@dataclass
class Answer:
    log: list[str]
    count: int

    def wait(self) -> list[list[int]]:
        self.log.append("wait")
        return [[5] * self.count, [1] * self.count]


class Nowhere:
    """A model on this device, which also samples there."""

    device = torch.device("meta")
    page_size, page_bytes, weight_bytes = 4, 1, 0
    config = replace(GPT_OSS_20B, vocab_size=VOCABULARY)

    def new_cache(self, num_pages: int) -> KVCache:
        return KVCache(*(torch.empty(1, num_pages, 4, 1, 1, device="meta") for _ in range(2)))

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        return torch.empty(len(batch.samples), VOCABULARY, device="meta")

    def edit(self, logits: Tensor, edits: Edits, latest: Tensor | None = None) -> None:
        pass

    def choose(self, logits: Tensor, draws: Draws, batch: Batch) -> Tensor:
        return torch.empty(2, len(logits), dtype=torch.int64, device="meta")


@pytest.fixture
def device(monkeypatch) -> Device:
    device = Device()
    monkeypatch.setattr(runner_module, "link", lambda _: device)
    return device


def steps_of_three(device: Device, requests: list[Request]) -> list[list[str]]:
    """The copies and waits of each step in which all three sequences decode."""
    engine = Engine(Runner(Nowhere(), 60, banned=[7, 96], overlaps=True), LIMITS)
    for request in requests:
        engine.add(request)
    engine.step()
    steps = []
    while engine.stats().running == 3:
        device.log.clear()
        engine.step()
        steps.append(list(device.log))
    finish(engine)
    assert engine.stats().generation_tokens == sum(request.max_tokens for request in requests)
    assert len(steps) > 20
    return steps[5:-2]


def test_a_plain_decode_step_is_one_copy_each_way_and_one_wait(device):
    sampling = SamplingParams(top_p=0.9, temperature=0.7)
    requests = [ask(str(n), max_tokens=30 - n, sampling=sampling if n else GREEDY) for n in range(3)]
    steps = steps_of_three(device, requests)
    assert steps == [["upload", "download", "wait"]] * len(steps)


@pytest.mark.parametrize(
    "needs",
    [
        {"sampling": SamplingParams(repetition_penalty=1.1, presence_penalty=0.1, frequency_penalty=0.2)},
        {"sampling": SamplingParams(logit_bias={3: 1.0, 96: -1.0})},
        {"min_tokens": 99, "stop_tokens": frozenset({1, 2})},
    ],
    ids=lambda needs: " ".join(needs),
)
def test_a_step_with_penalties_is_one_copy_up_more(device, needs):
    """Requests with different penalties, and one without: all need only one copy."""
    other = SamplingParams(temperature=0, frequency_penalty=0.1)
    requests = [ask("a", max_tokens=30), ask("b", max_tokens=29, sampling=other)]
    steps = steps_of_three(device, [*requests, ask("c", max_tokens=28, **needs)])
    assert steps == [["upload", "upload", "download", "wait"]] * len(steps)


class AnyOf:
    """A constraint: one of the first 32 tokens."""

    def mask(self):
        return memoryview(b"\xff" * 4)

    def ready(self, seconds=0):
        return True

    def accept(self, token):
        pass


def test_a_step_with_a_constraint_is_one_copy_up_more_when_the_last_was_read(device):
    """Masks, penalties and biases are in one copy."""
    biased = SamplingParams(temperature=0, frequency_penalty=0.1, logit_bias={3: 1.0})
    requests = [ask("a", max_tokens=30), ask("b", max_tokens=29, sampling=biased)]
    steps = steps_of_three(device, [*requests, ask("c", max_tokens=28, constraint=AnyOf(), sampling=biased)])
    assert steps == [["upload", "wait", "upload", "download"]] * len(steps)


def test_the_device_refuses_to_be_looked_at():
    """Otherwise the other tests here would prove nothing."""
    there, _ = Device().upload(array("q", [1, 2]), array("i", [3]))
    for look in (Tensor.tolist, lambda t: t[0].item(), lambda t: bool(t.any())):
        with pytest.raises((NotImplementedError, RuntimeError)):
            look(there)
