"""Copies between host and device in each step: a `Link` uploads arrays and downloads tensors.

On a CPU both are the same memory, and nothing is copied.  A GPU copies from and to pinned memory while the
host continues, so each copy has its own buffer until the GPU has finished it.
"""

from __future__ import annotations

from array import array
from typing import Protocol

import torch
from torch import Tensor

RING = 6
"""Pinned buffers in each direction: at most two steps are in flight, each with a batch, draws and edits."""


class Download(Protocol):
    """Numbers that are being copied to the host."""

    def wait(self) -> list[list[int]]:
        """Wait for the copy; returns the numbers."""


class Link(Protocol):
    def upload(self, wide: array[int], narrow: array[int]) -> tuple[Tensor, Tensor]:
        """Both arrays, of 64 and 32 bits, as tensors on the device: int64 and int32.  One copy."""

    def download(self, tensor: Tensor) -> Download:
        """Start to copy a tensor [A, B] of int64 to the host.  One copy."""


def link(device: torch.device) -> Link:
    return Pinned(device) if device.type == "cuda" else Shared()


class Shared:
    """The tensors share the arrays' memory, and keep it alive."""

    def upload(self, wide: array[int], narrow: array[int]) -> tuple[Tensor, Tensor]:
        return _sharing(wide, torch.int64), _sharing(narrow, torch.int32)

    def download(self, tensor: Tensor) -> Download:
        return _SharedDownload(tensor)


class _SharedDownload:
    def __init__(self, tensor: Tensor):
        self._tensor = tensor

    def wait(self) -> list[list[int]]:
        numbers: list[list[int]] = self._tensor.tolist()
        return numbers


class _Buffer:
    """Pinned memory, and an event that is complete when the GPU no longer uses it."""

    def __init__(self) -> None:
        self.bytes = torch.empty(0, dtype=torch.uint8)
        self._copied: torch.cuda.Event | None = None

    def take(self, size: int) -> Tensor:
        """`size` bytes of the buffer; waits until the GPU no longer uses them."""
        self.wait()
        if len(self.bytes) < size:
            self.bytes = torch.empty(2 * size, dtype=torch.uint8, pin_memory=True)
        return self.bytes[:size]

    def copying(self, device: torch.device) -> None:
        """Record that the last operation launched on `device` is a copy from or to this buffer."""
        if self._copied is None:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()


class Pinned:
    def __init__(self, device: torch.device):
        self._device = device
        self._out = [_Buffer() for _ in range(RING)]
        self._home = [_Buffer() for _ in range(RING)]

    def upload(self, wide: array[int], narrow: array[int]) -> tuple[Tensor, Tensor]:
        longs, ints = _sharing(wide, torch.int64), _sharing(narrow, torch.int32)
        buffer = _next(self._out)
        here = buffer.take(longs.nbytes + ints.nbytes)
        here[: longs.nbytes].copy_(longs.view(torch.uint8))
        here[longs.nbytes :].copy_(ints.view(torch.uint8))
        there = here.to(self._device, non_blocking=True)
        buffer.copying(self._device)
        return there[: longs.nbytes].view(torch.int64), there[longs.nbytes :].view(torch.int32)

    def download(self, tensor: Tensor) -> Download:
        buffer = _next(self._home)
        here = buffer.take(tensor.nbytes).view(torch.int64).view(tensor.shape)
        here.copy_(tensor, non_blocking=True)
        buffer.copying(self._device)
        return _PinnedDownload(here, buffer)


class _PinnedDownload:
    """Valid until its buffer is used again."""

    def __init__(self, tensor: Tensor, buffer: _Buffer):
        self._tensor, self._buffer = tensor, buffer

    def wait(self) -> list[list[int]]:
        self._buffer.wait()
        numbers: list[list[int]] = self._tensor.tolist()
        return numbers


def _next(ring: list[_Buffer]) -> _Buffer:
    ring.append(ring.pop(0))
    return ring[-1]


def _sharing(numbers: array[int], dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)
