"""Sampling and overlapping steps on a real GPU, with the real size of the vocabulary.

python -m pytest -m gpu tests/gpu
"""

import time
from dataclasses import replace

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("there is no GPU that torch can use", allow_module_level=True)
pytest.importorskip("triton", reason="Triton is not installed")

from bench.gpu.load import Random
from engine.admission import Limits
from engine.engine import Engine
from engine.request import Request, SamplingParams, Token
from engine.runner import Runner
from engine.sampling import draws
from model.backends.triton.kernels.edits import edit_logits
from model.backends.triton.kernels.token_choice import choose_tokens, plain_scores
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.batch import Batch
from model.logit_edits import edit
from model.transfer import link
from tests import tiny_checkpoint
from tests.engine.test_sampling import sequence
from tests.model.backends.triton.test_triton_edits import no_masks, random_edits, random_latest, same_bits

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

CUDA = torch.device("cuda", 0)
SEED = int(time.time())
VOCABULARY, KNOWN = 201088, 200019

PENALTIES = [
    {"frequency_penalty": 0.5},
    {"repetition_penalty": 1.2, "presence_penalty": 0.3, "top_p": 0.95},
    {"logit_bias": {7: 3.0, 40: -100.0}, "temperature": 0},
]

KINDS = [
    {},
    {"temperature": 0},
    {"temperature": 0.6},
    {"top_p": 0.95},
    {"top_p": 0.5, "temperature": 2.0},
    {"top_k": 20, "top_p": 0.95},
    {"top_k": 1},
    {"top_k": 900, "temperature": 3.0},
    {"min_p": 0.05},
]


@pytest.mark.parametrize("rows", [1, 9, 70])
@pytest.mark.parametrize("wide", [True, False])
def test_the_token_chosen_scores_best_by_the_plain_version(rows, wide):
    noise = torch.Generator(CUDA).manual_seed(SEED)
    logits = 4 * torch.randn(rows, VOCABULARY, generator=noise, device=CUDA)[:, :KNOWN]
    logits = logits if wide else logits.contiguous()
    asked = [sequence(seed=SEED - n, **KINDS[n % len(KINDS)]) for n in range(rows)]
    positions = torch.arange(rows, device=CUDA) * 1009
    nothing = positions[:0]
    where = Batch(positions, positions, *[nothing] * 4, torch.arange(rows, device=CUDA))
    told = draws(asked, KNOWN, link(CUDA))
    chosen, finite = choose_tokens(logits, told, where)
    scores = plain_scores(logits, told, where)
    mine = scores.gather(1, chosen[:, None])[:, 0]
    assert finite.all()
    assert (scores.max(-1).values - mine < 1e-4).all(), SEED


@pytest.mark.parametrize("rows", [3, 256])
@pytest.mark.parametrize("masked", [True, False])
def test_logits_are_edited_to_the_bit_of_the_plain_version(rows, masked):
    """With lists as for long answers, and for long prompts whose tokens are penalised."""
    lengths = tuple(9000 if row % 100 == 99 else 7 * row % 1500 for row in range(rows))
    edits = random_edits(SEED, VOCABULARY, lengths)
    edits = edits if masked else no_masks(edits)
    noise = torch.Generator(CUDA).manual_seed(SEED)
    logits = 4 * torch.randn(rows, VOCABULARY, generator=noise, device=CUDA)
    logits[1, ::7] = -torch.inf
    for latest in (None, random_latest(edits, SEED, VOCABULARY)):
        got, want = logits.clone(), logits.clone()
        edit_logits(got, edits, latest)
        edit(want, edits, latest)
        assert same_bits(got, want), SEED
        assert (got != logits).any()


@pytest.fixture(scope="module")
def model():
    config = replace(tiny_checkpoint.CONFIG, num_layers=4, initial_context_length=256)
    with torch.inference_mode():
        return TritonModel(config, Reader(Random(config, "cpu"), CUDA, torch.float32).all(), page_size=16)


class Third:
    """A constraint that allows every third token."""

    def __init__(self, model):
        size = model.config.vocab_size
        mask = sum(1 << token for token in range(0, size, 3))
        self._mask = memoryview(mask.to_bytes(4 * -(-size // 32), "little"))

    def mask(self):
        return self._mask

    def ready(self, seconds=0):
        return True

    def accept(self, token):
        assert token % 3 == 0


def make_engine(model, overlaps, **changes) -> Engine:
    limits = Limits(
        **{
            "num_pages": 400,
            "page_size": model.page_size,
            "window": model.config.sliding_window,
            "max_context": model.config.max_context,
            "max_running": 6,
            **changes,
        }
    )
    return Engine(Runner(model, limits.num_pages, banned=[3, 4], overlaps=overlaps), limits)


def say(model, overlaps, **changes) -> tuple[dict[str, list[int]], Engine]:
    """Twelve different answers, one with a constraint; some wait, some end early."""
    engine = make_engine(model, overlaps, **changes)
    for n in range(12):
        kind = PENALTIES[n % 3] if n in (4, 5, 9) else KINDS[n % len(KINDS)]
        prompt = [(7 * n + i * i) % model.config.vocab_size for i in range(5 + 9 * n)]
        stops = frozenset(range(n, model.config.vocab_size, 50))
        sampling = SamplingParams(**{"seed": n, **kind})
        wants = {"min_tokens": 3 * (n % 2), "constraint": Third(model) if n == 7 else None}
        engine.add(Request(str(n), prompt, 20 + 5 * n, stop_tokens=stops, sampling=sampling, **wants))
    said: dict[str, list[int]] = {}
    while engine.busy:
        for event in engine.step():
            assert isinstance(event, Token), event
            said.setdefault(event.request_id, []).append(event.id)
    assert engine.stats().pages_free == engine.limits.num_pages
    return said, engine


@pytest.mark.parametrize("changes", [{}, {"num_pages": 40}, {"max_tokens_per_step": 16}], ids=str)
def test_answers_are_the_same_in_turn_and_overlapped(model, changes):
    """Graphs of all sizes have the same kernels here, except for the sums of many rows."""
    in_turn, _ = say(model, overlaps=False, **changes)
    overlapped, engine = say(model, overlaps=None, **changes)
    assert engine._launcher is not None, "on a GPU steps overlap"
    same = sum(in_turn[id] == overlapped[id] for id in in_turn)
    assert same == len(in_turn) == 12


@pytest.mark.parametrize("wants", ["nothing", "penalties", "a constraint"])
def test_a_decode_step_makes_the_host_wait_for_nothing_but_its_tokens(model, wants):
    """PyTorch raises an error at every operation that waits for the device, except at waits for events."""
    engine = make_engine(model, overlaps=None)
    for n in range(3):
        kind = PENALTIES[n] if wants == "penalties" else KINDS[2 * n + 1]
        constraint = Third(model) if wants == "a constraint" and n == 1 else None
        sampling = SamplingParams(**{"seed": n, **kind})
        engine.add(Request(str(n), [n, 1, 2], 60, sampling=sampling, constraint=constraint))
    for _ in range(8):
        engine.step()  # graphs are captured, kernels compiled, buffers pinned
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(30):
            assert len(engine.step()) == 3
    finally:
        torch.cuda.set_sync_debug_mode("default")
