"""Copies whole pages of a KV cache to the host and back, for the prefix cache on disk.

The bytes of a page are those of its keys, then of its values, one pair of layers after the other, in their
memory layout: they are valid only for the same backend and layout.

On a GPU, pages are copied to and from pinned memory, asynchronously but in order with all other work of the
device.  So the page may be given to another sequence as soon as its copy was launched.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from model.batch import BANDED, FULL, KVCache


class PageBuffer:
    """Memory on the host for one page of the larger kind."""

    def __init__(self, size: int, device: torch.device):
        self.bytes = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._view = memoryview((ctypes.c_char * size).from_address(self.bytes.data_ptr())).cast("B")
        self._device = device
        self._copied: torch.cuda.Event | None = None

    def wait(self) -> memoryview:
        """The bytes, after the last copy from or to them is complete.  Any thread may call this."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._view

    def copying(self) -> None:
        """Record that the last operation launched on the device is a copy from or to this buffer."""
        if self._device.type == "cuda":
            if self._copied is None:
                self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(self._device))


class PageCopies:
    """
    sizes  bytes of a banded, and of a full page
    """

    def __init__(self, cache: KVCache, device: torch.device):
        self._cache, self._device = cache, device
        self.sizes = (self._size(BANDED), self._size(FULL))

    def buffer(self) -> PageBuffer:
        return PageBuffer(max(self.sizes), self._device)

    @torch.inference_mode()
    def save(self, page: int, buffer: PageBuffer) -> None:
        """Begin to copy a page, by its number, into `buffer`."""
        for part, there in self._parts(page, buffer):
            there.copy_(part, non_blocking=True)
        buffer.copying()

    @torch.inference_mode()
    def load(self, page: int, buffer: PageBuffer) -> None:
        """Begin to copy `buffer` into a page."""
        for part, there in self._parts(page, buffer):
            part.copy_(there, non_blocking=True)
        buffer.copying()

    def _parts(self, page: int, buffer: PageBuffer) -> list[tuple[Tensor, Tensor]]:
        """Each piece of the page's memory, and its place in the buffer."""
        parts, offset = [], 0
        for pool in self._cache.page(page):
            for part in pool.view(torch.uint8):
                parts.append((part, buffer.bytes[offset : offset + part.nbytes].view(part.shape)))
                offset += part.nbytes
        return parts

    def _size(self, kind: int) -> int:
        keys, values = self._cache.of(kind)
        pairs = len(self._cache.keys)
        return pairs * sum(memory[:1].nbytes for memory in (keys, values))
