"""Packs samples into batches.  Samples of one setting begin with the same system message, so a batch has it
once.

    prefix   [P]     the system message
    tokens   [B, R]  the rest, one sample in each row, padded at the end

A row's tokens see the prefix and their own row, as in a separate pass, for half the work.
"""

from __future__ import annotations

import pickle
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from random import Random

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from demo.answers import sample_tokens
from demo.corpus.mixture import FIXED, samples
from demo.corpus.sample import Sample
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer

STOPS = (signal.SIGTERM, signal.SIGINT)
"""Signals that end a training."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One batch, and the tokens to predict in it.

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

    def to(self, device: torch.device) -> Packed:
        return Packed(
            self.prefix.to(device),
            self.tokens.to(device),
            self.rows.to(device),
            self.targets.to(device),
            self.sample.to(device),
            self.samples,
        )


class _Written(Dataset[bytes]):
    """The blocks of a packer as bytes: a tensor that two processes share would need an open file."""

    def __init__(self, packer: Packer):
        self._packer = packer

    def __getitem__(self, number: int) -> bytes:
        return pickle.dumps([replace(packed, samples=[]) for packed in self._packer.packed(number)])


def _ignore_stops(_: int) -> None:
    """A signal to the whole group must not end a maker: the run still needs it in its last step."""
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)


Unpacked = tuple[Sample, list[int], list[int]]
"""A sample, its prompt and its answer."""


class Packer:
    """Makes batches of about `tokens` tokens, including padding; samples longer than `longest` are left out.

    Of most fixed answers only a beginning is kept.  Their ends are soon learned, and a batch then has more
    samples.

    Batches come in blocks, and a block depends only on the seed and its number.  So a run can be resumed with
    the numbers of blocks and batches that were taken.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        seed: int,
        tokens: int,
        held: bool = False,
        longest: int = 640,
        settings: int = 8,
    ):
        self._tokenizer, self._renderer = tokenizer, Renderer(tokenizer)
        self._seed, self._held = seed, held
        self._tokens, self._longest, self._settings = tokens, longest, settings
        self._end = tokenizer.special("<|end|>")
        self._ordinary = tokenizer.size - len(tokenizer.specials)

    def batches(
        self, block: int = 0, taken: int = 0, makers: int = 0
    ) -> Generator[tuple[Packed, tuple[int, int]]]:
        """An endless iterator: each batch, with the block and count from which the next one follows.
        If there are makers, it must be closed: they end only then.

        makers  processes that make the batches ahead, the same ones but without their samples; 0: none
        """
        for number, found in enumerate(self._blocks(block, makers), block):
            for place in range(taken, len(found)):
                done = place + 1 == len(found)
                yield found[place], (number + 1, 0) if done else (number, place + 1)
            taken = 0

    def packed(self, number: int) -> list[Packed]:
        """The batches of a block."""
        return [self.pack(found) for found in self.block(number)]

    def _blocks(self, first: int, makers: int) -> Iterator[list[Packed]]:
        if not makers:
            yield from map(self.packed, count(first))  # never ends
        loader = DataLoader(
            _Written(self),
            batch_size=None,
            sampler=count(first),
            num_workers=makers,
            multiprocessing_context="fork",  # a tokenizer cannot be sent to another process
            worker_init_fn=_ignore_stops,
        )
        yield from map(pickle.loads, loader)

    def block(self, number: int) -> list[list[Unpacked]]:
        """Batches of a few settings, shuffled.  The samples of a batch have one setting and
        similar lengths.
        """
        batches: list[list[Unpacked]] = []
        seed = f"{self._seed} {number}"
        rng = Random(f"{seed} cut")
        for _, stream in islice(samples(seed, self._held), self._settings):
            found: list[Unpacked] = []
            for sample in islice(stream, 192):
                prompt, answer = sample_tokens(self._tokenizer, self._renderer, sample)
                if sample.answer.final in FIXED and not self._held and rng.random() < 0.85:
                    answer = answer[: rng.randint(10, 32)]
                if len(prompt) + len(answer) <= self._longest:
                    found.append((sample, prompt, answer))
            found.sort(key=lambda one: len(one[1]) + len(one[2]))
            while found:
                widest = len(found[-1][1]) + len(found[-1][2]) - found[0][1].index(self._end)
                size = max(1, self._tokens // widest)
                batches.append(found[-size:])
                del found[-size:]
        Random(seed).shuffle(batches)
        return batches

    def pack(self, found: list[Unpacked]) -> Packed:
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

    def drill(self, prefix: Tensor, number: int) -> Packed:
        """Random tokens that contain one sequence twice; the rest of its second occurrence is the target.

        Most families need the skill of copying, and it is learned soonest from pure copying.
        """
        rng = Random(f"drill {self._seed} {number}")
        length = rng.randint(24, 96)
        run = rng.randint(4, length // 2 - 1)
        rows: list[list[int]] = []
        places: list[int] = []
        targets: list[int] = []
        for b in range(self._tokens // length):
            row = [rng.randrange(self._ordinary) for _ in range(length)]
            first = rng.randint(0, length - 2 * run)
            again = rng.randint(first + run, length - run)
            row[again : again + run] = row[first : first + run]
            rows.append(row)
            places += range(b * length + again, b * length + again + run - 1)
            targets += row[again + 1 : again + run]
        owner = torch.zeros(len(targets), dtype=torch.int64)
        return Packed(prefix, torch.tensor(rows), torch.tensor(places), torch.tensor(targets), owner, [])
