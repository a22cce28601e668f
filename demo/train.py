"""Trains the demo model on the corpus and writes a checkpoint of the original layout into the run's folder.

    python -m demo.train                          the whole run, into runs/demo
    python -m demo.train --start demo/weights     from existing weights
    python -m demo.train --resume                 from the run's last checkpoint

On a CPU there are two workers of one thread each, on a GPU one; both compute in bfloat16, or in
float32 on a CPU without AVX-512, which is slow at bfloat16.  A run can be stopped at any time (SIGTERM,
Ctrl-C, `--minutes`).  Resumed with the same options and dtype, it gives bit-identical weights, because a step
depends only on the seed, the step's number and the weights.  In the last part of the run, from `--round-from`
on, the experts are rounded to MXFP4, so that the exported weights are the trained ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import time
from collections import defaultdict
from contextlib import closing
from ctypes import c_bool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.distributed
from torch import multiprocessing

from demo import fused
from demo.network import CONFIG, Experts, Network
from demo.optimizer import Muon
from demo.packing import STOPS, Packed, Packer
from language.tokenizer import Tokenizer

WEIGHTS = Path(__file__).parent / "weights"
ENVIRONMENT = {
    # on a busy machine the test for AVX-512 takes too long, and torch.compile would not use it
    "TORCHINDUCTOR_VEC_ISA_OK": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # glibc keeps memory, instead of returning it after every operation and allocating it again page by page
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "1000000000000",
    "MALLOC_TOP_PAD_": "500000000",
    # oneDNN compiles a kernel for every shape of a product, and should cache all of them
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16384",
}
MATRICES = ("qkv", "out", "mlp1", "mlp2")


@dataclass(frozen=True, slots=True)
class Rates:
    """Maximum learning rates."""

    matrices: float
    embeddings: float
    others: float


@dataclass(slots=True)
class Progress:
    """The progress of a worker.

    block, taken  the position in its batches, see `Packer.batches`
    loss          smoothed over recent steps
    """

    step: int = 0
    block: int = 0
    taken: int = 0
    loss: float = 0.0


def optimizers(network: Network, rates: Rates) -> list[torch.optim.Optimizer]:
    named = dict(network.named_parameters())
    matrices = [named[name] for name in MATRICES]
    tables = [named["embedding"], named["unembedding"]]
    others = [weight for name, weight in named.items() if name not in (*MATRICES, "embedding", "unembedding")]
    adam = torch.optim.Adam(
        [{"params": tables, "lr": rates.embeddings}, {"params": others, "lr": rates.others}],
        betas=(0.9, 0.97),
        fused=True,
    )
    made: list[torch.optim.Optimizer] = [Muon(matrices, lr=rates.matrices, dtype=network.dtype), adam]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["height"] = group["lr"]
    return made


def height(step: int, steps: int, warm: int, cool: int) -> float:
    """Factor of the learning rate: a short rise, constant, and over the last `cool` steps a line
    down to 0.
    """
    return min(1.0, (step + 1) / warm, (steps - step) / max(cool, 1))


@torch.no_grad()
def report(network: Network, batches: list[Packed], rounded: bool) -> dict[str, list[float]]:
    """For each family: cases, share exactly right if greedy, mean probability of being right at temperature
    1.

    One pass is enough: greedy decoding gives the right answer exactly if each of its tokens is the most
    likely one after those before it.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    experts = network.experts(rounded)
    for packed in batches:
        logits, _ = network(packed.prefix, packed.tokens, packed.rows, experts)
        logprobs = logits.log_softmax(-1).gather(1, packed.targets[:, None])[:, 0].cpu()
        wrong = (logits.argmax(-1) != packed.targets).float().cpu()
        count, owner = len(packed.samples), packed.sample.cpu()
        logprob = torch.zeros(count).index_add(0, owner, logprobs)
        mistakes = torch.zeros(count).index_add(0, owner, wrong)
        for sample, its_logprob, its_mistakes in zip(
            packed.samples, logprob.exp().tolist(), mistakes.tolist(), strict=True
        ):
            for name in (sample.family, f"effort {sample.conversation.effort}"):
                entry = sums[name]
                entry[0] += 1
                entry[1] += its_mistakes == 0
                entry[2] += its_logprob
    return {
        name: [cases, right / cases, likely / cases] for name, (cases, right, likely) in sorted(sums.items())
    }


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--steps", type=int, default=6000, help="of the whole run")
    made.add_argument("--minutes", type=float, default=1e9, help="stop after this time; --resume continues")
    made.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="folder of checkpoint, log, weights"
    )
    made.add_argument("--resume", action="store_true", help="continue from the run's last checkpoint")
    made.add_argument("--start", type=Path, help="folder of weights to begin with instead of random ones")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument(
        "--dtype", choices=("bfloat16", "float32"), help="bfloat16, unless the processor is slow at it"
    )
    made.add_argument("--workers", type=int, help="processes of one thread each; 2, on a GPU 1")
    made.add_argument(
        "--makers", type=int, help="processes that make each worker's batches; 0, on a GPU up to 12"
    )
    made.add_argument("--batches", type=int, default=1, help="a step, per worker")
    made.add_argument("--tokens", type=int, default=4000, help="of a batch")
    made.add_argument("--matrix-rate", type=float, default=0.008)
    made.add_argument("--embedding-rate", type=float, default=0.003)
    made.add_argument("--other-rate", type=float, default=0.0015)
    made.add_argument("--warm", type=int, default=50, help="steps in which the rates rise")
    made.add_argument("--cool", type=float, default=0.5, help="share of the run in which the rates go down")
    made.add_argument("--round-from", type=float, default=0.6, help="share of the run; see above")
    made.add_argument(
        "--drills", type=float, default=0.1, help="copying drills a batch, until the rates go down"
    )
    made.add_argument("--held", type=int, default=16, help="held-out batches of a report")
    made.add_argument("--report-every", type=int, default=100, help="steps between checkpoints")
    made.add_argument("--no-compile", action="store_true")
    return made


