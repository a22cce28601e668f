"""The trained network computes the same as the served one."""

import multiprocessing
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from random import Random

import pytest
import torch

from demo.answers import sample_tokens
from demo.average import averaged
from demo.corpus.mixture import FIXED, a_sample, a_setting
from demo.network import CONFIG, Network
from demo.packing import Packer
from demo.tokenizer import SPECIALS, untrained
from demo.train import Rates, optimizers
from demo.widen import widened
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer
from model.backends import load
from model.loading.checkpoint import Checkpoint
from tests.model.paging import alone

SMALL = replace(
    CONFIG,
    vocab_size=288,
    hidden_size=96,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=32,
    num_experts=5,
    experts_per_token=3,
    intermediate_size=64,
    sliding_window=24,
    initial_context_length=64,
)


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float32], ids=str)
def network(request):
    network = Network(SMALL, seed=7, dtype=request.param)
    noise = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(("bias", "sinks")):
                weight.copy_(torch.randn(weight.shape, generator=noise))
    return network


@pytest.fixture(scope="module")
def served(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    network.export(folder)
    untrained().save(str(folder / "tokenizer.json"))
    return load(torch.device("cpu"), "reference").build(Checkpoint.open(folder), torch.device("cpu"))


def test_exported_weights_give_the_trainers_logits(network, served):
    """A batch of a prefix and rows gives the same logits as each sample computed alone."""
    tokens = torch.randint(0, 280, (4, 90), generator=torch.Generator().manual_seed(3))
    prefix, rows = tokens[0, :37], tokens[1:, :53]
    with torch.no_grad():
        logits, _ = network(prefix, rows, torch.arange(rows.numel()), network.experts(rounded=True))
    for row, ours in zip(rows, logits.view(3, 53, -1), strict=True):
        theirs = alone(served, [*prefix.tolist(), *row.tolist()])[37:]
        # A few experts' scores are so close that a rounding decides between them; their rows differ a little.
        assert ((ours - theirs).abs() < 0.1 * theirs.std()).float().mean() > 0.98
        assert torch.corrcoef(torch.stack((ours.flatten(), theirs.flatten())))[0, 1] > 0.999


def test_gradients_reach_every_weight(network):
    tokens = torch.randint(0, 280, (2, 60), generator=torch.Generator().manual_seed(4))
    logits, imbalance = network(tokens[0, :20], tokens, torch.arange(120), network.experts(rounded=True))
    (logits.square().mean() + imbalance).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_a_batch_predicts_exactly_the_answers(tmp_path):
    untrained().save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    packer = Packer(tokenizer, seed=5, tokens=8000, longest=3000, settings=1)
    packed, _ = next(packer.batches())
    placed = packed.tokens.flatten()
    assert torch.equal(placed[packed.rows + 1], packed.targets)
    for place, sample in enumerate(packed.samples):
        said = packed.targets[packed.sample == place].tolist()
        _, whole = sample_tokens(tokenizer, Renderer(tokenizer), sample)
        expected = sample.answer.final or (sample.answer.call and sample.answer.call.arguments)
        assert expected is not None
        assert tokenizer.decode(whole).endswith(
            expected + ("<|call|>" if sample.answer.call else "<|return|>")
        )
        if expected in FIXED:
            assert whole[: len(said)] == said
        else:
            assert whole == said


def test_makers_give_the_batches_that_the_packer_makes_itself(tmp_path):
    """From the middle of a block on, in the same order, and the processes end with the iterator."""
    untrained().save(str(tmp_path / "tokenizer.json"))
    packer = Packer(Tokenizer(tmp_path / "tokenizer.json"), seed=5, tokens=8000, longest=3000, settings=1)
    before = multiprocessing.active_children()
    expected = [*packer.packed(3)[2:], *packer.packed(4)]
    with closing(packer.batches(3, 2, makers=2)) as made:
        for theirs in expected:
            ours, follows = next(made)
            assert len(multiprocessing.active_children()) == len(before) + 2
            for name in ("prefix", "tokens", "rows", "targets", "sample"):
                assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
        assert follows == (5, 0)
    assert multiprocessing.active_children() == before


def test_most_fixed_answers_are_cut_only_in_training(tmp_path):
    untrained().save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    for held in (False, True):
        packer = Packer(tokenizer, seed=5, tokens=8000, held=held, longest=3000, settings=4)
        lengths = [
            len(answer) for batch in packer.block(0) for one, _, answer in batch if one.answer.final in FIXED
        ]
        assert len(lengths) > 20
        short = sum(length <= 32 for length in lengths) / len(lengths)
        assert short == 0 if held else 0.6 < short < 1


def test_a_wider_checkpoint_gives_the_same_logits_and_can_be_trained():
    """Its new units learn too: their outputs in the first step, their inputs in the next."""
    narrow = Network(replace(SMALL, intermediate_size=32), seed=7)
    tokens = torch.randint(0, 280, (2, 60), generator=torch.Generator().manual_seed(4))

    def step(network, made):
        logits, _ = network(tokens[0, :20], tokens, torch.arange(120), network.experts(rounded=False))
        torch.nn.functional.cross_entropy(logits, tokens.flatten()).backward()
        for optimizer in made:
            optimizer.step()
        return logits.detach()

    rates = Rates(0.01, 0.001, 0.001)
    made = optimizers(narrow, rates)
    for _ in range(2):
        step(narrow, made)
    saved = {
        "network": narrow.state_dict(),
        "optimizers": deepcopy([optimizer.state_dict() for optimizer in made]),
        "progress": [(2, 0, 0, 1.0)],
    }
    grown = widened(saved, SMALL)
    wide = Network(SMALL, seed=1)
    wide.load_state_dict(grown["network"])
    wider = optimizers(wide, rates)
    for optimizer, state in zip(wider, grown["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    torch.testing.assert_close(step(wide, wider), step(narrow, made), rtol=0.02, atol=0.02)
    assert (wide.mlp2[..., 32:] != 0).any(dim=(0, 1, 2)).all()
    step(wide, wider)
    assert (wide.mlp1_bias[..., 64:] != 0).any(dim=(0, 1)).all()


def test_weights_and_checkpoints_are_averaged(tmp_path):
    exported, trained = Network(SMALL, seed=1), Network(SMALL, seed=2)
    exported.export(tmp_path)
    torch.save({"network": trained.state_dict()}, tmp_path / "last.pt")
    rounded = Network(SMALL, seed=3)
    rounded.take(tmp_path)
    mean = dict(averaged([tmp_path, tmp_path / "last.pt", tmp_path / "last.pt"], SMALL).named_parameters())
    for (name, left), right in zip(rounded.named_parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(mean[name], (left + 2 * right) / 3)
    with pytest.raises(ValueError, match="no weights"):
        averaged([], SMALL)


def test_training_never_sees_what_is_held_out():
    rng = Random(6)
    seen = {(sample.family, sample.key) for sample in (a_sample(rng, a_setting(rng)) for _ in range(2000))}
    held = {(one.family, one.key) for one in (a_sample(rng, a_setting(rng), held=True) for _ in range(500))}
    assert len(held) > 200
    assert not seen & held


def test_all_special_tokens_have_their_names(tmp_path):
    untrained().save(str(tmp_path / "tokenizer.json"))
    assert sorted(Tokenizer(tmp_path / "tokenizer.json").specials) == sorted(SPECIALS)
