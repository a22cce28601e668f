"""Batch: the input of one forward pass.  KVCache: the memory of its pages.

A prompt, a part of a prompt and a decode are the same kind of step: `Batch` has the chunks of all sequences,
concatenated.

gpt-oss alternates banded (sliding-window) and full attention, so layers come in pairs.  One pool of pages
serves both kinds: page `i` has room for `page_size` positions in *one kind* of layer, at `keys[layer // 2,
i]`.  So a sequence holds two lists of pages, one for each kind (`BANDED`, `FULL`), and frees its banded
pages when they fall behind the window.

If full layers store fewer bytes (`KVCache.full`), each kind has its own pool: the lower page numbers are
banded pages, the others full ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

BANDED, FULL = 0, 1
"""The two kinds of layer in the order they alternate: `layer % 2` in `Batch.slots` and `Batch.page_table`."""

PerKind = int | tuple[int, int]
"""A number of pages or bytes: one number if both kinds share a pool, otherwise (banded, full)."""


def pages_for(banded: int, full: int, page_bytes: PerKind) -> PerKind:
    """These numbers of pages as a `PerKind`: their sum if `page_bytes` is one number."""
    return banded + full if isinstance(page_bytes, int) else (banded, full)


def bytes_of(num_pages: PerKind, page_bytes: PerKind) -> int:
    """Bytes of this number of pages."""
    if isinstance(num_pages, int):
        assert isinstance(page_bytes, int)
        return num_pages * page_bytes
    banded, full = page_bytes if isinstance(page_bytes, tuple) else (page_bytes, page_bytes)
    return num_pages[BANDED] * banded + num_pages[FULL] * full


@dataclass(frozen=True, slots=True)
class Batch:
    """`T` tokens of `S` sequences: all chunks, concatenated.

    tokens      [T]        int64
    positions   [T]        int64  from the start of the sequence
    slots       [2, T]     int64  where keys and values go, for each kind of layer: page * page_size + offset
    starts      [S + 1]    int32  sequence s owns rows starts[s] : starts[s + 1]
    lengths     [S]        int32  keys of the sequence once this pass has written its own
    page_table  [2, S, P]  int32  page of positions p * page_size ...; entries behind the window (banded) or
                                  past the end are arbitrary and never read
    samples     [N]        int64  the rows of T whose logits are wanted
    temperatures [N]       float32, on the host; how the logits are used.  0: the largest is chosen; t: a
                                  token is drawn at this temperature; infinity: all are needed exactly.
                                  None: infinity for all rows.  A backend may estimate logits that are not
                                  needed
    prompts     [S]        int32, on the host; how many positions of each sequence belong to its prompt, which
                                  some backends can compute less exactly.  None: no token of a prompt is here
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    starts: Tensor
    lengths: Tensor
    page_table: Tensor
    samples: Tensor
    temperatures: Tensor | None = None
    prompts: Tensor | None = None

    @classmethod
    def of(
        cls,
        chunks: Sequence[tuple[int, int]],
        page_table: Tensor,
        page_size: int,
        tokens: Tensor | None = None,
        samples: Tensor | None = None,
        temperatures: Tensor | None = None,
        prompts: Tensor | None = None,
    ) -> Batch:
        """Chunks of consecutive tokens over the pages of `page_table`, on its device.

        The engine's runner makes the same batches from arrays of the host, in one copy (engine/runner.py).

        chunks      for each sequence: how many keys are in the cache already, and how many tokens follow
        page_table  [2, S, P]
        tokens      [T]; None: zeros
        samples     [N]; None: the last row of each chunk
        """
        device = page_table.device
        known, counts = torch.tensor(chunks, device=device).T
        ends = counts.cumsum(0)
        owner = torch.arange(len(chunks), device=device).repeat_interleave(counts)
        positions = torch.arange(len(owner), device=device) + (known - ends + counts)[owner]
        pages = page_table[:, owner, positions // page_size].long()
        return cls(
            tokens=torch.zeros_like(positions) if tokens is None else tokens,
            positions=positions,
            slots=pages * page_size + positions % page_size,
            starts=torch.cat((ends[:1] * 0, ends)).int(),
            lengths=(known + counts).int(),
            page_table=page_table.int(),
            samples=ends - 1 if samples is None else samples,
            temperatures=temperatures,
            prompts=prompts,
        )

    def to(self, device: torch.device) -> Batch:
        """The batch on another device; temperatures and prompts stay on the host."""
        stay = ("temperatures", "prompts")
        moved = {name: getattr(self, name).to(device) for name in self.__slots__ if name not in stay}
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class KVCache:
    """keys, values  [ceil(L / 2), pages, page_size, KV, D]; a backend may lay out a page in its own way
    full          keys and values of the full layers, if they have their own pool.  Then `keys` and `values`
                  are those of the banded layers, and the numbers of full pages follow those of banded ones
    """

    keys: Tensor
    values: Tensor
    full: tuple[Tensor, Tensor] | None = field(default=None, kw_only=True)

    @property
    def num_pages(self) -> int:
        return self.keys.shape[1] + (0 if self.full is None else self.full[0].shape[1])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors of the cache."""
        return (self.keys, self.values, *(self.full or ()))

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer: [pages, ...] both."""
        if self.full is not None and layer % 2 == FULL:
            return self.full[0][layer // 2], self.full[1][layer // 2]
        return self.keys[layer // 2], self.values[layer // 2]

    def page(self, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one page, in all the layers of its kind: [ceil(L / 2), ...] both."""
        first = self.keys.shape[1]
        if self.full is not None and number >= first:
            return self.full[0][:, number - first], self.full[1][:, number - first]
        return self.keys[:, number], self.values[:, number]

    def first_page(self, layer: int) -> int:
        """The number of the first page of `of(layer)`."""
        return self.keys.shape[1] if self.full is not None and layer % 2 == FULL else 0
