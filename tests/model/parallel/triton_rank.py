"""One rank of a model on the Triton kernels: `python -m ...triton_rank CHECKPOINT MEETING RANK SIZE`."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import torch

from model.backends.triton.kernels import dense, experts_few
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.loading.checkpoint import Checkpoint
from model.parallel.ranks import ALONE, Ranks, connect
from tests import tiny_checkpoint
from tests.model.paging import Paged

CPU = torch.device("cpu")
CONFIG = replace(
    tiny_checkpoint.CONFIG, num_layers=2, num_heads=8, num_kv_heads=4, num_experts=8, sliding_window=5
)


def ids(length: int, seed: int) -> list[int]:
    return [random.Random(seed * 1000 + i).randrange(CONFIG.vocab_size) for i in range(length)]


def logits(folder: Path, ranks: Ranks) -> torch.Tensor:
    """Of a prompt of few tokens, one of many, and decodes of both together."""
    for tile in (experts_few.GATE_UP_TILE, experts_few.DOWN_TILE, dense.SMALL_TILE):
        tile["BN"] = 64  # the interpreter takes time for each program
    dense.ROW_TILE["BN"] = 128
    whole = Checkpoint.open(folder)
    source = whole if ranks.size == 1 else whole.part(ranks)
    weights = Reader(source, CPU, torch.float32).all()
    model = TritonModel(source.config, weights, page_size=4, ranks=ranks)
    paged = Paged(model, [ids(7, 1), ids(19, 2)])
    parts = [*paged.step({0: 6}), *paged.step({1: 18}), *paged.step({1: 1, 0: 1})]
    return torch.cat(parts)[:, : CONFIG.vocab_size]


def main(folder: str, meeting: str, rank: str, size: str) -> None:
    torch.set_num_threads(1)
    ranks: Ranks = ALONE
    if size != "1":
        ranks = connect(int(rank), int(size), CPU, Path(meeting) / "ranks", batch_invariant=False)
    torch.save(logits(Path(folder), ranks), Path(meeting) / f"logits-{rank}-of-{size}")


if __name__ == "__main__":
    main(*sys.argv[1:])
