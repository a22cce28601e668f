"""From regions of files to tensors on a device: several threads read, and what they have read travels
meanwhile.

    file --preadv--> buffer --copy--> tensor         a piece at a time, two buffers for each thread

A piece is read out of the system's page cache by the processor, into memory that a GPU can reach by itself
("pinned"), and from there the GPU fetches it while the thread reads the next piece into its other buffer.  A
buffer is read into again only when the copy from it has been made.

Reading needs no mapping, so there are no page faults, no pages to let go of, and a file that is cut short
meanwhile is an error instead of a signal.  The GPU could fetch pages of a mapped file directly only if they
were pinned, one by one, which takes longer than copying them.

Whoever takes the tensors has one thread and one stream of its own.  Memory of the device is taken there, and
`Channel` orders the copies between what that memory was used for before and what will be done with it.
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
"""One reads some 10 GB/s, and a GPU on 16 lanes of PCIe 5 takes 50; a cold disk wants many questions, too."""

BUFFERS = 2
"""Of each thread: one is read into while the other travels."""

PIECE_BYTES = 4 << 20
"""Long enough that what Python does for each is little, short enough that buffers stay near the cache."""

AHEAD_BYTES = 1 << 30
"""Travelling before they are asked for.  So long can the one who takes them do something else."""


@dataclass(frozen=True, slots=True)
class Region:
    """`nbytes` of a file, from `begin`."""

    path: Path
    begin: int
    nbytes: int


class Buffer:
    """Memory of the host, in huge pages where there are some, that pieces are read into and sent from."""

    def __init__(self, nbytes: int):
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel that has none
            memory.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(memory)
        self.bytes = torch.frombuffer(memory, dtype=torch.uint8)

    def wait(self) -> None:
        """Until the last copy from it has been made."""

    def close(self) -> None:
        """Nothing is sent from it any more."""


class Channel(Protocol):
    """The road to one device."""

    def thread(self) -> AbstractContextManager[object]:
        """What a thread must be inside of to send."""

    def buffer(self, nbytes: int) -> Buffer:
        """To be closed by the thread that asked for it."""

    def send(self, buffer: Buffer, size: int, target: Tensor) -> None:
        """Begin to copy the first `size` bytes of a buffer to `target`, which is `place`d memory."""

    def place(self, nbytes: int) -> Tensor:
        """Memory of the device [nbytes] uint8.  What is sent there comes after all that was done with it."""

    def arrive(self) -> None:
        """What this thread asks of the device from now on comes after all copies sent so far."""


def channel(device: torch.device) -> Channel:
    return Pinned(device) if device.type == "cuda" else Plain(device)


class Plain:
    """For a device whose memory is the host's: a copy is made when it is sent."""

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
    """For a GPU: all threads' copies are on one stream, which does nothing else."""

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
        # It may be memory that was let go of just now, and is still read on the stream that did so.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        return place

    def arrive(self) -> None:
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


class _PinnedBuffer(Buffer):
    """Registered with the driver instead of allocated by it: memory is given back at once, and registering
    huge pages is quick."""

    def __init__(self, nbytes: int):
        super().__init__(nbytes)
        # Blocking: a thread that waits must leave its core to those that read.
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
    """One region on its way: `unsent` pieces have not been read yet."""

    def __init__(self, tensor: Tensor, unsent: int):
        self.tensor = tensor
        self.unsent = unsent


@dataclass(frozen=True, slots=True)
class _Piece:
    file: int
    path: Path
    offset: int
    target: Tensor
    upload: _Upload


class Uploads:
    """The bytes of each region as a tensor [nbytes] uint8 on the device, in their order: an iterator.

    A context, to be entered once: inside it threads are at work, and behind it there are none, whatever
    happened.  Taking a tensor raises OSError if a file, which it names, cannot be read or ends too early, or
    if no memory can be pinned; and whatever else a thread has died of.

    Of the device's memory it takes what was asked for, and of what comes behind that less than AHEAD_BYTES
    and a region; of the host's, threads x BUFFERS pieces.
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
        """Bytes of what has begun, but for the first that was not taken."""

        self._pieces: SimpleQueue[_Piece | None] = SimpleQueue()
        self._changed = threading.Condition()
        """Of what is shared with the threads: an upload's `unsent`, and the next two."""
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
            assert not upload.unsent, "tensors are taken inside of the context"
        self._channel.arrive()
        self._begun.popleft()
        self._ahead -= self._begun[0].tensor.nbytes if self._begun else 0
        return upload.tensor

    def _begin(self, region: Region) -> None:
        """Cut a region into pieces, and let the threads have them."""
        if region.path not in self._files:
            self._files[region.path] = os.open(region.path, os.O_RDONLY)
        file = self._files[region.path]
        pieces = range(0, region.nbytes, self._piece_bytes)
        upload = _Upload(self._channel.place(region.nbytes), len(pieces))
        self._ahead += region.nbytes if self._begun else 0
        self._begun.append(upload)
        for start in pieces:
            target = upload.tensor[start : start + self._piece_bytes]
            self._pieces.put(_Piece(file, region.path, region.begin + start, target, upload))

    def _work(self) -> None:
        """One thread: its buffers in turn, as long as there are pieces."""
        buffers: deque[Buffer] = deque()
        try:
            with torch.inference_mode(), self._channel.thread():
                try:
                    while self._carry(self._pieces.get(), buffers):
                        buffers.rotate()
                finally:
                    for buffer in buffers:
                        buffer.close()
        except BaseException as failure:  # it is raised where the tensors are taken
            with self._changed:
                self._closed, self._failure = True, self._failure or failure
                self._changed.notify()

    def _carry(self, piece: _Piece | None, buffers: deque[Buffer]) -> bool:
        """One piece, by the buffer that was used longest ago.  False if there are no more.

        When it returns, nothing here holds on to the piece, and so to memory of the device.
        """
        if piece is None or self._closed:
            return False
        if len(buffers) < BUFFERS:
            buffers.append(self._channel.buffer(self._piece_bytes))
        buffer, size = buffers[-1], piece.target.nbytes
        buffer.wait()
        _read(piece.file, piece.path, buffer.view[:size], piece.offset)
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
