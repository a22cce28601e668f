"""Several ranks together compute what one computes alone: the CPU backend."""

import math
import random
from dataclasses import replace

import pytest
import torch

from model.backends import cpu
from model.backends.cpu.library import isas, load
from model.loading.checkpoint import Checkpoint
from model.parallel.ranks import ALONE
from tests import tiny_checkpoint
from tests.model.paging import Paged
from tests.model.parallel.threads import Meeting, together

CPU = torch.device("cpu")

CONFIG = replace(
    tiny_checkpoint.CONFIG, num_heads=24, num_kv_heads=8, num_experts=8, head_dim=32, vocab_size=307
)


def ids(length, seed):
    return [random.Random(seed * 1000 + i).randrange(CONFIG.vocab_size) for i in range(length)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.write(folder, "original", CONFIG, seed=5)
    return Checkpoint.open(folder)


def logits(source, ranks=ALONE, **options):
    """Logits of one sequence in chunks, then of three in one batch."""
    model = cpu.build(source, CPU, threads=1, ranks=ranks, **options)
    whole = Paged(model, [ids(71, 1)], seed=2).run([37, 1, 1, 30, 1, 1])
    several = Paged(model, [ids(9, 2), ids(4, 3), ids(12, 4)], seed=3)
    parts = several.step({0: 5, 2: 12}) + several.step({1: 4, 0: 4})
    return torch.cat([whole, *parts])[:, : CONFIG.vocab_size]


def assert_near(got, want):
    """Check logits, which may differ only by the order of sums.

    Keys, values and rows of 16 bits may round the other way, and once in a while that chooses another expert
    for a token: most rows agree to a few roundings.
    """
    errors = (got - want).square().mean(-1).sqrt() / want.square().mean().sqrt()
    assert errors.isfinite().all()
    assert errors.quantile(0.9) < 5e-3
    assert (got.argmax(-1) == want.argmax(-1)).float().mean() > 0.95


@pytest.mark.parametrize("dense", ["int8", "bf16"])
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_together_have_the_logits_of_one_alone(checkpoint, size, dense):
    want = logits(checkpoint, dense=dense)
    got = together(Meeting(size), lambda ranks: logits(checkpoint.part(ranks), ranks, dense=dense))
    assert_near(got[0], want)
    for other in got[1:]:
        assert torch.equal(other, got[0])


def test_prompts_of_8_bits_too(checkpoint):
    want = logits(checkpoint, prompt_activations=8)
    got = together(Meeting(2), lambda ranks: logits(checkpoint.part(ranks), ranks, prompt_activations=8))
    assert_near(got[0], want)


@pytest.mark.exhaustive
@pytest.mark.parametrize("isa", isas(load()))
def test_with_every_instruction_set(checkpoint, isa):
    want = logits(checkpoint, isa=isa)
    got = together(Meeting(2), lambda ranks: logits(checkpoint.part(ranks), ranks, isa=isa))
    assert_near(got[0], want)


@pytest.mark.parametrize("temperature", [0.0, 1.0, math.inf])
def test_the_choice_is_of_all_ranks_logits(checkpoint, temperature):
    """Greedy and sampled rows have estimates for tokens that cannot win, from each rank's vocabulary."""

    def step(source, ranks=ALONE):
        model = cpu.build(source, CPU, threads=1, ranks=ranks)
        paged = Paged(model, [ids(20, 6)], seed=1)
        batch = replace(paged.pack({0: 20}), temperatures=torch.full((20,), temperature))
        with torch.inference_mode():
            return model.forward(batch, paged.cache)[:, : CONFIG.vocab_size]

    want = step(checkpoint)
    got = together(Meeting(2), lambda ranks: step(checkpoint.part(ranks), ranks))[0]
    assert (got.argmax(-1) == want.argmax(-1)).all()
    torch.testing.assert_close(got.softmax(-1), want.softmax(-1), rtol=0, atol=5e-3)


class Gone(Exception):
    pass


def test_a_rank_that_cannot_be_met_ends_the_step_with_its_reason(checkpoint):
    """C++ calls Python for the sums, and exceptions do not pass through C++."""

    def work(ranks):
        model = cpu.build(checkpoint.part(ranks), CPU, threads=1, ranks=ranks)
        paged = Paged(model, [ids(3, 6)])
        count = 0

        def add_up(x):
            nonlocal count
            count += 1
            raise Gone(f"at sum {count}")

        ranks.add_up = add_up
        with pytest.raises(Gone, match="at sum 1"):
            paged.run([3])

    together(Meeting(2), work)
