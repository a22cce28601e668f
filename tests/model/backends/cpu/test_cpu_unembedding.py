"""How logits are used decides which part of the unembedding is read, but changes no chosen token."""

from dataclasses import replace

import pytest
import torch

from model.backends.cpu import build
from model.backends.cpu.cpu_model import CANDIDATES, TAIL
from model.check import relative_error
from model.loading.synthetic import GPT_OSS_20B, Synthetic
from tests.model.backends.cpu.cpu_steps import ISAS, Machine
from tests.model.backends.cpu.test_cpu_model import Book, fresh

CPU = torch.device("cpu")
CONFIG = replace(
    GPT_OSS_20B,
    vocab_size=20_011,  # 626 blocks of 32, in two pieces; the last is not full
    hidden_size=160,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=32,
    num_experts=4,
    intermediate_size=64,
)
ROWS = 7


@pytest.fixture(scope="module")
def checkpoint():
    return Synthetic(CONFIG)


@pytest.fixture(scope="module")
def batch():
    return Book(CONFIG, [ROWS]).batch([(0, 0, ROWS)])


@pytest.fixture(params=ISAS)
def isa(request):
    if request.param not in Machine.available():
        pytest.skip(f"this processor cannot run {request.param}")
    return request.param


def logits_at(model, batch, temperatures):
    given = None if temperatures is None else torch.tensor(temperatures)
    return model.forward(replace(batch, temperatures=given), fresh(model)).clone()


def hidden_and_exact(model, checkpoint, rows):
    hidden = model.scratch.normed[:rows].double()
    return hidden @ checkpoint.read("unembedding.weight").double().T


def test_greedy_rows_have_the_best_logits_of_bf16(checkpoint, batch, isa):
    model = build(checkpoint, CPU, isa=isa, threads=2)
    got = logits_at(model, batch, [0.0] * ROWS)
    exact = hidden_and_exact(model, checkpoint, ROWS)
    assert torch.equal(got.argmax(-1), exact.argmax(-1))
    best = exact.topk(20).indices
    torch.testing.assert_close(got.gather(1, best).double(), exact.gather(1, best), rtol=1e-5, atol=1e-5)
    rescored = ((got - exact).abs() < 1e-4 * exact.abs().amax(-1, keepdim=True)).sum(-1)
    assert (rescored >= CANDIDATES).all()
    assert (rescored < 2 * CANDIDATES).all(), "a greedy row reads no more than the upper halves"
    assert 0.02 < relative_error(got, exact) < 0.2


def test_rows_all_of_whose_logits_count_are_int8s(checkpoint, batch, isa):
    model = build(checkpoint, CPU, isa=isa, threads=2)
    whole = logits_at(model, batch, None)
    assert torch.equal(logits_at(model, batch, [torch.inf] * ROWS), whole)
    exact = hidden_and_exact(model, checkpoint, ROWS)
    assert relative_error(whole, exact) < 1e-2


def tails(exact, temperature):
    """The probability of all but the best tokens, in float64."""
    shares = (exact / temperature).softmax(-1)
    return 1 - shares.topk(CANDIDATES).values.sum(-1)


def test_a_drawn_row_reads_the_rest_when_the_rest_matters(checkpoint, batch, isa):
    """The random rows are flat, except at a low temperature."""
    model = build(checkpoint, CPU, isa=isa, threads=3)
    greedy, whole = logits_at(model, batch, [0.0] * ROWS), logits_at(model, batch, None)
    exact = hidden_and_exact(model, checkpoint, ROWS)
    seen = set()
    for power in range(-12, 4):
        temperature = 2.0**power
        got = logits_at(model, batch, [temperature] * ROWS)
        for row, tail in enumerate(tails(exact, temperature)):
            if tail < TAIL / 2 or tail > 2 * TAIL:
                want = greedy if tail < TAIL else whole
                assert torch.equal(got[row], want[row])
                seen.add(bool(tail < TAIL))
    assert seen == {True, False}


def test_no_row_depends_on_the_others(checkpoint, batch):
    temperatures = [0.0, torch.inf, 0.02, 50.0, 0.0, 0.05, 1.0]
    results = []
    for isa in Machine.available():
        for threads in (1, 3):
            model = build(checkpoint, CPU, isa=isa, threads=threads)
            results.append(logits_at(model, batch, temperatures))
    assert all(torch.equal(each, results[0]) for each in results)
    for row, temperature in enumerate(temperatures):
        alone = logits_at(model, replace(batch, samples=torch.tensor([row])), [temperature])
        assert torch.equal(alone[0], results[0][row])


def test_a_token_drawn_from_estimates_is_nearly_always_the_one_of_all_logits(checkpoint, batch):
    """If the other tokens have less than a thousandth, the distributions differ by less than that."""
    model = build(checkpoint, CPU, threads=1)
    exact = (logits_at(model, batch, None), hidden_and_exact(model, checkpoint, ROWS))[1]
    temperature = 0.02 * float(exact.std())
    assert tails(exact, temperature).max() < TAIL
    got = logits_at(model, batch, [temperature] * ROWS).double()
    distance = ((got / temperature).softmax(-1) - (exact / temperature).softmax(-1)).abs().sum(-1) / 2
    assert distance.max() < 2 * TAIL


def test_logits_that_are_not_numbers_stay_visible(batch, isa):
    model = build(Synthetic(CONFIG), CPU, isa=isa, threads=2)
    model.weights.norm.fill_(torch.nan)
    for temperature in (0.0, 1.0, torch.inf):
        assert logits_at(model, batch, [temperature] * ROWS).isnan().any(-1).all()


def test_there_is_a_temperature_for_each_row(checkpoint, batch):
    model = build(checkpoint, CPU, threads=1)
    with pytest.raises(ValueError, match="2 temperatures for 7 rows"):
        logits_at(model, batch, [0.0, 1.0])


def test_bf16_weights_are_whole_whatever_the_logits_are_for(checkpoint, batch):
    model = build(checkpoint, CPU, dense="bf16", threads=1)
    assert torch.equal(logits_at(model, batch, [0.0] * ROWS), logits_at(model, batch, None))


@pytest.mark.parametrize("temperatures", [None, [0.0] * ROWS, [1.0] * ROWS], ids=["whole", "greedy", "drawn"])
def test_a_small_one_is_kept_in_bf16_and_has_no_halves(isa, temperatures):
    checkpoint = Synthetic(replace(CONFIG, vocab_size=3_000))
    batch = Book(checkpoint.config, [ROWS]).batch([(0, 0, ROWS)])
    model = build(checkpoint, CPU, isa=isa, threads=2)
    assert len(model.weights.unembedding) == 1
    got = logits_at(model, batch, temperatures)
    assert relative_error(got, hidden_and_exact(model, checkpoint, ROWS)) < 1e-6
