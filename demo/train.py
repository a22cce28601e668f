"""Trains the demo model: from nothing to demo/weights/, on a CPU.

    python -m demo.train --minutes 60                 the whole run
    python -m demo.train --resume --minutes 20        go on from the last checkpoint

The same seed sees the same samples.  `--minutes` ends a run early, its last steps cooled down all the same.
From `--round-from` of the way on the experts are rounded to MXFP4, so what is exported is what was trained.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.distributed
from torch import multiprocessing

from demo.network import CONFIG, Network
from demo.optimizer import Muon
from demo.packing import Packed, Packer
from language.tokenizer import Tokenizer

WEIGHTS = Path(__file__).parent / "weights"
STEADY_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "1000000000000",
    "MALLOC_TOP_PAD_": "500000000",
}
"""Keeps glibc from giving memory back after every operation and taking it again, page by page."""
MATRICES = ("qkv", "out", "mlp1", "mlp2")


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates at their height."""

    matrices: float
    embeddings: float
    others: float


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
    made: list[torch.optim.Optimizer] = [Muon(matrices, lr=rates.matrices), adam]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["height"] = group["lr"]
    return made


def height(progress: float, step: int, warm: int, cool_from: float) -> float:
    """Share of the learning rate: a short rise, a plain, and a straight way down to 0."""
    return min(1.0, (step + 1) / warm, (1.0 - progress) / max(1.0 - cool_from, 1e-9))


@torch.no_grad()
def report(network: Network, batches: list[Packed], rounded: bool) -> dict[str, list[float]]:
    """Per family: cases, share exactly right if greedy, mean probability of being right at temperature 1.

    One pass is enough: greedy decoding says the right answer exactly if each of its tokens is the likeliest
    after those before it.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    experts = network.experts(rounded)
    for packed in batches:
        logits, _ = network(packed.prefix, packed.tokens, packed.rows, experts)
        logprobs = logits.log_softmax(-1).gather(1, packed.targets[:, None])[:, 0]
        wrong = (logits.argmax(-1) != packed.targets).float()
        count = len(packed.samples)
        logprob = torch.zeros(count).index_add(0, packed.sample, logprobs)
        mistakes = torch.zeros(count).index_add(0, packed.sample, wrong)
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120, help="at most")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--batches", type=int, default=1, help="batches a step, per worker")
    parser.add_argument("--tokens", type=int, default=4000, help="tokens a batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="where checkpoints and the log go"
    )
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    parser.add_argument("--matrix-rate", type=float, default=0.008)
    parser.add_argument("--embedding-rate", type=float, default=0.003)
    parser.add_argument("--other-rate", type=float, default=0.0015)
    parser.add_argument(
        "--cool-from", type=float, default=0.5, help="share of the run after which the rates go down"
    )
    parser.add_argument(
        "--round-from",
        type=float,
        default=0.6,
        help="share of the run after which experts are rounded to MXFP4",
    )
    parser.add_argument(
        "--drills",
        type=float,
        default=0.25,
        help="copying drills for each batch, at first; none after a third",
    )
    parser.add_argument("--report-every", type=int, default=100)
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    os.environ |= STEADY_MEMORY | {"OMP_NUM_THREADS": "1"}
    meeting = options.run / "meeting"
    meeting.unlink(missing_ok=True)
    multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]
        train, args=(options, f"file://{meeting.absolute()}"), nprocs=options.workers
    )


def train(rank: int, options: argparse.Namespace, meeting: str) -> None:
    """One worker: its own samples, everyone's gradients.  Worker 0 writes what there is to write."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.workers)
    tokenizer = Tokenizer(WEIGHTS / "tokenizer.json")
    network = Network(CONFIG, options.seed)
    made = optimizers(network, Rates(options.matrix_rate, options.embedding_rate, options.other_rate))
    first = resume(options.run, network, made) if options.resume else 0
    packer = Packer(tokenizer, seed=options.seed + 1000 * first + 100 * rank)
    batches = packer.batches(options.tokens)
    held = (
        list(islice(Packer(tokenizer, seed=99, held=True).batches(options.tokens, pool=100), 40))
        if rank == 0
        else []
    )
    if rank == 0:
        print(
            f"{sum(weight.numel() for weight in network.parameters()) / 1e6:.2f} million parameters, "
            f"{sum(len(one.samples) for one in held)} held-out samples",
            flush=True,
        )
    began, step, seen, smooth, drilled = time.monotonic(), first, 0, 0.0, 0.0
    while (
        progress := agreed(
            max((step - first) / options.steps, (time.monotonic() - began) / 60 / options.minutes)
        )
    ) < 1:
        share = height(progress, step - first, 50, options.cool_from)
        rounded = progress >= options.round_from
        packer.drills = options.drills * max(0.0, 1 - 3 * progress)
        for optimizer in made:
            for group in optimizer.param_groups:
                group["lr"] = group["height"] * share
        losses: list[float] = []
        for packed in islice(batches, options.batches):
            logits, imbalance = network(packed.prefix, packed.tokens, packed.rows, network.experts(rounded))
            loss = torch.nn.functional.cross_entropy(logits, packed.targets)
            ((loss + 0.01 * imbalance) * len(packed.targets)).backward()
            if packed.samples:
                losses.append(loss.item())
            else:
                drilled = 0.9 * drilled + 0.1 * loss.item()
            seen += packed.tokens.numel()
        share_gradients(network)
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        for loss_now in losses:
            smooth = 0.98 * smooth + 0.02 * loss_now if smooth else loss_now
        if rank > 0:
            continue
        if step % 20 == 0 or step - first <= 3:
            speed = seen * options.workers / (time.monotonic() - began)
            print(
                f"step {step} {progress:.3f} loss {smooth:.4f} drills {drilled:.3f} "
                f"balance {imbalance.item():.2f} "
                f"{speed:.0f} tokens/s{' mxfp4' if rounded else ''}",
                flush=True,
            )
        if step % options.report_every == 0:
            save(options.run, network, made, step)
            tell(report(network, held[:16], rounded), step, options.run)
    if rank == 0:
        save(options.run, network, made, step)
        tell(report(network, held, True), step, options.run)
        network.export(options.out)
        print(
            f"{options.out}: {sum(path.stat().st_size for path in options.out.iterdir()) / 1e6:.2f} MB",
            flush=True,
        )


