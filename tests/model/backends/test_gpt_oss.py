"""The whole network, compared with the logits of transformers, and with itself for other divisions into
steps.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from model.backends import reference
from model.backends.reference.gpt_oss import GptOss
from model.loading.checkpoint import Checkpoint
from tests import tiny_checkpoint
from tests.golden import make_model_golden as golden
from tests.model.paging import Paged, alone

CPU = torch.device("cpu")


def build(
    folder: Path,
    dtype: torch.dtype,
    layout: str = "original",
    page_size: int = 4,
    config=tiny_checkpoint.CONFIG,
    seed: int = 0,
) -> GptOss:
    tiny_checkpoint.write(folder, layout, config, seed)
    return reference.build(Checkpoint.open(folder), CPU, dtype=dtype, page_size=page_size)


def told(case: str) -> tuple[list[int], Tensor, Tensor]:
    """The tokens of a golden case, and its logits in float32 and in bfloat16."""
    with safe_open(golden.PATH, framework="pt") as file:
        assert file.metadata()[case] == golden.checksum(*golden.CASES[case]), (
            "weights are not those of the golden file"
        )
        return tuple(file.get_tensor(f"{case}.{part}") for part in ("tokens", "float32", "bfloat16"))


def row_errors(ours: Tensor, theirs: Tensor) -> Tensor:
    """Root mean square of each row's difference, as a share of that of all logits.  [T]"""
    return (ours - theirs).square().mean(-1).sqrt() / theirs.square().mean().sqrt()


