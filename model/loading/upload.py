"""Uploads regions of files to a device: several threads read, and the copies overlap with the reading.

    file --preadv--> buffer --copy--> tensor         a piece at a time, two buffers for each thread

A thread reads a piece from the system's page cache into pinned memory.  The GPU copies it from there while
the thread reads the next piece into its other buffer.  A buffer is filled again only when its copy is done.

Files are read, not mapped: there are no page faults and no pages to free, and a file that is cut short
meanwhile is an error instead of a signal.  A GPU could copy from a mapped file directly only if its pages
were pinned one by one, which takes longer than copying them.

The caller has one thread and one stream.  Memory of the device is allocated there.  `Channel` orders the
copies: after all earlier use of that memory, and before all later use.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor

THREADS = 12
"""One thread reads about 10 GB/s, and 16 lanes of PCIe 5 transfer 50; a cold disk needs many requests too."""

BUFFERS = 2
"""Buffers of each thread: one is filled while the other is copied."""

PIECE_BYTES = 4 << 20
"""Large enough that Python costs little for each, small enough that buffers stay near the cache."""

AHEAD_BYTES = 1 << 30
"""Maximum bytes that are uploaded before the caller requests them."""


@dataclass(frozen=True, slots=True)
class Region:
    """`nbytes` of a file, from `begin`.

    rows  bytes of a row, and bytes from the beginning of one row to that of the next; None: rows are
          contiguous
    """

    path: Path
    begin: int
    nbytes: int
    rows: tuple[int, int] | None = None

    def runs(self, start: int, count: int) -> Iterator[tuple[int, int]]:
        """The runs of the file that contain bytes [start, start + count) of the region: offset and length."""
        row, pitch = self.rows or (self.nbytes, self.nbytes)
        while count:
            number, column = divmod(start, row)
            length = min(row - column, count)
            yield self.begin + number * pitch + column, length
            start, count = start + length, count - length


class Buffer:
    """Host memory for one piece, in huge pages if the system has them."""

    def __init__(self, nbytes: int):
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # this kernel has no huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(memory)
        self.bytes = torch.frombuffer(memory, dtype=torch.uint8)

    def wait(self) -> None:
        """Wait until the last copy from it is done."""

    def close(self) -> None:
        """Free the memory.  Nothing must be sent from it afterwards."""


class Channel(Protocol):
    """Copies to one device."""

    def thread(self) -> AbstractContextManager[object]:
        """A context that a thread must enter before it sends."""

    def buffer(self, nbytes: int) -> Buffer:
        """A new buffer, which the calling thread must close."""

    def send(self, buffer: Buffer, size: int, target: Tensor) -> None:
        """Start to copy the first `size` bytes of a buffer to `target`, which is memory from `place`."""

    def place(self, nbytes: int) -> Tensor:
        """Device memory [nbytes] uint8.  Copies to it come after all earlier use of that memory."""

    def arrive(self) -> None:
        """Order everything that this thread launches from now on after all copies sent so far."""


def channel(device: torch.device) -> Channel:
    return Pinned(device) if device.type == "cuda" else SharedMemory(device)


class SharedMemory:
    """For a device that shares the host's memory: `send` copies at once."""

    def __init__(self, device: torch.device):
        self._device = device

    def thread(self) -> AbstractContextManager[object]:
        return nullcontext()

    def buffer(self, nbytes: int) -> Buffer:
        return Buffer(nbytes)

    def send(self, buffer: Buffer, size: int, target: Tensor) -> None:
        target.copy_(buffer.bytes[:size])

    def place(self, nbytes: int) -> Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, device=self._device)

    def arrive(self) -> None:
        pass


class Pinned:
    """For a GPU: the copies of all threads are on one stream of their own."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def thread(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def buffer(self, nbytes: int) -> Buffer:
        return _PinnedBuffer(nbytes)

    def send(self, buffer: Buffer, size: int, target: Tensor) -> None:
        assert isinstance(buffer, _PinnedBuffer)
        target.copy_(buffer.bytes[:size], non_blocking=True)
        buffer.copied.record(self._stream)

    def place(self, nbytes: int) -> Tensor:
        place = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        # The allocator may return memory that was just freed, and is still being read on the current stream.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        return place

    def arrive(self) -> None:
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


class _PinnedBuffer(Buffer):
    """Memory that is registered with the driver instead of allocated by it: it is freed at once, and
    registering huge pages is quick.
    """

    def __init__(self, nbytes: int):
        super().__init__(nbytes)
        # Blocking, so that a waiting thread leaves its core to the threads that read.
        self.copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        portable = 1
        try:
            torch.cuda.check_error(self._runtime.cudaHostRegister(self.bytes.data_ptr(), nbytes, portable))
        except RuntimeError as error:
            reason = f"the driver cannot pin {nbytes} bytes of memory: {error}"
            raise OSError(errno.ENOMEM, reason) from None

    def wait(self) -> None:
        self.copied.synchronize()  # returns at once if nothing was recorded yet

    def close(self) -> None:
        self.wait()
        torch.cuda.check_error(self._runtime.cudaHostUnregister(self.bytes.data_ptr()))


class _Upload:
    """One region that is being uploaded: `unsent` pieces have not been read yet."""

    def __init__(self, tensor: Tensor, unsent: int):
        self.tensor = tensor
        self.unsent = unsent


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of a region, from `start`."""

    file: int
    region: Region
    start: int
    target: Tensor
    upload: _Upload


