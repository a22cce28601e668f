"""A correct backend passes the checks; a wrong one is named."""

import torch

from model import backends as kernels
from model import self_check as probe
from model.check import Check, relative_error
from model.self_check import whole_model_checks

CPU = torch.device("cpu")


def test_the_reference_in_bfloat16_passes():
    checks = list(whole_model_checks("reference", CPU, {}))
    assert [check.tokens for check in checks] == [82, 2]
    assert all(check.passed for check in checks)
    assert not list(probe.kernel_checks("reference", CPU, {}))  # there is nothing to compare it with


def test_a_model_that_forgets_its_keys_is_caught_behind_its_prompt(monkeypatch):
    """Its prompts are correct, because only a token after them reads keys of an earlier step."""
    reference = kernels.load(CPU, "reference")

    class Forgetful:
        @staticmethod
        def build(checkpoint, device):
            model = reference.build(checkpoint, device)
            forward = model.forward

            def forget(batch, cache):
                logits = forward(batch, cache)
                cache.keys.zero_()
                return logits

            model.forward = forget
            return model

    monkeypatch.setattr(kernels, "load", lambda device, backend=None: Forgetful)
    prompts, tokens = whole_model_checks("forgetful", CPU, {})
    assert prompts.passed
    assert not tokens.passed


def test_what_is_no_number_never_passes():
    nothing = relative_error(torch.tensor([torch.nan]), torch.ones(1))
    assert not Check("x", 1, nothing, 1.0).passed
    assert not Check("x", 1, relative_error(torch.ones(2), torch.ones(3)), 1.0).passed
    assert Check("x", 1, relative_error(torch.zeros(2), torch.zeros(2)), 0).passed
