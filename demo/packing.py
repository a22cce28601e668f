"""Samples as batches: those of one setting begin with the same system message, so a batch holds it once.

    prefix   [P]     the system message
    tokens   [B, R]  what comes after it, one sample a row, padded at the end

A row's tokens see the prefix and themselves: what they would see alone, for half the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from torch import Tensor

from demo.answers import sample_tokens
from demo.corpus.mixture import samples
from demo.corpus.sample import Sample
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Packed:
    """One batch, and what should be predicted in it.

    prefix   [P] int64
    tokens   [B, R] int64   position P + r
    rows     [N] int64      flat places in B * R whose next token is a target: the answers
    targets  [N] int64
    sample   [N] int64      which of `samples` a target belongs to
    """

    prefix: Tensor
    tokens: Tensor
    rows: Tensor
    targets: Tensor
    sample: Tensor
    samples: list[Sample]


class Packer:
    """Makes batches from the endless stream of a seed.

    drills  for each batch of samples so many of copying are put in, on average; may change at any time
    """

    def __init__(self, tokenizer: Tokenizer, seed: int, held: bool = False):
        self._tokenizer, self._renderer = tokenizer, Renderer(tokenizer)
        self._stream = samples(seed, held)
        self._order = Random(seed)
        self.drills = 0.0
        self._end = tokenizer.special("<|end|>")
        self._ordinary = tokenizer.size - len(tokenizer.specials)

    def batches(self, tokens: int, longest: int = 360, pool: int = 32) -> Iterator[Packed]:
        """Batches of about so many tokens, padding included; a sample longer than `longest` is left out.

        Each is of one setting and of samples of like length; they come shuffled, out of a pool of so many.
        """
        waiting: list[list[tuple[Sample, list[int], list[int]]]] = []
        for _, stream in self._stream:
            found: list[tuple[Sample, list[int], list[int]]] = []
            for sample in islice(stream, 48):
                prompt, answer = sample_tokens(self._tokenizer, self._renderer, sample)
                if len(prompt) + len(answer) <= longest:
                    found.append((sample, prompt, answer))
            found.sort(key=lambda one: len(one[1]) + len(one[2]))
            while found:
                widest = len(found[-1][1]) + len(found[-1][2]) - found[0][1].index(self._end)
                count = max(1, tokens // widest)
                waiting.append(found[-count:])
                del found[-count:]
            while len(waiting) > pool:
                chosen = self.pack(waiting.pop(self._order.randrange(len(waiting))))
                yield chosen
                if self._order.random() < self.drills:
                    yield self._drill(chosen.prefix, tokens)

    def pack(self, found: list[tuple[Sample, list[int], list[int]]]) -> Packed:
        """Samples of one setting, each with its prompt and its answer, as tensors."""
        first = found[0][1]
        shared = first.index(self._end) + 1
        rows = [prompt[shared:] + answer for _, prompt, answer in found]
        length = max(map(len, rows))
        length += -(1 + shared + length) % 32  # with the sink, a multiple of 32 keys: products are faster
        places: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        for b, (row, (_, prompt, answer)) in enumerate(zip(rows, found, strict=True)):
            assert prompt[:shared] == first[:shared], "samples of a batch share their setting"
            end = b * length + len(row)
            places += range(end - len(answer) - 1, end - 1)
            targets += answer
            owners += [b] * len(answer)
            row += [0] * (length - len(row))
        return Packed(
            torch.tensor(first[:shared]),
            torch.tensor(rows),
            torch.tensor(places),
            torch.tensor(targets),
            torch.tensor(owners),
            [sample for sample, _, _ in found],
        )

    def _drill(self, prefix: Tensor, tokens: int) -> Packed:
        """Random tokens in which a run comes twice; the rest of its second coming is the target.

        Copying is the skill that most families need, and it is learned soonest from copying alone.
        """
        length = self._order.randint(24, 96)
        run = self._order.randint(4, length // 2 - 1)
        rows: list[list[int]] = []
        places: list[int] = []
        targets: list[int] = []
        for b in range(tokens // length):
            row = [self._order.randrange(self._ordinary) for _ in range(length)]
            first = self._order.randint(0, length - 2 * run)
            again = self._order.randint(first + run, length - run)
            row[again : again + run] = row[first : first + run]
            rows.append(row)
            places += range(b * length + again, b * length + again + run - 1)
            targets += row[again + 1 : again + run]
        owner = torch.zeros(len(targets), dtype=torch.int64)
        return Packed(prefix, torch.tensor(rows), torch.tensor(places), torch.tensor(targets), owner, [])
