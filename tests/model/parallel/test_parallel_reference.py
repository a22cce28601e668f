"""Several ranks together compute what one computes alone: the reference backend."""

import random
from dataclasses import replace

import pytest
import torch

from model.backends import reference
from model.config import CheckpointError
from model.loading.checkpoint import Checkpoint
from model.loading.part import Part
from model.loading.synthetic import GPT_OSS_20B, SIZES
from model.parallel.ranks import ALONE, Ranks, check_divisible
from tests import tiny_checkpoint
from tests.model.paging import Paged
from tests.model.parallel.threads import Meeting, together

CPU = torch.device("cpu")

CONFIG = replace(tiny_checkpoint.CONFIG, num_heads=24, num_kv_heads=8, num_experts=8)
"""With a vocabulary of 211, which no number of ranks divides."""

LENGTHS = [7, 1, 1, 16, 1, 5]


def ids(length, seed):
    return [random.Random(seed * 1000 + i).randrange(CONFIG.vocab_size) for i in range(length)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.write(folder, "hf", CONFIG, seed=5)
    return Checkpoint.open(folder)


def logits(source, ranks=ALONE):
    """Logits of one sequence in chunks, then of three in one batch."""
    model = reference.build(source, CPU, dtype=torch.float32, page_size=4, ranks=ranks)
    whole = Paged(model, [ids(31, 1)], seed=2).run(LENGTHS)
    several = Paged(model, [ids(9, 2), ids(4, 3), ids(12, 4)], seed=3)
    parts = several.step({0: 5, 2: 12}) + several.step({1: 4, 0: 4})
    return torch.cat([whole, *parts])[:, : CONFIG.vocab_size]


@pytest.mark.parametrize("size", [2, 4, 8])
def test_ranks_together_have_the_logits_of_one_alone(checkpoint, size):
    meeting = Meeting(size)
    want = logits(checkpoint)
    for got in together(meeting, lambda ranks: logits(checkpoint.part(ranks), ranks)):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
    passes = len(LENGTHS) + 2
    assert meeting.sums == passes * (1 + 2 * CONFIG.num_layers), "the embedding, and two sums a layer"
    assert meeting.gathers == passes


def test_no_rank_is_there_for_nothing(checkpoint):
    """Rank 0 alone gives another result; otherwise the test above would prove nothing."""
    size = 2

    def wrong(ranks):
        other = Ranks(0, size)  # both have the part of rank 0
        return logits(checkpoint.part(other), ranks)

    got = together(Meeting(size), wrong)[0]
    assert not torch.allclose(got, logits(checkpoint), atol=1e-1)


def test_bfloat16_differs_by_roundings_only(checkpoint):
    def of(source, ranks=ALONE):
        model = reference.build(source, CPU, page_size=4, ranks=ranks)
        return Paged(model, [ids(31, 1)], seed=2).run([31])[:, : CONFIG.vocab_size]

    want = of(checkpoint)
    for size in (2, 4):
        got = together(Meeting(size), lambda ranks: of(checkpoint.part(ranks), ranks))[0]
        errors = (got - want).square().mean(-1).sqrt() / want.square().mean().sqrt()
        assert errors.quantile(0.8) < 0.03


@pytest.mark.parametrize(("size", "able"), [(3, "2, 4, 8"), (16, "2, 4, 8"), (5, "2, 4, 8")])
def test_ranks_that_do_not_divide_heads_or_experts_are_refused_in_one_line(size, able):
    with pytest.raises(CheckpointError, match=f"--tensor-parallel {size}: .* 8 and 32; possible are {able}$"):
        check_divisible(GPT_OSS_20B, size)


def test_heads_and_experts_both_must_be_divided():
    config = replace(GPT_OSS_20B, num_kv_heads=6, num_experts=9)
    with pytest.raises(CheckpointError, match=r"6 and 9; possible are 3$"):
        check_divisible(config, 2)
    with pytest.raises(CheckpointError, match=r"2 and 5; it cannot be split$"):
        check_divisible(replace(GPT_OSS_20B, num_kv_heads=2, num_experts=5), 2)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("size", [2, 4, 8])
def test_published_sizes_are_split_evenly(name, size):
    whole = SIZES[name]
    part = Ranks(1, size).config(whole)
    assert part.vocab_size * size == whole.vocab_size
    assert part.num_heads * size == whole.num_heads
    assert part.num_kv_heads * size == whole.num_kv_heads
    assert part.num_experts * size == whole.num_experts


def test_a_part_of_any_source_has_the_logits_too(checkpoint):
    want = logits(checkpoint)
    got = together(Meeting(2), lambda ranks: logits(Part(checkpoint, ranks), ranks))
    torch.testing.assert_close(got[1], want, rtol=0, atol=1e-4)