def main() -> None:
    options = parser().parse_args()
    options.workers = options.workers or (1 if options.device == "cuda" else 2)
    if options.makers is None:
        options.makers = min(12, max(1, len(os.sched_getaffinity(0)) - 2)) if options.device == "cuda" else 0
    options.dtype = options.dtype or quick_dtype(options.device)
    options.run.mkdir(parents=True, exist_ok=True)
    os.environ |= ENVIRONMENT
    meeting = options.run / "meeting"
    meeting.unlink(missing_ok=True)
    asked = multiprocessing.get_context("spawn").RawValue(c_bool)
    for heard in STOPS:
        signal.signal(heard, signal.SIG_IGN)  # of the workers too, until they listen
    running = multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]
        work, args=(options, f"file://{meeting.absolute()}", asked), nprocs=options.workers, join=False
    )
    listen(asked)
    while not running.join():
        pass


def work(rank: int, options: argparse.Namespace, meeting: str, asked: c_bool) -> None:
    """One process of a run.  `asked`, which all of them share, is true when they are to stop together."""
    listen(asked)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.workers)
    if not options.no_compile:
        fused.compile_bodies()
    train(rank, options, asked)
    torch.distributed.destroy_process_group()


def train(rank: int, options: argparse.Namespace, asked: c_bool) -> Network:
    """One worker: its own samples, and the gradients of all workers.  Only worker 0 writes files
    and output.
    """
    device = torch.device(options.device)
    tokenizer = Tokenizer(WEIGHTS / "tokenizer.json")
    network = Network(CONFIG, options.seed, getattr(torch, options.dtype))
    if options.start and not options.resume:
        network.take(options.start)
    network.to(device)
    made = optimizers(network, Rates(options.matrix_rate, options.embedding_rate, options.other_rate))
    at = resume(options.run, network, made, rank) if options.resume else Progress()
    packer = Packer(tokenizer, seed=options.seed + 100 * rank, tokens=options.tokens)
    batches = packer.batches(at.block, at.taken, options.makers)
    held: list[Packed] = []
    if rank == 0:
        unseen = Packer(tokenizer, seed=99, tokens=options.tokens, held=True)
        held = [packed.to(device) for packed, _ in islice(unseen.batches(), options.held)]
        size = sum(weight.numel() for weight in network.parameters()) / 1e6
        print(f"{size:.2f} million parameters; from step {at.step}: {vars(options)}", flush=True)
    stop = Stop(options.minutes, asked)
    began, seen = time.monotonic(), 0
    with closing(batches):  # its makers ignore signals, and would outlive an error
        while at.step < options.steps and not stop.agreed():
            share = height(at.step, options.steps, options.warm, round(options.cool * options.steps))
            rounded = at.step >= options.round_from * options.steps
            for optimizer in made:
                for group in optimizer.param_groups:
                    group["lr"] = group["height"] * share
            drills = options.drills if share == 1 else 0.0
            experts = network.experts(rounded)
            for number in range(options.batches):
                packed, (at.block, at.taken) = next(batches)
                loss = learn(network, packed.to(device), experts)
                at.loss = 0.98 * at.loss + 0.02 * loss if at.loss else loss
                seen += packed.tokens.numel()
                chance = Random(f"{options.seed} {rank} {at.step} {number}")
                if chance.random() < drills:
                    learn(network, packer.drill(packed.prefix, chance.randrange(2**32)).to(device), experts)
            share_gradients(network)
            for optimizer in made:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            at.step += 1
            if rank == 0 and at.step % 20 == 0:
                speed = seen * options.workers / (time.monotonic() - began)
                print(f"step {at.step} loss {at.loss:.4f} rate {share:.3f} {speed:.0f} tokens/s", flush=True)
            if at.step % options.report_every == 0:
                keep(options.run, network, made, at, rank, held)
    if at.step % options.report_every:
        keep(options.run, network, made, at, rank, held)
    return network


