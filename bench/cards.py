"""Calculates the longest context of each model on GPUs of different sizes, alone or with `--tensor-parallel`.

It uses the server's memory plan (engine/memory.py), with each rank's part of the weights and of the KV cache.
It needs no GPU, and loads and measures nothing.  docs/tensor-parallel.md has the table.

    python -m bench.cards
"""

from __future__ import annotations

from engine import memory
from gptoss.assembly import GPU_SHARE
from model.byte_sizes import format_bytes
from model.config import ModelConfig
from model.loading.synthetic import SIZES
from model.parallel.ranks import Ranks
from model.sizes import page_bytes, weight_bytes
from server.settings import Settings

CARDS = {
    "16 GB": 16 * 2**30,
    "24 GB": 24 * 2**30,
    "48 GB": 48 * 2**30,
    "80 GB": 80 * 2**30,
    "141 GB": 141 * 10**9,
}
RANKS = (1, 2, 4, 8)

TAKEN = 2**30
"""Bytes of a GPU's memory that the driver, CUDA and NCCL take."""

PAGE_SIZE = 32


def context(config: ModelConfig, ranks: int, card_bytes: int, dense: str = "bf16") -> int:
    """The longest context of a single request, in tokens; 0 if the weights leave no room for a KV cache."""
    part = Ranks(0, ranks).config(config)
    try:
        return memory.plan(
            weight_bytes(part, dense),
            page_bytes(part, PAGE_SIZE),
            PAGE_SIZE,
            config.sliding_window,
            card_bytes - TAKEN,
            max_context=config.max_context,
            max_running=Settings().max_running,
            fraction=GPU_SHARE,
        ).context_tokens
    except memory.TooLittleMemory:
        return 0


def table() -> str:
    """The table in Markdown: a row for each model and number of GPUs."""
    lines = [
        f"| model | cards | weights each | {' | '.join(CARDS)} |",
        "|---|---|---|" + "---|" * len(CARDS),
    ]
    for name, config in SIZES.items():
        for ranks in RANKS:
            weights = format_bytes(weight_bytes(Ranks(0, ranks).config(config)))
            cells = [
                f"{tokens:,}" if (tokens := context(config, ranks, card)) else "no" for card in CARDS.values()
            ]
            lines.append(f"| {name} | {ranks} | {weights} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
