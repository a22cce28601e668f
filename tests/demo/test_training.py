"""The training of the demo model: its optimised parts, its schedule, stopping and resuming."""

import subprocess
import sys
from ctypes import c_bool
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from demo import fused, train
from demo.network import CONFIG, Network
from demo.packing import Packer
from model import layers

T, E, F, LIMIT = 37, 5, 6, 1.5


def with_gradients(function, *inputs):
    """The function's result, and the gradient of each argument."""
    inputs = [each.clone().requires_grad_(each.is_floating_point()) for each in inputs]
    found = function(*inputs)
    found.float().square().sum().backward()
    return [found.detach(), *(each.grad for each in inputs if each.grad is not None)]


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.isfinite(one).all()
        error = (one.float() - other.float()).norm() / other.float().norm()
        assert error < 0.02, error  # bfloat16 inside, in another order


@pytest.fixture
def noise():
    made = torch.Generator().manual_seed(5)
    return lambda *shape: torch.randn(*shape, generator=made)


def test_rms_norm_is_that_of_the_layers(noise):
    x, scale = noise(T, 24).bfloat16(), noise(24)
    same(
        with_gradients(lambda x, scale: fused.rms_norm(x, scale, 1e-5), x, scale),
        with_gradients(lambda x, scale: layers.rms_norm(x, scale, 1e-5), x, scale),
    )


def test_rotation_is_that_of_the_layers(noise):
    x, angles = noise(T, 3, 8).bfloat16(), noise(T, 4)
    cos, sin = angles.cos(), angles.sin()
    same(
        with_gradients(lambda x: fused.rotate(x, cos, sin), x),
        with_gradients(lambda x: layers.rotate(x, cos, sin), x),
    )


def test_weighted_swiglu_is_each_experts_swiglu_times_its_weight(noise):
    h, weights = 2 * noise(T, 2 * E * F).bfloat16(), noise(T, E)

    def expert_by_expert(h, weights):
        gates, values = h.float().view(T, 2, E, F).unbind(1)
        interleaved = torch.stack((gates, values), dim=-1).flatten(-2)
        return (layers.clamped_swiglu(interleaved, LIMIT) * weights[..., None]).view(T, E * F)

    same(
        with_gradients(lambda h, weights: fused.weighted_swiglu(h, weights, LIMIT), h, weights),
        with_gradients(expert_by_expert, h, weights),
    )


def test_attention_spends_on_the_sink_what_the_softmax_says(noise):
    KV, B, G, Q, K, D = 2, 3, 2, 5, 9, 8
    q, k, v = (noise(KV * B, n, D).bfloat16() for n in (G * Q, K - 1, K - 1))
    sinks = noise(KV, G)
    mask = torch.where(torch.ones(Q, K).tril(K - Q - 1) > 0, 0.0, -torch.inf).bfloat16()
    mask[:, 0] = 0

    def padded(x):
        return torch.nn.functional.pad(x, (0, 0, 1, 0))

    def plain(q, k, v, sinks):
        scores = (q.float() @ k.float().transpose(1, 2)).view(KV, B, G, Q, K - 1) + mask[:, 1:].float()
        sink = sinks[:, None, :, None, None].expand(KV, B, G, Q, 1)
        weights = torch.cat((sink, scores), -1).softmax(-1)[..., 1:]
        return weights.reshape(KV * B, G * Q, K - 1) @ v.float()

    def ours(q, k, v, sinks):
        return fused.attend(q, padded(k), padded(v), sinks, mask)

    same(with_gradients(ours, q, k, v, sinks), with_gradients(plain, q, k, v, sinks))


@pytest.fixture
def one_thread():
    """Uses one thread, as each worker does: two would wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SMALL = replace(
    CONFIG, hidden_size=64, num_layers=2, num_heads=2, num_kv_heads=1, num_experts=4, experts_per_token=2
)


def run(folder, monkeypatch, *arguments):
    monkeypatch.setattr(train, "CONFIG", SMALL)
    monkeypatch.setattr(train, "Packer", partial(Packer, settings=1, longest=250))
    folder.mkdir(exist_ok=True)
    options = train.parser().parse_args(
        [
            "--run",
            str(folder),
            "--tokens",
            "500",
            "--held",
            "1",
            "--device",
            "cpu",
            "--drills",
            "1",
            *arguments,
        ]
    )
    options.workers = 1
    options.dtype = options.dtype or "bfloat16"
    return train.train(0, options, c_bool())


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch, one_thread):
    """If weights, moments, samples or rates were not restored, the final weights would differ."""
    whole = run(tmp_path / "whole", monkeypatch, "--steps", "5")
    agreed = iter([False, False, True])  # after two steps
    with monkeypatch.context() as patched:
        patched.setattr(train.Stop, "agreed", lambda _: next(agreed))
        run(tmp_path / "parts", monkeypatch, "--steps", "5")
    again = run(tmp_path / "parts", monkeypatch, "--steps", "5", "--resume")
    assert again.state_dict().keys() == whole.state_dict().keys()
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    ended = [torch.load(tmp_path / one / "last.pt")["progress"] for one in ("whole", "parts")]
    assert ended[0] == ended[1]
    assert ended[0][0][0] == 5


def test_a_run_stops_when_only_its_first_process_is_asked(tmp_path):
    """As `kill` with the number that the shell shows does: the workers are other processes."""
    options = ["--no-compile", "--device", "cpu", "--tokens", "300", "--held", "1", "--report-every", "1"]
    command = [sys.executable, "-m", "demo.train", "--run", str(tmp_path), "--workers", "1", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert "from step 0" in running.stdout.readline()
            running.terminate()
            assert running.wait(timeout=100) == 0
        finally:
            running.kill()


@pytest.mark.parametrize(
    ("device", "capability", "dtype"),
    [
        ("cpu", "AVX2", "float32"),
        ("cpu", "DEFAULT", "float32"),
        ("cpu", "AVX512", "bfloat16"),
        ("cuda", "AVX2", "bfloat16"),
    ],
)
def test_bfloat16_is_for_devices_that_are_quick_at_it(monkeypatch, device, capability, dtype):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert train.quick_dtype(device) == dtype


class Multiplied(TorchDispatchMode):
    """Notes the dtypes of the factors of matrix products."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("mm", "addmm", "bmm", "baddbmm"):
            self.dtypes |= {each.dtype for each in args}
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_step_multiplies_only_numbers_of_its_dtype(tmp_path, monkeypatch, dtype):
    with Multiplied() as seen:
        run(tmp_path, monkeypatch, "--steps", "1", "--dtype", dtype)
    assert seen.dtypes == {getattr(torch, dtype)}


def test_a_run_can_start_from_exported_weights(tmp_path):
    network, other = Network(SMALL, seed=1), Network(SMALL, seed=2)
    network.export(tmp_path)
    other.take(tmp_path)
    ours, theirs = network.tensors(), other.tensors()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    with pytest.raises(ValueError, match="other sizes"):
        Network(replace(SMALL, num_experts=5), seed=1).take(tmp_path)


def test_rates_rise_stay_and_fall():
    shares = [train.height(step, steps=100, warm=10, cool=40) for step in range(100)]
    assert shares[0] == 0.1
    assert shares[9:60] == [1.0] * 51
    assert all(later < earlier for earlier, later in pairwise(shares[60:]))
    assert 0 < shares[-1] <= 0.025