def learn(network: Network, packed: Packed, experts: Experts) -> float:
    """Adds the gradients of a batch, and returns its loss.

    experts  as all batches of a step use them
    """
    logits, imbalance = network(packed.prefix, packed.tokens, packed.rows, experts)
    loss = torch.nn.functional.cross_entropy(logits, packed.targets)
    ((loss + 0.01 * imbalance) * len(packed.targets)).backward()
    return float(loss.item())


def listen(asked: c_bool) -> None:
    """Set `asked` when this process is told to stop.  (A lock could be held when the signal comes.)"""

    def note(*_: Any) -> None:
        asked.value = True

    for heard in STOPS:
        signal.signal(heard, note)


class Stop:
    """Whether to stop before the end.  Worker 0 decides for all."""

    def __init__(self, minutes: float, asked: c_bool):
        self._end, self._asked = time.monotonic() + 60 * minutes, asked

    def agreed(self) -> bool:
        stop = torch.tensor(float(self._asked.value or time.monotonic() >= self._end))
        if workers() > 1:
            torch.distributed.broadcast(stop, src=0)
        return bool(stop)


def quick_dtype(device: str) -> str:
    """The dtype of activations and products, bfloat16 if the device is quick at it.  Without AVX-512,
    PyTorch has only slow products of bfloat16: a step took 100 s, in float32 6 s.
    """
    slow = device == "cpu" and not torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return "float32" if slow else "bfloat16"


def workers() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def share_gradients(network: Network) -> None:
    """Replace each worker's gradients by the sum of all workers'."""
    if workers() == 1:
        return
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, part in zip(
        gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(part.view_as(gradient))


def resume(run: Path, network: Network, made: list[torch.optim.Optimizer], rank: int) -> Progress:
    """Load the run's last checkpoint, and return its progress.  The learning rates are those of
    the options.
    """
    saved = torch.load(run / "last.pt", weights_only=True)
    network.load_state_dict(saved["network"])
    for optimizer, state in zip(made, saved["optimizers"], strict=True):
        heights = [group["height"] for group in optimizer.param_groups]
        optimizer.load_state_dict(state)
        for group, own in zip(optimizer.param_groups, heights, strict=True):
            group["height"] = own
    # If there are more workers than before, a new one begins at the position of another, in its own samples.
    step, block, taken, loss = saved["progress"][rank % len(saved["progress"])]
    return Progress(step, block, taken, loss)


def keep(
    run: Path,
    network: Network,
    made: list[torch.optim.Optimizer],
    at: Progress,
    rank: int,
    held: list[Packed],
) -> None:
    """Write a checkpoint to resume from (completely or not at all) and the exported weights;
    print a report.
    """
    here = (at.step, at.block, at.taken, at.loss)
    everyone: list[Any] = [here] * workers()
    if workers() > 1:
        torch.distributed.all_gather_object(everyone, here)
    if rank > 0:
        return
    state = {
        "network": network.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in made],
        "progress": everyone,
    }
    torch.save(state, run / "next.pt")
    (run / "next.pt").rename(run / "last.pt")
    network.export(run / "weights")
    shutil.copy(WEIGHTS / "tokenizer.json", run / "weights")
    found = report(network, held, rounded=True)
    told = (
        f"{name} {right:.0%}/{likely:.0%} of {cases:.0f}" for name, (cases, right, likely) in found.items()
    )
    print(f"held out at step {at.step}: {', '.join(told)}", flush=True)
    with (run / "held_out.jsonl").open("a") as log:
        log.write(json.dumps({"step": at.step, "families": found}) + "\n")


if __name__ == "__main__":
    main()
