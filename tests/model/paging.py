"""Sequences in scattered pages: packs chunks into batches as the engine does, and makes wrong accesses
visible.

The memory of the cache is NaN at first, pages behind the window become NaN again, and page numbers that must
not be used are out of range.
"""

import random

import torch
from torch import Tensor

from model.batch import BANDED, FULL, Batch, pages_for
from model.interfaces import Model

NOWHERE = 1 << 30
"""A page number that is out of range for every cache."""


class Paged:
    """Some sequences of known tokens, computed in chunks.

    sequences  the tokens of each
    seed       of the random order in which pages are used
    """

    def __init__(self, model: Model, sequences: list[list[int]], seed: int = 0):
        self.model = model
        self.sequences = sequences
        self.computed = [0] * len(sequences)
        size = model.page_size
        pages = [-(-len(tokens) // size) for tokens in sequences]
        each = sum(pages) + 3
        own = isinstance(model.page_bytes, tuple)  # each kind has its own pool, and its own page numbers
        numbers = [list(range(each)), list(range(each, 2 * each))] if own else [list(range(2 * each))] * 2
        for pool in numbers[: 1 + own]:
            random.Random(seed).shuffle(pool)
        self.tables = [torch.full((2, max(pages)), NOWHERE) for _ in sequences]
        for table, count in zip(self.tables, pages, strict=True):
            for kind in (BANDED, FULL):
                table[kind, :count] = torch.tensor([numbers[kind].pop() for _ in range(count)])
        self.cache = model.new_cache(pages_for(each, each, model.page_bytes))
        for tensor in self.cache.tensors:
            if tensor.dtype.itemsize == 1:
                tensor.view(torch.uint8).fill_(0x7F)  # NaN in float8 e4m3fn
            else:
                tensor.fill_(torch.nan)

    def step(self, chunks: dict[int, int]) -> list[Tensor]:
        """Compute the next tokens of these sequences (sequence → number).  Returns the logits of each."""
        batch = self.pack(chunks)
        with torch.inference_mode():
            logits = self.model.forward(batch, self.cache)
        for s in chunks:
            self._forget(s)
        return list(logits.split(list(chunks.values())))

    def pack(self, chunks: dict[int, int]) -> Batch:
        """The batch with the next tokens of these sequences, which then count as computed."""
        size = self.model.page_size
        tokens: list[int] = []
        known = []
        tables = torch.full((2, len(chunks), max(table.shape[1] for table in self.tables)), NOWHERE)
        for row, (s, count) in enumerate(chunks.items()):
            known.append((self.computed[s], count))
            tokens += self.sequences[s][self.computed[s] : self.computed[s] + count]
            self.computed[s] += count
            held = -(-self.computed[s] // size)
            tables[:, row, :held] = self.tables[s][:, :held]
        return Batch.of(known, tables, size, torch.tensor(tokens), samples=torch.arange(len(tokens)))

    def run(self, lengths: list[int], sequence: int = 0) -> Tensor:
        """Compute one sequence alone, in chunks of these lengths.  Returns logits [T, V]."""
        return torch.cat([self.step({sequence: length})[0] for length in lengths])

    def _forget(self, s: int) -> None:
        """Free the banded pages that no later query can see."""
        behind = (self.computed[s] - self.model.config.sliding_window + 1) // self.model.page_size
        for page in range(max(0, behind)):
            if (number := int(self.tables[s][BANDED, page])) != NOWHERE:
                self.cache.keys[:, number] = torch.nan
                self.cache.values[:, number] = torch.nan
                self.tables[s][BANDED, page] = NOWHERE


def alone(model: Model, tokens: list[int]) -> Tensor:
    """Logits [T, V] of one sequence, computed in one chunk."""
    return Paged(model, [tokens]).run([len(tokens)])
