"""The order of operations on a GPU's streams, events and pinned memory, tested with fakes.

tests/gpu/test_loading_gpu.py tests it with a real GPU.
"""

import os
import threading
from contextlib import contextmanager

import pytest
import torch

from model.loading.upload import Pinned, Region, Uploads

CPU = torch.device("cpu")
PIECE = 64


class Stream:
    """A fake stream that records for which others it waits."""

    def __init__(self, device=None):
        self.waited_for = []

    def wait_stream(self, other):
        self.waited_for.append(other)


class Event:
    """A fake event: pending from its recording until it is waited for."""

    def __init__(self, blocking):
        assert blocking, "a thread that spins takes a core from one that reads"
        self.pending = False
        self.recorded_on = set()

    def record(self, stream):
        assert Runtime.inside.stream is stream
        self.pending = True
        self.recorded_on.add(stream)

    def synchronize(self):
        self.pending = False


class Runtime:
    """A fake of the runtime that knows which memory is pinned."""

    inside = threading.local()

    def __init__(self):
        self.pinned = {}
        self.result = 0
        self.main = Stream()

    def cudaHostRegister(self, address, size, flags):
        assert Runtime.inside.stream is not None, "the driver is asked for the device of this thread"
        assert address not in self.pinned
        if not self.result:
            self.pinned[address] = size
        return self.result

    def cudaHostUnregister(self, address):
        del self.pinned[address]
        return 0


@contextmanager
def stream(entered):
    Runtime.inside.stream = entered
    try:
        yield
    finally:
        Runtime.inside.stream = None


def check_error(result):
    if result:
        raise RuntimeError(f"out of memory ({result})")


@pytest.fixture
def cuda(monkeypatch):
    runtime = Runtime()
    for name, stand_in in {
        "Stream": Stream,
        "Event": Event,
        "stream": stream,
        "current_stream": lambda device: runtime.main,
        "cudart": lambda: runtime,
        "check_error": check_error,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return runtime


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(256)) * 20)
    return tmp_path / "file"


class Watched(Pinned):
    """Keeps its buffers, and records the order of operations."""

    def __init__(self):
        super().__init__(CPU)
        self.buffers = {}

    def buffer(self, nbytes):
        buffer = super().buffer(nbytes)
        self.buffers[buffer.bytes.data_ptr()] = buffer
        return buffer


def test_a_buffer_is_read_into_when_its_copy_is_made_and_while_it_is_pinned(cuda, file, monkeypatch):
    preadv, channel, reads = os.preadv, Watched(), []

    def read(number, into, offset):
        address = torch.frombuffer(into[0], dtype=torch.uint8).data_ptr()
        assert not channel.buffers[address].copied.pending
        assert cuda.pinned[address] == PIECE
        reads.append(address)
        return preadv(number, into, offset)

    monkeypatch.setattr(os, "preadv", read)
    regions = [Region(file, begin, 700) for begin in range(20)]
    with Uploads(regions, channel, 3, PIECE) as uploads:
        for region, tensor in zip(regions, uploads, strict=True):
            assert bytes(tensor.tolist()) == file.read_bytes()[region.begin :][:700]
    assert len(reads) == 20 * 11
    assert set(reads) == channel.buffers.keys()
    assert {stream for each in channel.buffers.values() for stream in each.copied.recorded_on} == {
        channel._stream
    }


def test_all_that_was_pinned_is_given_back_when_no_copy_needs_it(cuda, file, monkeypatch):
    unregister, channel = cuda.cudaHostUnregister, Watched()

    def checked(address):
        assert not channel.buffers[address].copied.pending
        return unregister(address)

    monkeypatch.setattr(cuda, "cudaHostUnregister", checked)
    with Uploads([Region(file, 0, 5000)] * 5, channel, 3, PIECE) as uploads:
        next(uploads)
        assert cuda.pinned
    assert not cuda.pinned


def test_copies_come_after_earlier_use_of_the_memory_and_before_the_tensors_use(cuda, file):
    channel = Pinned(CPU)
    channel.place(10)
    assert channel._stream.waited_for == [cuda.main]
    assert cuda.main.waited_for == []
    channel.arrive()
    assert cuda.main.waited_for == [channel._stream]


def test_memory_that_cannot_be_pinned_is_told(cuda, file):
    cuda.result = 2
    with (
        Uploads([Region(file, 0, 5000)], Pinned(CPU), 3, PIECE) as uploads,
        pytest.raises(OSError, match="the driver cannot pin 64 bytes of memory: out of memory"),
    ):
        next(uploads)
    assert not any(thread.name.startswith("upload-") for thread in threading.enumerate())