class Uploads:
    """An iterator over the bytes of each region, in order: tensors [nbytes] uint8 on the device.

    A context manager, entered once: its threads run inside the context, and have always ended after it.
    Taking a tensor raises OSError, with the name of the file, if a file cannot be read or ends too early;
    OSError if no memory can be pinned; and any other exception that ended a thread.

    Beyond the tensors that were taken, it uses at most AHEAD_BYTES and one region of the device's memory, and
    threads x BUFFERS pieces of the host's memory.
    """

    def __init__(
        self,
        regions: Iterable[Region],
        channel: Channel,
        threads: int = THREADS,
        piece_bytes: int = PIECE_BYTES,
    ):
        self._regions = deque(regions)
        self._channel = channel
        self._piece_bytes = piece_bytes
        self._files: dict[Path, int] = {}
        self._begun: deque[_Upload] = deque()
        self._ahead = 0
        """Bytes of the uploads that have begun, without the next one to be taken."""

        self._pieces: SimpleQueue[_Piece | None] = SimpleQueue()
        self._changed = threading.Condition()
        """Protects the state that is shared with the threads: each upload's `unsent`, and the next two
        attributes.
        """
        self._failure: BaseException | None = None
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"upload-{n}", daemon=True) for n in range(threads)
        ]

    def __enter__(self) -> Uploads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for _ in self._threads:
            self._pieces.put(None)
        for thread in self._threads:
            thread.join()
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        while self._regions and (self._ahead < AHEAD_BYTES or not self._begun):
            self._begin(self._regions.popleft())
        if not self._begun:
            raise StopIteration
        upload = self._begun[0]
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not upload.unsent)
            if self._failure is not None:
                raise self._failure
            assert not upload.unsent, "tensors must be taken inside the context"
        self._channel.arrive()
        self._begun.popleft()
        self._ahead -= self._begun[0].tensor.nbytes if self._begun else 0
        return upload.tensor

    def _begin(self, region: Region) -> None:
        """Cut a region into pieces, and queue them for the threads."""
        if region.path not in self._files:
            self._files[region.path] = os.open(region.path, os.O_RDONLY)
        file = self._files[region.path]
        pieces = range(0, region.nbytes, self._piece_bytes)
        upload = _Upload(self._channel.place(region.nbytes), len(pieces))
        self._ahead += region.nbytes if self._begun else 0
        self._begun.append(upload)
        for start in pieces:
            target = upload.tensor[start : start + self._piece_bytes]
            self._pieces.put(_Piece(file, region, start, target, upload))

    def _work(self) -> None:
        """One thread: uploads pieces until there are none, with its buffers in turn."""
        buffers: deque[Buffer] = deque()
        try:
            with torch.inference_mode(), self._channel.thread():
                try:
                    while self._upload_piece(self._pieces.get(), buffers):
                        buffers.rotate()
                finally:
                    for buffer in buffers:
                        buffer.close()
        except BaseException as failure:  # `__next__` raises it
            with self._changed:
                self._closed, self._failure = True, self._failure or failure
                self._changed.notify()

    def _upload_piece(self, piece: _Piece | None, buffers: deque[Buffer]) -> bool:
        """Upload one piece, with the least recently used buffer.  Returns False if there are no more pieces.

        A method of its own, so that no local variable keeps the piece, and with it memory of the device.
        """
        if piece is None or self._closed:
            return False
        if len(buffers) < BUFFERS:
            buffers.append(self._channel.buffer(self._piece_bytes))
        buffer, size = buffers[-1], piece.target.nbytes
        buffer.wait()
        into = buffer.view[:size]
        for offset, length in piece.region.runs(piece.start, size):
            _read(piece.file, piece.region.path, into[:length], offset)
            into = into[length:]
        self._channel.send(buffer, size, piece.target)
        with self._changed:
            piece.upload.unsent -= 1
            if not piece.upload.unsent:
                self._changed.notify()
        return True


def _read(file: int, path: Path, into: memoryview, offset: int) -> None:
    """Fills `into` from `offset` on.  Raises OSError."""
    while into:
        try:
            count = os.preadv(file, [into], offset)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        if not count:
            end = os.fstat(file).st_size
            raise OSError(errno.ENODATA, f"it ends at byte {end}, in the middle of a tensor", str(path))
        into, offset = into[count:], offset + count