def agreed(progress: float) -> float:
    """Worker 0's clock is everyone's."""
    shared = torch.tensor(progress, dtype=torch.float64)
    torch.distributed.broadcast(shared, src=0)
    return shared.item()


def share_gradients(network: Network) -> None:
    """Every worker's gradients become the sum of all."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, part in zip(
        gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(part.view_as(gradient))


def resume(run: Path, network: Network, made: list[torch.optim.Optimizer]) -> int:
    """The steps of the run's last checkpoint; the rates stay those asked for now."""
    saved = torch.load(run / "last.pt", weights_only=True)
    network.load_state_dict(saved["network"])
    for optimizer, state in zip(made, saved["optimizers"], strict=True):
        heights = [group["height"] for group in optimizer.param_groups]
        optimizer.load_state_dict(state)
        for group, own in zip(optimizer.param_groups, heights, strict=True):
            group["height"] = own
    return int(saved["step"])


def save(run: Path, network: Network, made: list[torch.optim.Optimizer], step: int) -> None:
    """A checkpoint to resume from; whole, or not there."""
    state = {
        "network": network.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in made],
        "step": step,
    }
    torch.save(state, run / "next.pt")
    (run / "next.pt").rename(run / "last.pt")


def tell(found: dict[str, list[float]], step: int, run: Path) -> None:
    print(
        f"held out at step {step}: "
        + ", ".join(
            f"{name} {right:.0%}/{likely:.0%} of {cases:.0f}"
            for name, (cases, right, likely) in found.items()
        ),
        flush=True,
    )
    with (run / "held_out.jsonl").open("a") as log:
        log.write(json.dumps({"step": step, "families": found}) + "\n")


if __name__ == "__main__":
    main()