def tokens(length: int, seed: int) -> list[int]:
    return [
        random.Random(seed * 1000 + i).randrange(tiny_checkpoint.CONFIG.vocab_size) for i in range(length)
    ]


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Check float32 logits, which may differ only by the order of sums."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    """Check bfloat16 logits, which may differ only by the order of sums.

    A sum may round the other way (2 ** -8 of a value), and once in a while that chooses another expert for a
    token: most rows agree to a few roundings, and one in ten need not.
    """
    errors = row_errors(ours, theirs)
    assert errors.isfinite().all()
    assert errors.quantile(0.9) < 0.02
    assert (ours.argmax(-1) == theirs.argmax(-1)).float().mean() > 0.95


class Precision(NamedTuple):
    """A network, and the comparison of logits for its precision."""

    network: GptOss
    same: Callable[[Tensor, Tensor], None]


@pytest.fixture(
    params=[(torch.float32, assert_close), (torch.bfloat16, assert_near)], ids=["float32", "bfloat16"]
)
def model(request, tmp_path):
    dtype, same = request.param
    return Precision(build(tmp_path, dtype), same)


@pytest.mark.parametrize("case", golden.CASES)
@pytest.mark.parametrize("layout", tiny_checkpoint.LAYOUTS)
def test_float32_logits_equal_those_of_transformers(case, layout, tmp_path):
    config, seed = golden.CASES[case]
    if config.rope_truncate and layout == "original":
        pytest.skip("the original layout's config.json cannot say truncate")
    ids, theirs, _ = told(case)
    ours = alone(build(tmp_path, torch.float32, layout, config=config, seed=seed), ids.tolist())
    assert_close(ours, theirs)


@pytest.mark.parametrize("case", golden.CASES)
def test_bfloat16_logits_are_as_near_the_truth_as_those_of_transformers(case, tmp_path):
    """Random weights amplify rounding, so the error is compared with that of transformers in bfloat16.

    The median of the rows is used, because a row is far off if rounding chose another expert.
    """
    config, seed = golden.CASES[case]
    ids, truth, theirs = told(case)
    ours = alone(build(tmp_path, torch.bfloat16, "hf", config=config, seed=seed), ids.tolist())
    error = row_errors(ours, truth).median()
    assert error < 0.03
    assert error < 1.2 * row_errors(theirs.float(), truth).median()
    assert row_errors(ours, theirs.float()).median() < 0.04


@pytest.mark.parametrize("lengths", [[1] * 60, [59, 1], [1, 59], [7] * 8 + [4], [16, 1, 1, 30, 12]])
def test_any_chunks_equal_one_pass(model, lengths):
    """Prompts in chunks, decodes, and both; chunks end before, at and after the ends of pages and window."""
    ids = tokens(60, seed=1)
    model.same(Paged(model.network, [ids], seed=2).run(lengths), alone(model.network, ids))


def test_a_batch_equals_each_alone(model):
    """Prompts, parts of prompts and decodes of several sequences in the same steps, in any order."""
    sequences = [tokens(length, seed=length) for length in (5, 64, 23, 31, 8)]
    paged = Paged(model.network, sequences, seed=3)
    draw = random.Random(4)
    logits: list[list[Tensor]] = [[] for _ in sequences]
    while left := [s for s, ids in enumerate(sequences) if paged.computed[s] < len(ids)]:
        chosen = draw.sample(left, draw.randint(1, len(left)))
        rest = {s: len(sequences[s]) - paged.computed[s] for s in chosen}
        chunks = {s: draw.choice((1, draw.randint(1, rest[s]))) for s in chosen}
        for s, rows in zip(chunks, paged.step(chunks), strict=True):
            logits[s].append(rows)
    for ids, rows in zip(sequences, logits, strict=True):
        model.same(torch.cat(rows), alone(model.network, ids))


@pytest.mark.parametrize("page_size", [1, 5, 32, 64])
def test_the_size_of_pages_changes_nothing(page_size, tmp_path):
    ids = tokens(60, seed=5)
    small, other = (build(tmp_path, torch.float32, page_size=size) for size in (4, page_size))
    assert_close(Paged(other, [ids]).run([20, 1, 39]), alone(small, ids))


def test_only_samples_get_logits(tmp_path):
    model = build(tmp_path, torch.float32)
    ids = tokens(20, seed=6)
    whole = alone(model, ids)
    batch = replace(Paged(model, [ids]).pack({0: 20}), samples=torch.tensor([19, 4]))
    with torch.inference_mode():
        assert_close(model.forward(batch, model.new_cache(16)), whole[[19, 4]])


def test_a_token_outside_the_window_is_still_seen_by_full_layers(tmp_path):
    """The first token is 40 positions before, and the window is 7, so only full layers see it."""
    model = build(tmp_path, torch.float32)
    ids = tokens(41, seed=7)
    changed = [(ids[0] + 1) % model.config.vocab_size, *ids[1:]]
    assert not torch.allclose(alone(model, ids)[-1], alone(model, changed)[-1], atol=1e-3)


def test_layers_that_are_all_banded_do_not_see_past_their_windows(tmp_path):
    """With one banded layer, the logits at a position depend only on the tokens in the window."""
    config = replace(tiny_checkpoint.CONFIG, num_layers=1)
    model = build(tmp_path, torch.float32, config=config)
    ids = tokens(20, seed=8)
    before, inside = ([*ids[:p], (ids[p] + 1) % config.vocab_size, *ids[p + 1 :]] for p in (12, 13))
    last = alone(model, ids)[-1]
    assert_close(alone(model, before)[-1], last)
    assert not torch.allclose(alone(model, inside)[-1], last, atol=1e-3)


def test_a_page_holds_what_page_bytes_says(tmp_path):
    model = build(tmp_path, torch.bfloat16)
    cache = model.new_cache(3)
    assert cache.num_pages == 3
    assert cache.keys.nbytes + cache.values.nbytes == 3 * model.page_bytes


def test_weights_take_what_the_file_does(tmp_path):
    """Experts stay in MXFP4: in memory they are no larger than on disk."""
    model = build(tmp_path, torch.bfloat16)
    file = (tmp_path / "model.safetensors").stat().st_size
    assert 0.95 * file < model.weight_bytes < file


def test_transformers_agrees_live(tmp_path):
    """The same comparison as with the golden file, with new weights and tokens."""
    pytest.importorskip(
        "transformers", reason="only to check the golden file's claim anew: pip install transformers"
    )
    seed = random.SystemRandom().randrange(1 << 20)
    print("seed", seed)
    ids = torch.tensor(tokens(40, seed))
    theirs = golden.logits(tiny_checkpoint.CONFIG, seed, "hf_bf16", ids, torch.float32)
    ours = alone(build(tmp_path, torch.float32, seed=seed), ids.tolist())
    assert_close(ours, theirs)
