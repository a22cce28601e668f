"""Whole pages of a KV cache, copied to the host and back: what lets a page outlive its process.

A page's bytes are those of its keys, then of its values, pair of layers by pair of layers, as they lie in
memory: they mean something to the same backend and layout only.

On a GPU the copies are asynchronous, in the order of what else the device is given, between it and pinned
memory.  So a page may change hands on the host as soon as its copy was asked for.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from model.batch import BANDED, FULL, KVCache


class PageBuffer:
    """Memory on the host for one page, the largest kind."""

    def __init__(self, size: int, device: torch.device):
        self.bytes = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._view = memoryview((ctypes.c_char * size).from_address(self.bytes.data_ptr())).cast("B")
        self._device = device
        self._copied: torch.cuda.Event | None = None

    def wait(self) -> memoryview:
        """Its bytes, once the device is done with the last copy from or to them.  Any thread may ask."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._view

    def copying(self) -> None:
        """The last copy from or to it is what the device was given last."""
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
        """Each piece of memory that the page has, and its place in the buffer."""
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
