"""What one forward pass needs to know (Batch), and the memory behind its page numbers (KVCache).

A prompt, a piece of a prompt and a decode are one kind of step: `Batch` lays the chunks of all sequences end
to end.

One pool of pages serves both kinds of layer.  gpt-oss alternates banded (sliding-window) and full attention,
so layers come in pairs, and page `i` has room for `page_size` positions in *one kind* of layer, at
`keys[layer // 2, i]`.  A sequence therefore holds two lists of pages, one for each kind (`BANDED`, `FULL`),
and lets go of its banded pages once they are behind the window.
"""

from dataclasses import dataclass

from torch import Tensor

BANDED, FULL = 0, 1
"""The two kinds of layer in the order they alternate: `layer % 2` in `Batch.slots` and `Batch.page_table`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`T` tokens of `S` sequences, flat: chunks laid end to end.

    tokens      [T]        int64
    positions   [T]        int64  from the start of the sequence
    slots       [2, T]     int64  where keys and values go, for each kind of layer: page * page_size + offset
    starts      [S + 1]    int32  sequence s owns rows starts[s] : starts[s + 1]
    lengths     [S]        int32  keys of the sequence once this pass has written its own
    page_table  [2, S, P]  int32  page of positions p * page_size ...; entries behind the window (banded) or
                                  past the end are arbitrary and never read
    samples     [N]        int64  the rows of T whose logits are wanted
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    starts: Tensor
    lengths: Tensor
    page_table: Tensor
    samples: Tensor


@dataclass(frozen=True, slots=True)
class KVCache:
    """keys, values  [ceil(L / 2), pages, page_size, KV, D]; a backend may lay out a page in its own way."""

    keys: Tensor
    values: Tensor

    @property
    def num_pages(self) -> int:
        return self.keys.shape[1]
